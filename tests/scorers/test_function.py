"""A scorer that is a function in a file."""

from pathlib import Path

import numpy as np
import pytest

from quark.config import ConfigError, load
from quark.scorers import ScorerError, check_scorers, version_of
from quark.scorers.function import Function
from quark.stages import derive
from quark.stages.score import scorer_of

ROOT = Path(__file__).parents[2]


def written(folder: Path, body: str) -> str:
    file = folder / "reward.py"
    file.write_text(body)
    return f"{file}:score"


SHORT = (
    "def score(prompts, responses):\n    return [1 / len(r) if r else None for r in responses]\n"
)


def test_scores_in_order_and_none_where_there_is_none(tmp_path: Path) -> None:
    place = written(tmp_path, SHORT)
    scorer = Function("mine", place, version_of(place))
    np.testing.assert_array_equal(scorer.score(["a"] * 3, ["xx", "", "x"]), [0.5, np.nan, 1.0])
    assert scorer.score([], []).shape == (0,)


def test_it_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "helper_of_reward.py").write_text("VALUE = 0.25\n")
    body = (
        "from helper_of_reward import VALUE\n\n\ndef score(p, r):\n    return [VALUE for _ in r]\n"
    )
    place = written(tmp_path, body)
    assert Function("mine", place, version_of(place)).score(["a"], ["b"]) == [0.25]


def test_a_change_is_a_new_version_and_is_refused_within_a_run(tmp_path: Path) -> None:
    place = written(tmp_path, SHORT)
    old = version_of(place)
    written(tmp_path, SHORT + "# changed\n")
    assert version_of(place) != old
    with pytest.raises(ScorerError, match="the file has changed since the run began"):
        Function("mine", place, old)


def test_dataclasses_and_late_imports_work(tmp_path: Path) -> None:
    (tmp_path / "late_of_reward.py").write_text("VALUE = 0.75\n")
    place = written(
        tmp_path,
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Kept:\n"
        "    value: float\n"
        "def score(prompts, responses):\n"
        "    import late_of_reward\n"
        "    return [Kept(late_of_reward.VALUE).value for _ in responses]\n",
    )
    assert Function("mine", place, version_of(place)).score(["a"], ["b"]) == [0.75]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("def other(p, r): ...\n", r"reward\.py: has no function score"),
        ("import nothing_of_this_name\n", r"reward\.py: ModuleNotFoundError: .*nothing_of_this"),
        ("def score(p, r):\n    return [0.1]\n", r":score: 1 scores for 2 texts"),
        ("def score(p, r):\n    return 1 / 0\n", r":score: ZeroDivisionError: division by zero"),
        ("def score(p, r):\n    return ['a', 'b']\n", r":score: ValueError: could not convert"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, body: str, error: str) -> None:
    place = written(tmp_path, body)
    with pytest.raises(ScorerError, match=error):
        Function("mine", place, version_of(place)).score(["a", "b"], ["c", "d"])


def test_in_a_configuration(tmp_path: Path) -> None:
    place = written(tmp_path, SHORT)
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(f"functions: {{mine: '{place}'}}\ntasks: {{toxicity: {{scorer: mine}}}}\n")
    config = load([ROOT / "config/config.yaml", overlay])
    check_scorers(config)
    settings = derive.score(config, "mine")
    assert settings.function is not None and settings.function.version == version_of(place)
    assert scorer_of(settings, None, None).score(["a"], ["xx"]) == [0.5]
    others = derive.score(config, "profanity-check").model_dump_json()
    assert "function" not in others  # the settings of other scorers are as they were
    Path(place.removesuffix(":score")).unlink()
    with pytest.raises(ScorerError, match=r"reward\.py: no such file; write FILE\.py:FUNCTION"):
        derive.score(config, "mine")
    with pytest.raises(ScorerError, match=r"tasks\.toxicity\.scorer: .*reward\.py: no such file"):
        check_scorers(config)
    overlay.write_text("functions: {mine: reward}\n")
    with pytest.raises(ConfigError, match=r"functions\.mine"):
        load([ROOT / "config/config.yaml", overlay])
