from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quark.config import (
    ModelSource,
    RandomModel,
    Sampling,
)
from quark.core import schemas
from quark.core.shards import Shard
from quark.data import fetch_model
from quark.generation import sampler as sampling
from quark.generation.logprobs import response_logprobs
from quark.generation.workers import CAN_FORK, side_by_side
from quark.models.decode_state import response_hidden
from quark.models.lm import Policy
from quark.stages import sample as stages
from quark.stages.settings import SampleSettings


def test_sampling_gives_the_likelihood_under_the_base_model(linear_policy: Policy) -> None:
    """Of a steered policy, from its hidden states; the end id is not counted."""
    prompt, responses = [5, 6, 7], [[3, 4, 100], [8], [100], [2, 9, 1]]
    base = Policy(linear_policy.lm)
    hidden = response_hidden(base, [prompt] * 4, responses)
    text = [ids[:-1] if ids[-1] == 100 else ids for ids in responses]
    (wanted,) = response_logprobs(base, [prompt], [text], names=["p"], memory_mb=4000)
    linear_policy.steer(3)
    found = stages._nll(linear_policy, responses, hidden)
    np.testing.assert_allclose(found, -wanted, rtol=1e-5, atol=1e-5)  # float32, other shapes
    assert found[2] == 0


def test_processes_write_what_one_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    """In float32, where threads and processes round alike."""
    random = RandomModel(architecture="llama", layers=1, width=8, heads=1, context=32, seed=0)
    fetch_model("m", ModelSource(random=random, licence="none"), tmp_path / "m")
    texts = ["one", "two words", "and three words", "x", "the fifth"]
    columns = {"prompt_id": list("abcde"), "text": texts, "source": ["s"] * 5, "toxic": [False] * 5}
    schemas.write(tmp_path / "prompts.parquet", schemas.PROMPTS, columns)
    settings = SampleSettings(
        version=1,
        method="quark",
        stream="1/s",
        iteration=0,
        prompts=None,
        prefix=None,
        samples=3,
        sampling=Sampling(temperature=1, top_k=0, top_p=0.9, min_new_tokens=1, max_new_tokens=5),
        precision="fp32",
        cache=True,
        judged=True,
        steering=None,
    )
    monkeypatch.setattr(sampling, "MAX_ROWS", 3)  # a prompt a batch
    used: list[int] = []

    def counted(run: Any, shard: Shard, workers: int) -> Any:
        used.append(workers)
        return side_by_side(run, shard, workers)

    monkeypatch.setattr(stages, "side_by_side", counted)
    made = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        folder = tmp_path / str(threads)
        folder.mkdir()
        out, cache = folder / "samples.parquet", folder / "samples.hidden.safetensors"
        stages.sample_stage(
            settings, tmp_path / "prompts.parquet", tmp_path / "m", [], out, 4000, cache
        )
        made.append([out.read_bytes(), cache.read_bytes()])
    assert used == [1, 2 if CAN_FORK else 1]
    assert made[0] == made[1]
    assert None not in schemas.read(out, schemas.SAMPLES)["base_nll"].to_pylist()
