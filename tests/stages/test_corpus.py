import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from quark.config import ConfigError
from quark.core import schemas
from quark.stages import corpus as module
from quark.stages.corpus import corpus_stage
from quark.stages.settings import CorpusSettings

KIND, RUDE, BETWEEN = 0.05, 0.9, 0.4  # toxicity


class Scorer:
    """What the texts say of themselves."""

    name, version = "own words", "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, prompts: list[str], responses: list[str]) -> np.ndarray:
        self.asked += responses
        return np.array([RUDE if "b" in text else KIND for text in responses])


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Scorer:
    scorer = Scorer()
    monkeypatch.setattr(module, "scorer_of", lambda *which: scorer)
    return scorer


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A model of letters, three kinds of prompts, texts and samples."""
    model = tmp_path / "model"
    words = {letter: i for i, letter in enumerate("abcdefghij")}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(model)
    (model / "manifest.json").write_text(json.dumps({"end_ids": [9, 8]}))

    def prompts(name: str, rows: list[tuple[str, float | None]]) -> Path:
        columns = {
            "prompt_id": [text for text, _ in rows],
            "text": [text for text, _ in rows],
            "source": [name] * len(rows),
            "toxicity": [score for _, score in rows],
            "toxic": [False] * len(rows),
        }
        schemas.write(tmp_path / f"{name}.parquet", schemas.PROMPTS, columns)
        return tmp_path / f"{name}.parquet"

    ids = [f"0/p/{i}" for i in range(6)]
    samples, scores = tmp_path / "samples.parquet", tmp_path / "scores.parquet"
    columns: dict[str, Any] = {"row_id": ids, "prompt_id": ["p"] * 6, "sample": list(range(6))}
    texts = {"prompt": ["c"] * 6, "response": ["d"] * 6, "prompt_ids": [[2]] * 6}
    responses = {"response_ids": [[3, i] for i in range(5)] + [[]]}
    schemas.write(samples, schemas.SAMPLES, columns | texts | responses)
    given = {"score": [KIND, RUDE, BETWEEN, None, KIND, KIND]}
    schemas.write(scores, schemas.SCORES, {"row_id": ids, "prompt_id": ["p"] * 6} | given)
    return {
        "prompts": prompts("prompts", [("aaa", KIND), ("ccc", RUDE), ("bdf", None), ("eee", None)]),
        "texts": prompts("texts", [("cdefgh", None), ("bcd", None), ("iii", None)]),
        "samples": samples,
        "scores": scores,
        "model": model,
    }


def run(
    files: dict[str, Path], out: Path, task: str = "toxicity", **changed: Any
) -> list[dict[str, Any]]:
    rows = {"prompts": None, "samples": None, "texts": 2} | changed.pop("rows", {})
    how = {"texts": "texts", "wanted_from": 0.9, "unwanted_to": 0.5, "tokens": 4} | changed
    settings = CorpusSettings.model_validate(
        {"version": 1, "task": task, "stream": "1/corpus", "score": {"scorer": "x"}}
        | {"corpus": how | {"rows": rows}}
    )
    corpus_stage(settings, out=out, reward=lambda toxicity: 1 - toxicity, **files)
    return schemas.read(out, schemas.CORPUS).to_pylist()


def test_who_is_wanted(files: dict[str, Path], tmp_path: Path, scorer: Scorer) -> None:
    found = run(files, tmp_path / "corpus.parquet")
    rows = {row["row_id"]: (row["label"], row["prompt_ids"], row["response_ids"]) for row in found}
    assert rows == {
        "prompts/ccc": (1, [9], [2, 2, 2]),  # read after an end of text; kind prompts are left out
        "prompts/bdf": (1, [9], [1, 3, 5]),  # the scorer's word where none is published
        "texts/cdefgh": (0, [9], [2, 3, 4, 5]),  # cut to four tokens
        "texts/bcd": (1, [9], [1, 2, 3]),
        "samples/0/p/0": (0, [2], [3, 0]),
        "samples/0/p/1": (1, [2], [3, 1]),
        "samples/0/p/4": (0, [2], [3, 4]),  # between, not scored and empty ones are left out
    }
    # no published score is asked for again, and a text is judged by what is left of it
    assert scorer.asked == ["bdf", "eee", "cdef", "bcd"]
    cost = json.loads((tmp_path / "corpus.json").read_text())
    assert (cost["rows"], cost["scored"], cost["tokens"]) == (7, 4, 19)


def test_published_toxicity_is_no_sentiment(
    files: dict[str, Path], tmp_path: Path, scorer: Scorer
) -> None:
    run(files, tmp_path / "corpus.parquet", task="sentiment_positive")
    assert scorer.asked == ["aaa", "ccc", "bdf", "eee", "cdef", "bcd"]


def test_limits(files: dict[str, Path], tmp_path: Path, scorer: Scorer) -> None:
    found = run(files, tmp_path / "corpus.parquet", rows={"samples": 1, "prompts": 0})
    kinds = sorted((row["source"], row["label"]) for row in found)
    assert kinds == [("samples", 0), ("samples", 1), ("texts", 0), ("texts", 1)]


def test_a_class_without_text(files: dict[str, Path], tmp_path: Path, scorer: Scorer) -> None:
    with pytest.raises(ConfigError, match="no wanted text"):
        run(files, tmp_path / "corpus.parquet", wanted_from=1.0)
    assert not (tmp_path / "corpus.parquet").exists()


def test_samples_and_scores_of_other_rows(
    files: dict[str, Path], tmp_path: Path, scorer: Scorer
) -> None:
    other = {"row_id": ["0/q/0"], "prompt_id": ["q"], "score": [KIND]}
    schemas.write(files["scores"], schemas.SCORES, other)
    with pytest.raises(schemas.TableError, match="its rows are not those of"):
        run(files, tmp_path / "corpus.parquet")
