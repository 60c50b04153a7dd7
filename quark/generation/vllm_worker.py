"""Draw samples with vLLM: a program that the Python of vLLM's own environment runs.

    python -I vllm_worker.py FOLDER

FOLDER has `request.json` and `model/`, written by `quark.generation.vllm`. The program writes
`responses.json`: for each prompt a list of its continuations, each a list of token ids.

It imports nothing of this package, because vLLM needs other versions of torch and transformers.
"""

import ctypes
import json
import signal
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def main(folder: Path) -> None:
    """Answer the request in a folder."""
    import torch
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    request = json.loads((folder / "request.json").read_text())
    prompts: list[Any] = [{"prompt_token_ids": ids} for ids in request["prompts"]]
    if request["embedded"]:
        from safetensors.torch import load_file

        stored = load_file(folder / "prompts.safetensors")
        prompts = [{"prompt_embeds": stored[str(i)]} for i in range(len(stored))]
    has_gpu = torch.cuda.is_available()
    llm = LLM(
        model=str(folder / "model"),
        skip_tokenizer_init=True,
        generation_config="vllm",  # its own defaults, not the model's
        enable_prompt_embeds=request["embedded"],
        enforce_eager=not has_gpu,
        # vLLM rewinds the generator of a prompt that it reads in parts; a CPU's has no `offset`
        enable_chunked_prefill=has_gpu,
        **request["engine"],
    )
    params = [SamplingParams(**request["sampling"], seed=seed) for seed in request["seeds"]]
    found = llm.generate(prompts, params)
    responses = [[list(one.token_ids) for one in each.outputs] for each in found]
    (folder / "responses.json").write_text(json.dumps(responses))


if __name__ == "__main__":
    if sys.platform == "linux":  # end when the stage is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    main(Path(sys.argv[1]))
