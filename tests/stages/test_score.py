"""The scoring stage: order, failures and what it reports."""

import json

import numpy as np
import pytest

from quark.config import Label
from quark.core import schemas
from quark.core.shards import WHOLE, Shard
from quark.scorers import ScorerError
from quark.scorers.tox_block import FORMAT
from quark.stages import score as scoring
from quark.stages.merge_shards import merge_shards
from quark.stages.settings import ScoreSettings

SETTINGS = ScoreSettings(scorer="handmade")
TEXTS = ["fair", "foul", "", "fair"]
TOXICITY = {"fair": 0.0, "foul": 0.75, "": float("nan")}


class Handmade:
    """Knows two words; fails on an empty text."""

    name, version = "handmade", "7"

    def score(self, prompts, responses):
        assert list(prompts) == ["so"] * len(responses)
        return np.array([TOXICITY[text] for text in responses])


def run(monkeypatch, tmp_path, samples, texts, shard=WHOLE):
    monkeypatch.setattr(scoring, "load_scorer", lambda name: {"handmade": Handmade()}[name])
    out = tmp_path / "scores.parquet"
    scoring.score_stage(SETTINGS, samples(texts), out, shard=shard)
    return out, json.loads((tmp_path / "scores.json").read_text())


def test_scores_stand_in_the_order_of_the_samples(monkeypatch, tmp_path, samples):
    out, _ = run(monkeypatch, tmp_path, samples, TEXTS)
    table = schemas.read(out, schemas.SCORES).to_pydict()
    assert table == {
        "row_id": ["0/p0/0", "0/p1/0", "0/p2/0", "0/p3/0"],
        "prompt_id": ["p0", "p1", "p2", "p3"],
        "score": [0.0, 0.75, None, 0.0],  # the failed one is null, not the good score 0
        "error": [None, None, "handmade gave no score", None],
    }
    assert schemas.about(out) == {"scorer": "handmade", "version": "7"}


def test_failures_are_counted_and_left_out_of_the_mean(monkeypatch, tmp_path, samples):
    _, report = run(monkeypatch, tmp_path, samples, TEXTS)
    assert (report["rows"], report["failed"], report["mean_score"]) == (4, 1, 0.25)
    assert (report["scorer"], report["scorer_version"]) == ("handmade", "7")


def test_a_scorer_that_always_failed_has_no_mean(monkeypatch, tmp_path, samples):
    _, report = run(monkeypatch, tmp_path, samples, ["", ""])
    assert (report["failed"], report["mean_score"]) == (2, None)


@pytest.mark.parametrize("score", [1.5, -0.1, float("inf")])
def test_a_score_that_is_none_is_named(monkeypatch, tmp_path, samples, score):
    monkeypatch.setitem(TOXICITY, "foul", score)
    with pytest.raises(ScorerError, match=rf"handmade: score {score} of 0/p1/0 is not in \[0, 1\]"):
        run(monkeypatch, tmp_path, samples, TEXTS)
    assert not (tmp_path / "scores.parquet").exists()


def test_a_table_without_rows_is_named(monkeypatch, tmp_path, samples):
    with pytest.raises(schemas.TableError, match=r"samples\.parquet: has no rows"):
        run(monkeypatch, tmp_path, samples, [])
    assert not (tmp_path / "scores.parquet").exists()


@pytest.mark.parametrize("count", [1, 2, 5])  # 5: more shards than parts
def test_shards_hold_together_what_the_whole_stage_writes(monkeypatch, tmp_path, samples, count):
    monkeypatch.setattr(scoring, "TOGETHER", 2)
    texts = [*TEXTS, "foul"]
    whole, said = run(monkeypatch, tmp_path / "whole", samples, texts)
    parts = [
        run(monkeypatch, tmp_path / str(i), samples, texts, Shard(i, count))[0]
        for i in range(1, count + 1)
    ]
    merge_shards(parts, tmp_path / "samples.parquet", tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()
    gathered = json.loads((tmp_path / "out.json").read_text())
    for key in ("rows", "failed", "scorer", "scorer_version", "errors", "mean_score"):
        assert gathered[key] == said[key], key


def test_a_scorer_that_needs_torch_gets_the_threads(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(scoring, "use_threads", given.append)
    monkeypatch.setattr("quark.scorers.classifier.Classifier", lambda *_: "a classifier")
    monkeypatch.setattr("quark.scorers.tox_block.ToxBlock", lambda *_: "tox-block")
    settings = ScoreSettings(scorer="any", classifier=Label(label="x", whole=False, tokens=9))
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    assert scoring.scorer_of(settings, tmp_path, None, threads=3) == "a classifier"
    assert given == [3]
    manifest.write_text(json.dumps({"format": FORMAT}))
    assert scoring.scorer_of(settings, tmp_path, None, threads=3) == "tox-block"
    assert given == [3]  # numpy needs none
