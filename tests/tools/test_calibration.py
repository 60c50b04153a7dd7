"""A scorer beside published scores: rank correlation, AUC, error and agreement by hand."""

import csv
import itertools

import numpy as np
import pytest

from quark.core import schemas
from quark.core.schemas import TableError
from quark.stages.settings import CalibrateSettings
from quark.tools import calibration
from quark.tools.calibration import agreement, auc, calibrate, error, spearman

SETTINGS = CalibrateSettings.model_validate(
    {"score": {"scorer": "handmade"}, "threshold": 0.5, "resamples": 50}
)
OURS = np.array([0.1, 0.9, 0.4, 0.4, 0.7])
THEIRS = np.array([0.2, 0.8, 0.6, 0.5, 0.1])


class Handmade:
    """Finds its score in the text; fails on a question."""

    name, version = "handmade", "1"

    def score(self, prompts, responses):
        assert list(prompts) == [""] * len(responses)
        return np.array([np.nan if text[0] == "?" else float(text) for text in responses])


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    """A function that writes splits of (text, published score)."""
    monkeypatch.setattr(calibration, "scorer_of", lambda *which: Handmade())

    def write(**splits):
        for name, rows in splits.items():
            columns = {
                "prompt_id": [f"{name}{i}" for i in range(len(rows))],
                "text": [text for text, _ in rows],
                "source": ["s"] * len(rows),
                "toxicity": [published for _, published in rows],
                "toxic": [False] * len(rows),
            }
            schemas.write(tmp_path / f"prompts/{name}.parquet", schemas.PROMPTS, columns)
        return tmp_path / "prompts"

    return write


def test_measures_by_hand():
    # Ranks 1 5 2.5 2.5 4 against 2 5 4 3 1: Pearson's correlation of the two.
    ranks = np.array([[1, 5, 2.5, 2.5, 4], [2, 5, 4, 3, 1]])
    assert spearman(OURS, THEIRS, 0.5) == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-12)
    # Toxic by publication: places 1 and 2 (0.5 is not above 0.5). Pairs won, ties half.
    pairs = itertools.product((0.9, 0.4), (0.1, 0.4, 0.7))
    won = sum((a > b) + 0.5 * (a == b) for a, b in pairs)
    assert auc(OURS, THEIRS, 0.5) == pytest.approx(won / 6, abs=1e-12)
    assert error(OURS, THEIRS, 0.5) == pytest.approx((0.1 + 0.1 + 0.2 + 0.1 + 0.6) / 5, abs=1e-12)
    assert agreement(OURS, THEIRS, 0.5) == 3 / 5  # the third and the last differ


def test_what_has_no_value():
    assert spearman(np.ones(3), THEIRS[:3], 0.5) is None
    assert auc(OURS, np.zeros(5), 0.5) is None and auc(OURS, np.ones(5), 0.5) is None


def read(file):
    with file.open() as source:
        return list(csv.DictReader(source))


def test_rows(prompts, tmp_path):
    pairs = [(str(a), float(b)) for a, b in zip(OURS, THEIRS, strict=True)]
    folder = prompts(
        test=[*pairs, ("?", 0.5), ("0.3", None)], train=[("0.25", 0.75)] * 2, none=[("0.1", None)]
    )
    calibrate(SETTINGS, folder, tmp_path / "out.csv")
    every, test, train = read(tmp_path / "out.csv")
    assert [row["split"] for row in (every, test, train)] == ["all", "test", "train"]
    assert (test["n"], test["unscored"]) == ("6", "1")  # unpublished ones are not compared
    assert (every["n"], every["unscored"]) == ("8", "1")
    assert float(test["spearman"]) == spearman(OURS, THEIRS, 0.5)
    assert float(test["published_mean"]) == pytest.approx(THEIRS.mean(), abs=1e-12)
    for name in ("error", "agreement"):
        low, value, high = (float(test[name + end]) for end in ("_low", "", "_high"))
        assert low <= value <= high and low < high
    # All toxic and all alike: neither ranks nor pairs, and some resamples of `test` have none.
    assert train["spearman"] == train["auc"] == train["auc_low"] == ""
    assert (train["error"], train["error_low"], train["agreement"]) == ("0.5", "0.5", "0.0")
    assert test["scorer"] == "handmade" and test["threshold"] == "0.5"


def test_the_same_bytes_again(prompts, tmp_path):
    folder = prompts(test=[(str(a), float(b)) for a, b in zip(OURS, THEIRS, strict=True)])
    for name in ("one.csv", "two.csv"):
        calibrate(SETTINGS, folder, tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_nothing_to_compare_with(prompts, tmp_path):
    with pytest.raises(TableError, match="prompts: no prompt has a published score"):
        calibrate(SETTINGS, prompts(test=[("0.1", None)]), tmp_path / "out.csv")
    with pytest.raises(TableError, match="no prompt has a published score"):
        calibrate(SETTINGS, tmp_path / "nowhere", tmp_path / "out.csv")
