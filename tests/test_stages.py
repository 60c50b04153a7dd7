import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from quark import schemas, stages
from quark.checkpoint import check_resumed
from quark.config import ConfigError, Mauve, ModelSource, RandomModel, RewardTokens, Training
from quark.lm import ModelError, Policy
from quark.logprobs import response_logprobs
from quark.reading import response_hidden
from quark.resources import fetch_model
from quark.settings import JudgeSettings, MauveSettings, TrainSettings
from quark.shards import Shard


def write_tokenizer(folder: Path, merges: list[tuple[str, str]]) -> Path:
    """Letters a to d as ids 0 to 3, then the merges; the model ends a text with id 3."""
    words = ["a", "b", "c", "d", *map("".join, merges)]
    bpe = models.BPE({word: i for i, word in enumerate(words)}, merges)
    tokenizer = Tokenizer(bpe)
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"end_ids": [3]}))
    return folder


def test_a_judge_with_the_same_tokenizer_reads_the_ids(tmp_path: Path) -> None:
    model = write_tokenizer(tmp_path / "model", [])
    table: dict[str, list[Any]] = {
        "prompt_ids": [[0], [1], [2]],
        "response_ids": [[1, 2, 3], [3, 1], []],
    }
    prompts, responses = stages._judged_ids(table, model, model)
    assert prompts == [[0], [1], [2]]
    assert responses == [[1, 2], [3, 1], []]  # only a last end id goes


def test_another_judge_reads_the_text_anew(tmp_path: Path) -> None:
    model = write_tokenizer(tmp_path / "model", [])
    judge = write_tokenizer(tmp_path / "judge", [("b", "c")])  # bc is id 4
    table: dict[str, list[Any]] = {"prompt": ["ab", "aa"], "response": ["cb", "bc"]}
    prompts, responses = stages._judged_ids(table, model, judge)
    assert prompts == [[0], [0, 0]]  # "ab" + "cb" = a bc b: bc lies across the boundary
    assert responses == [[4, 1], [4]]


def test_a_judge_needs_something_to_go_on() -> None:
    assert stages._common([1, 2], [3, 2]) == 1
    assert stages._common([1, 2, 3], [1, 2]) == 2


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


def judged(folder: Path, base_nll: list[float | None], shard: str = "1-of-1") -> dict[str, Any]:
    """Judge a table of samples whose model is the judge; there are no weights to read."""
    write_tokenizer(folder / "model", [])
    n = len(base_nll)
    columns: dict[str, Any] = {"row_id": [f"0/p/{i}" for i in range(n)], "prompt_id": ["p"] * n}
    columns |= {"sample": range(n), "prompt": ["a"] * n, "response": ["bc"] * n}
    columns |= {"prompt_ids": [[0]] * n, "response_ids": [[1, 2, 3]] * n, "base_nll": base_nll}
    schemas.write(folder / "samples.parquet", schemas.SAMPLES, columns)
    how, model = JudgeSettings(version=1, precision="fp32"), folder / "model"
    out = folder / f"{shard}.parquet"
    stages.judge_stage(how, folder / "samples.parquet", model, model, out, 4000, Shard.parse(shard))
    return schemas.read(out, schemas.LIKELIHOODS).to_pydict()


def test_a_judge_that_is_the_base_model_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    found = judged(tmp_path, [1.5, 2.5, 0.5])
    assert found["nll"] == [1.5, 2.5, 0.5] and found["tokens"] == [2, 2, 2]
    parts = [judged(tmp_path, [1.5, 2.5, 0.5], f"{i}-of-2") for i in (1, 2)]
    assert sorted(parts[0]["row_id"] + parts[1]["row_id"]) == found["row_id"]
    assert parts[0]["nll"] == [1.5, 0.5]


def test_likelihoods_that_were_not_kept_are_computed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="no model here"):
        judged(tmp_path, [1.5, None])
