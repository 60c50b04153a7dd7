import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quark import sampling, schemas, stages
from quark.checkpoint import check_resumed
from quark.config import (
    ConfigError,
    Mauve,
    ModelSource,
    RandomModel,
    RewardTokens,
    Sampling,
    Training,
)
from quark.lm import Policy
from quark.logprobs import response_logprobs
from quark.reading import response_hidden
from quark.resources import fetch_model
from quark.settings import MauveSettings, SampleSettings, TrainSettings
from quark.shards import Shard
from quark.workers import CAN_FORK, side_by_side


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("iteration", 0, "iteration is 0, these settings need 1"),
        ("quantiles", 4, "quantiles is 4, these settings need 3"),
        ("reward_tokens", {"form": "linear"}, "reward_tokens is {'form': 'linear'}"),
        ("trained_layers", 2, "trained_layers is 2, these settings need None"),
        ("precision", "bf16", "precision is bf16, these settings need fp32"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    training: Training, key: str, value: Any, text: str
) -> None:
    form = RewardTokens(form="embedding")
    settings = TrainSettings(
        version=1,
        stream="s",
        seed=1,
        iteration=2,
        iterations=3,
        quantiles=3,
        reward_tokens=form,
        training=training,
        precision="fp32",
    )
    about = {"iteration": 1, "quantiles": 3, "reward_tokens": form.model_dump()}
    wanted = stages._expected(settings)
    check_resumed(Path("c"), about, wanted)
    with pytest.raises(ConfigError, match=f"c: {text}"):
        check_resumed(Path("c"), about | {key: value}, wanted)


def test_mauve_is_given_the_features_of_both_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = RandomModel(architecture="gpt2", layers=1, width=8, heads=1, context=32, seed=0)
    fetch_model("m", ModelSource(random=random, licence="none"), tmp_path / "m")
    texts, n = ["one text", "", "another"], 3
    ids = {"row_id": ["0/p/0", "0/p/1", "0/q/0"], "prompt_id": ["p", "p", "q"], "sample": [0, 1, 0]}
    columns = {"prompt": ["x"] * n, "response": texts, "prompt_ids": [[1]] * n}
    schemas.write(
        tmp_path / "g.parquet", schemas.SAMPLES, {**ids, **columns, "response_ids": [[1]] * n}
    )
    real = {"prompt_id": ["p", "q"], "prompt_ids": [[1]] * 2, "text_ids": [[65, 66], [67]]}
    real |= {"predicted": [[1, 1], [1]], "nll": [0.0, 0.0]}
    schemas.write(tmp_path / "p.parquet", schemas.PREDICTIONS, real)
    given: dict[str, Any] = {}

    def measure(real: Any, written: Any, how: Mauve) -> float:
        given.update(real=real, written=written)
        return 0.25

    monkeypatch.setattr(stages, "mauve", measure)
    how = Mauve(model="m", tokens=4, buckets=None, scaling=5, seed=25)
    stages.mauve_stage(
        MauveSettings(version=1, mauve=how, precision="fp32"),
        tmp_path / "g.parquet",
        tmp_path / "p.parquet",
        tmp_path / "m",
        tmp_path / "m",
        tmp_path / "mauve.json",
        memory_mb=4000,
    )
    assert given["real"].shape == (2, 8) and given["written"].shape == (3, 8)
    assert np.ptp(given["written"], axis=0).any()  # no two texts alike
    found = json.loads((tmp_path / "mauve.json").read_text())
    assert (found["mauve"], found["texts"], found["real_texts"]) == (0.25, 3, 2)
    assert found["mauve"] == 0.25 and found["version"] == 1


# ------------------------------------------------------------------- likelihoods while sampling
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
        memo=True,
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
        out, memo = folder / "samples.parquet", folder / "samples.memo.safetensors"
        stages.sample_stage(
            settings, tmp_path / "prompts.parquet", tmp_path / "m", [], out, 4000, memo
        )
        made.append([out.read_bytes(), memo.read_bytes()])
    assert used == [1, 2 if CAN_FORK else 1]
    assert made[0] == made[1]
    assert None not in schemas.read(out, schemas.SAMPLES)["base_nll"].to_pylist()
