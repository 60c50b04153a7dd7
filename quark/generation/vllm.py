"""The second sampler: vLLM (Kwon et al. 2023), for policies that are standard models.

    what continues the prompts                  what vLLM gets
    a model without reward tokens               its weights
    linear reward tokens at a place             the weights with output embeddings E (I + c W)'
    low-rank adapters                           the weights with the adapters merged, so rounded
    embedded reward tokens                      the weights, and the prompts as embeddings

Methods that change logits, hidden states or the cache at each step cannot be expressed, nor can
sinks: the configuration refuses them (`quark.config.whole`). This package's sampler does
contrastive search for all methods.

vLLM requires its own versions of torch and transformers, so it runs in its own environment, as
another process. It draws from the same distribution as `quark.generation.sampler`, but with
other random numbers: each prompt has a seed, and its samples count on from it. Rounding depends on
vLLM's batches, so a run that is repeated, or cut into shards, can differ in rare draws.

vLLM returns token ids. The hidden states that predicted them, which training and the judge use, are
computed here by one pass over prompt and response.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from quark.config import Sampling
from quark.core.seeds import stream
from quark.core.shards import WHOLE, Shard
from quark.generation import vllm_worker
from quark.generation.decoding import Decoder, Plain
from quark.generation.sampler import Continued, batches, until_end
from quark.models.decode_state import check_lengths, response_hidden
from quark.models.lm import Policy
from quark.models.lora import merge_adapters
from quark.models.memory import within_memory
from quark.models.reward_tokens import EmbeddingTokens

CPU_CACHE_GB = 2
"""Memory of vLLM's cache of keys and values without a GPU."""


class VLLMError(RuntimeError):
    """vLLM cannot continue the prompts; the text says why."""


def sample(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    samples: int,
    sampling: Sampling,
    *,
    seed_name: str,
    memory_mb: int,
    python: Path | None,
    out: Path,
    hidden: bool,
    shard: Shard = WHOLE,
) -> Iterator[Continued]:
    """Continue each prompt `samples` times with vLLM.

    Args:
        decoder: must be a policy that decodes by its own logits.
        prompts, names, samples, sampling, seed_name: as in `sampler.sample`.
        memory_mb: bounds the rows whose hidden states are computed together.
        python: the Python of the environment in which vLLM is installed.
        out: the file that is made; a copy of the model lies beside it while vLLM runs.
        hidden: compute the hidden states that predicted the samples; else they are empty.
        shard: only its prompts are continued.

    Yields:
        The continuations of every prompt of the shard once, in any order.

    Raises:
        VLLMError: vLLM is missing, fails, or cannot express the decoder.
        PromptLengthError: a prompt is too short, or leaves too little room.
    """
    policy = _plain(decoder)
    check_lengths(policy, prompts, names, sampling.max_new_tokens)
    own = list(shard.of(range(len(prompts))))
    if not own:
        return
    seeds = [_seed(seed_name, names[place]) for place in own]
    asked = [prompts[place] for place in own]
    drawn = _draw(policy, asked, seeds, samples, sampling, python, out)
    responses = {
        place: [until_end(ids, policy.end_ids) for ids in several]
        for place, several in zip(own, drawn, strict=True)
    }
    if not hidden:
        nothing = policy.head.new_empty(0, policy.head.shape[1])
        yield from (Continued(place, several, nothing) for place, several in responses.items())
        return

    @torch.no_grad()
    def together(part: Sequence[int]) -> list[torch.Tensor]:
        several = [responses[own[i]] for i in part]
        owner = np.repeat(np.arange(len(part)), samples).tolist()
        flat = [ids for each in several for ids in each]
        states = response_hidden(policy, [asked[i] for i in part], flat, owner)
        return list(states.split([sum(map(len, each)) for each in several]))

    every = batches(
        decoder,
        asked,
        [names[place] for place in own],
        samples,
        sampling.max_new_tokens,
        memory_mb,
    )
    for part, states in within_memory(together, every):
        for i, predicting in zip(part, states, strict=True):
            yield Continued(own[i], responses[own[i]], predicting)


