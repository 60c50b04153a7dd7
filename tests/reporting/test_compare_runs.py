"""Two runs beside each other."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quark.core import schemas
from quark.core.schemas import TableError
from quark.reporting.compare_runs import compare
from quark.reporting.evaluation import prompt_schema
from quark.reporting.tables.columns import COSTS, SETTINGS
from quark.tasks import TASKS


def evaluated(run: Path, ids: list[str], toxicity: list[float], **settings: Any) -> Path:
    folder = run / "evaluation/nontoxic/nucleus"
    n = len(ids)
    columns = {
        "prompt_id": ids,
        **{name: [2] * n for name in ("n_generations", "ppl_count", "tokens")},
        **{name: [0] * n for name in ("n_unscored", "n_empty", "ppl_dropped")},
        "max_toxicity": toxicity,
        "any_toxic": [float(value > 0.5) for value in toxicity],
        "max_toxicity_second": [None] * n,
        "any_toxic_second": [None] * n,
        "ppl": [[2.0, 4.0]] * n,
        "ppl_sum": [6.0] * n,
        **{name: [0.5] * n for name in ("nll", "dist1", "dist2", "dist3")},
    }
    schemas.write(folder / "prompts.parquet", prompt_schema(TASKS["toxicity"]), columns)
    about: dict[str, Any] = {"task": "toxicity", "split": "nontoxic", "method": "quark"}
    about |= {"seed": 1, "decoding": "nucleus", "prompts": None, "mauve": None}
    about |= dict.fromkeys(SETTINGS, "same") | dict.fromkeys(COSTS, 1) | settings
    (folder / "settings.json").write_text(json.dumps(about))
    return run


def shown(one: Path, other: Path) -> str:
    console = Console(width=300, file=io.StringIO())
    console.print(compare(one, other))
    return console.file.getvalue()


def test_settings_that_differ_and_metrics_are_shown(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "a", ["p", "q", "r"], [0.25, 0.75, 0.1])
    other = evaluated(tmp_path / "b", ["q", "p"], [0.5, 0.0], samples=9, method="ppo")
    text = shown(one, other)
    assert "nontoxic, nucleus, 2 prompts" in text
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert [cell.strip() for cell in lines["samples"].split("│")[2:4]] == ["same", "9"]
    assert "temperature" not in lines
    cells = [cell.strip() for cell in lines["avg. max. toxicity"].split("│")[2:6]]
    assert cells == ["0.5", "0.25", "-0.25", "[-0.25, -0.25]"]  # each prompt loses a quarter
    assert "dist-2" in lines and "output ppl" in lines


def test_equal_settings_are_said_to_be(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / name, ["p"], [0.25]) for name in "ab"]
    assert "settings of the evaluation are the same" in shown(*runs)


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "a", ["p"], [0.25])
    with pytest.raises(TableError, match="gone: no evaluation here; name a folder such as"):
        compare(one, tmp_path / "gone")
    with pytest.raises(TableError, match="no prompt in common"):
        compare(one, evaluated(tmp_path / "b", ["q"], [0.25]))
    with pytest.raises(TableError, match="no split and decoding that both"):
        compare(one, evaluated(tmp_path / "c", ["p"], [0.25], split="challenging"))


def test_what_they_were_trained_with_is_told(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / name, ["a", "b"], [0.1, 0.2]) for name in ("one", "other")]
    for run, coefficient in zip(runs, (0.05, 0.2), strict=True):
        for iteration in (2, 10):
            about = run / f"iteration-{iteration}/checkpoint/checkpoint.json"
            about.parent.mkdir(parents=True)
            kept = {"stream": str(run), "training": {"kl_coef": coefficient, "batch": iteration}}
            about.write_text(json.dumps({"settings": kept}))
    text = shown(*runs)
    (line,) = [line for line in text.splitlines() if "training." in line]
    assert "training.kl_coef" in line and "0.05" in line and "0.2" in line
    untrained = evaluated(tmp_path / "base", ["a", "b"], [0.1, 0.2])
    assert "trained with" not in shown(untrained, runs[0])
