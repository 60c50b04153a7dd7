"""The likelihoods of generations under a judge."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from quark.core import schemas
from quark.core.shards import Shard
from quark.models.lm import ModelError
from quark.stages import judge as judging
from quark.stages.settings import JudgeSettings


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
    prompts, responses = judging._judged_ids(table, model, model)
    assert prompts == [[0], [1], [2]]
    assert responses == [[1, 2], [3, 1], []]  # only a last end id goes


def test_another_judge_reads_the_text_anew(tmp_path: Path) -> None:
    model = write_tokenizer(tmp_path / "model", [])
    judge = write_tokenizer(tmp_path / "judge", [("b", "c")])  # bc is id 4
    table: dict[str, list[Any]] = {"prompt": ["ab", "aa"], "response": ["cb", "bc"]}
    prompts, responses = judging._judged_ids(table, model, judge)
    assert prompts == [[0], [0, 0]]  # "ab" + "cb" = a bc b: bc lies across the boundary
    assert responses == [[4, 1], [4]]


def test_a_judge_needs_something_to_go_on() -> None:
    assert judging._common([1, 2], [3, 2]) == 1
    assert judging._common([1, 2, 3], [1, 2]) == 2


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
    judging.judge_stage(
        how, folder / "samples.parquet", model, model, out, 4000, Shard.parse(shard)
    )
    return schemas.read(out, schemas.LIKELIHOODS).to_pydict()


def test_a_judge_that_is_the_base_model_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setattr("quark.models.lm.load_tokenizer", None)  # whoever calls it fails
    found = judged(tmp_path, [1.5, 2.5, 0.5])
    assert found["nll"] == [1.5, 2.5, 0.5] and found["tokens"] == [2, 2, 2]
    parts = [judged(tmp_path, [1.5, 2.5, 0.5], f"{i}-of-2") for i in (1, 2)]
    assert sorted(parts[0]["row_id"] + parts[1]["row_id"]) == found["row_id"]
    assert parts[0]["nll"] == [1.5, 0.5]


def test_likelihoods_that_were_not_kept_are_computed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="no model here"):
        judged(tmp_path, [1.5, None])