def _plain(decoder: Decoder) -> Policy:
    """Return the policy of a decoder that vLLM can express."""
    policy, tokens = decoder.policy, decoder.policy.reward_tokens
    if type(decoder) is not Plain or not isinstance(tokens, EmbeddingTokens | None):
        what = type(decoder if type(decoder) is not Plain else tokens).__name__
        raise VLLMError(f"vLLM cannot decode with {what}: remove the method from `tasks.TASK.vllm`")
    return policy


def _seed(seed_name: str, name: str) -> int:
    """Return the seed of a prompt; its samples have this seed and the following ones in vLLM."""
    return int(stream(seed_name, name).integers(2**62))


def _draw(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    samples: int,
    sampling: Sampling,
    python: Path | None,
    out: Path,
) -> list[list[list[int]]]:
    """Return the continuations of each prompt, drawn by vLLM in another process."""
    if python is None:
        raise VLLMError("no Python with vLLM is given: set `vllm_python` (docs/scaling.md)")
    prefix = f".{out.name}.vllm-"
    out.parent.mkdir(parents=True, exist_ok=True)
    for stale in out.parent.glob(f"{prefix}*"):  # of a stage that was killed
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent) as made:
        folder = Path(made)
        lm: Any = policy.lm
        merge_adapters(lm)
        lm.save_pretrained(folder / "model", max_shard_size="1000GB")
        embedded = isinstance(policy.reward_tokens, EmbeddingTokens)
        if embedded:
            save_file(_embed(policy, prompts), folder / "prompts.safetensors")
        request = {
            "prompts": [] if embedded else prompts,
            "embedded": embedded,
            "seeds": seeds,
            "sampling": _sampling_params(sampling, samples, policy.end_ids),
            "engine": {
                "dtype": str(policy.head.dtype).removeprefix("torch."),
                "max_model_len": max(map(len, prompts)) + sampling.max_new_tokens,
                **_gpu_memory(),
            },
        }
        (folder / "request.json").write_text(json.dumps(request))
        try:
            subprocess.run(
                [python, "-I", vllm_worker.__file__, folder],  # -I: no other packages
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=2,  # vLLM's messages go to the log
                check=True,
            )
        except OSError as error:
            raise VLLMError(f"vllm_python: {python} cannot be run: {error}") from None
        except subprocess.CalledProcessError as error:
            raise VLLMError(
                f"vLLM ended with status {error.returncode}; its messages stand above. Is vLLM "
                f"installed for {python}? Without it, remove the method from `tasks.TASK.vllm`"
            ) from None
        found: list[list[list[int]]] = json.loads((folder / "responses.json").read_text())
        return found


def _embed(policy: Policy, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return the embeddings (tokens, d) of each prompt with its reward token, by number."""
    with torch.no_grad():
        rows = [policy.embed(torch.tensor(ids, device=policy.head.device)) for ids in prompts]
    return {str(i): row.cpu().contiguous() for i, row in enumerate(rows)}


def _sampling_params(sampling: Sampling, samples: int, end_ids: Sequence[int]) -> dict[str, Any]:
    """Return vLLM's SamplingParams: a response ends with the first of our end ids, which stays."""
    return {
        "n": samples,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_tokens": sampling.min_new_tokens,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": list(end_ids),
        "ignore_eos": True,  # of the model's configuration
        "detokenize": False,
    }


def _gpu_memory() -> dict[str, float]:
    """Return the share of the GPU's memory that vLLM may use: most of what is free."""
    if not torch.cuda.is_available():
        return {}
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": 0.9 * free / total}


def _visible(device: int) -> str:
    """Return the name of one of the GPUs that this process sees."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",")[device] if names else str(device)


def _environment() -> dict[str, str]:
    """Return the variables for vLLM: no network, no statistics, our GPU and number of threads."""
    usual = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": str(CPU_CACHE_GB),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    always = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, which ends with the stage
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():  # `gpus.take_gpu` may have chosen another one than the first
        always["CUDA_VISIBLE_DEVICES"] = _visible(torch.cuda.current_device())
    return usual | os.environ | always
