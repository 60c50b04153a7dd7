"""Every number of a table in README or docs that names its CSV file is in this file."""

import re
from pathlib import Path

import pandas as pd
import pictures
import pytest

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"<!-- (docs/results/\S+\.csv) -->\n((?:\|.*\n)+)")
COLUMNS = {
    "avg. max. toxicity": "avg_max_toxicity",
    "toxicity prob.": "toxicity_prob",
    "second scorer: avg. max.": "avg_max_toxicity_second",
    "% positive": "pct_positive",
    "continuation alone: % positive": "pct_positive_second",
    "output ppl": "output_ppl",
    "median ppl": "output_ppl_median",
    "dist-2": "dist2",
}
NUMBER = r"(-?\d*\.?\d+)"
CELL = re.compile(rf"{NUMBER}(?: \[{NUMBER}, {NUMBER}\])?(?: \({NUMBER}\))?")
TABLES = [
    (page.relative_to(ROOT).as_posix(), *found.groups())
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for found in MARK.finditer(page.read_text())
]


def test_the_pictures_show_the_committed_tables(tmp_path: Path) -> None:
    """An SVG of equal bytes: its dates and ids are fixed."""
    pictures.draw(tmp_path)
    for file in tmp_path.iterdir():
        known = ROOT / "docs/pictures" / file.name
        assert file.read_text() == known.read_text(), "make pictures draws them anew"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|\n").split("|")]


def near(told: str, value: float) -> bool:
    """Whether a number is told as it rounds to so many digits."""
    digits = len(told.partition(".")[2])
    return abs(float(told) - value) <= 0.5 * 10**-digits + 1e-9


def test_the_headline_names_its_source() -> None:
    assert any(page == "README.md" for page, *_ in TABLES)


@pytest.mark.parametrize(("page", "source", "text"), TABLES)
def test_a_table_tells_what_its_file_holds(page: str, source: str, text: str) -> None:
    """Values, intervals in square brackets, and in round ones the ratio to the base model."""
    rows = pd.read_csv(ROOT / source).set_index(["split", "method"])
    header, _, *lines = text.splitlines()
    names = cells(header)[2:]
    for line in lines:
        split, told, *values = cells(line)
        row, base = rows.loc[(split, told.split()[0])], rows.loc[(split, "base")]
        if "c = " in told:
            assert float(re.findall(r"c = (\d+\.?\d*)", told)[0]) == row["place"]
        if "prompts)" in told:
            assert int(re.findall(r"(\d+) prompts", told)[0]) == row["n_prompts"]
        for name, value in zip(names, values, strict=True):
            column, found = COLUMNS[name], CELL.fullmatch(value)
            assert found, f"{page}: {value}"
            mean, low, high, ratio = found.groups()
            wanted = [(mean, row[column])]
            if low is not None:
                wanted += [(low, row[f"{column}_low"]), (high, row[f"{column}_high"])]
            if ratio is not None:
                wanted += [(ratio, row[column] / base[column])]
            for number, exact in wanted:
                assert near(number, exact), f"{page}: {split} {told}: {name} {number}, not {exact}"
