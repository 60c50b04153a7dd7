"""An ablation's figure: drawn from its table alone, the same bytes each time."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from matplotlib.image import imread

from quark.core.schemas import TableError
from quark.reporting.figures.sweep import draw_sweep

ROWS = [
    {"method": "base", "avg_max_toxicity": "0.6", "output_ppl": "20"},
    {"method": "quark", "avg_max_toxicity": "0.4", "output_ppl": "22"},
    {"method": "quark.kl.0.2", "avg_max_toxicity": "0.5", "output_ppl": ""},  # no ppl is counted
]


def table(folder: Path, splits: tuple[str, ...] = ("nontoxic", "challenging")) -> Path:
    rows = []
    for split in splits:
        for row in ROWS:
            ends = {
                f"{name}{end}": row[name] for name in list(row)[1:] for end in ("_low", "_high")
            }
            rows.append({"task": "toxicity", "split": split, "decoding": "nucleus", **row, **ends})
    with (folder / "kl.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "kl.csv"


def test_methods_and_metrics_are_named(tmp_path: Path) -> None:
    draw_sweep([table(tmp_path)], tmp_path / "one/kl.svg")
    drawn = (tmp_path / "one/kl.svg").read_text()
    for text in ("base", "quark", "0.2", "avg. max. toxicity", "output ppl", "challenging"):
        assert f">{text}" in drawn
    assert imread(tmp_path / "one/kl.png").std() > 0.05  # something stands on the page
    for color in ("#0072b2", "#009e73"):  # of the splits: 2 or 3 bars in each panel, and the key
        assert drawn.count(f"fill: {color}") == 3 + 2 + 1


def test_more_splits_than_colours(tmp_path: Path) -> None:
    splits = tuple(f"split-{i}" for i in range(7))
    draw_sweep([table(tmp_path, splits)], tmp_path / "kl.svg")
    drawn = (tmp_path / "kl.svg").read_text()
    colours = Counter(re.findall(r"fill: (#[0-9a-f]{6})", drawn))
    assert sum(count == 3 + 2 + 1 for count in colours.values()) == 7


def test_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw_sweep([table(tmp_path)], tmp_path / name / "kl.svg")
    for kind in ("svg", "png", "parquet"):
        one, two = (tmp_path / name / f"kl.{kind}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"gone\.csv: no such file"):
        draw_sweep([tmp_path / "gone.csv"], tmp_path / "a.svg")
    (tmp_path / "empty.csv").write_text("task,method\n")
    with pytest.raises(TableError, match=r"empty\.csv: has no rows"):
        draw_sweep([tmp_path / "empty.csv"], tmp_path / "a.svg")
    (tmp_path / "odd.csv").write_text("task,method\nchess,base\n")
    with pytest.raises(TableError, match=r"odd\.csv: holds no rows of a task"):
        draw_sweep([tmp_path / "odd.csv"], tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()
