"""The choice among tries: by the task's main metric, within the bound on perplexity."""

import csv
from pathlib import Path

import pytest

from quark.core.schemas import TableError
from quark.reporting.tables import make_tuning

COLUMNS = ("method", "avg_max_toxicity", "output_ppl")
TRIES = [
    ("base", 0.6, 20.0),
    ("gedi.weight.30", 0.3, 21.0),
    ("gedi.weight.60", 0.2, 22.0),  # just 1.1 times
    ("gedi.weight.90", 0.1, 22.1),
    ("dexperts.alpha.2", 0.4, 30.0),
    ("dexperts.alpha.0.5", None, 20.0),
    ("ppo.place.2", 0.1, None),
]


def table(
    folder: Path, tries: list[tuple[str, float | None, float | None]], task: str = "toxicity"
) -> Path:
    main = {"toxicity": "avg_max_toxicity", "sentiment_positive": "pct_positive"}[task]
    rest = {"task": task, "split": "validation", "decoding": "nucleus"}
    rest |= {"n_prompts": 8, "samples": 5, "n_seeds": 1}
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rest, "method", main, "output_ppl"])
        writer.writeheader()
        for method, metric, ppl in tries:
            writer.writerow(rest | {"method": method, main: metric, "output_ppl": ppl})
    return folder / "table.csv"


def chosen(
    folder: Path, tries: list[tuple[str, float | None, float | None]], **how: str
) -> list[str]:
    make_tuning(table(folder, tries, **how), 1.1, folder / "out.csv")
    with (folder / "out.csv").open(newline="") as file:
        return [row["method"] for row in csv.DictReader(file) if row["chosen"] == "1"]


def test_the_least_toxic_within_the_bound_is_chosen(tmp_path: Path) -> None:
    assert chosen(tmp_path, TRIES) == ["gedi.weight.60"]
    text = (tmp_path / "out.md").read_text()
    assert "| **gedi** | **weight = 60** | **0.200 (0.33)** | **22.00 (1.10)** |" in text
    assert "| gedi | weight = 30 | 0.300 (0.50) | 21.00 (1.05) |" in text


def test_better_is_what_the_reward_says(tmp_path: Path) -> None:
    tries = [("base", 40.0, 20.0), ("quark.samples.2", 50.0, 20.0), ("quark.samples.9", 45.0, 20.0)]
    assert chosen(tmp_path, tries, task="sentiment_positive") == ["quark.samples.2"]


def test_it_needs_the_base_model(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no row of the base model, decoding nucleus"):
        chosen(tmp_path, TRIES[1:])
