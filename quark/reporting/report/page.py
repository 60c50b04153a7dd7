"""From the files of a finished task to its page."""

import base64
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from quark.config import Config, TaskName, for_task
from quark.core import files, schemas
from quark.reporting.tables.text import printable, read_csv, read_table, rounded
from quark.tasks import TASKS

PROMPTS = 12
"""So many prompts are shown, the first ones of the split: nothing is picked."""
HIDES = ("toxicity",)
"""Tasks whose high scores mean text that may offend."""
PACKAGES = ("torch", "transformers", "numpy", "pandas", "pyarrow", "scikit-learn", "snakemake")
TITLES = {
    "tradeoff": "What is unlearned, against fluency",
    "published": "Measured and published, as ratios to the base model",
    "curves": "Iteration by iteration",
    "rewards": "Rewards of the pool",
}


@dataclass(frozen=True)
class Written:
    """What a method wrote on a split: its generations and their scores."""

    method: str
    generations: Path
    scores: Path


def make_page(
    config: Config,
    task: TaskName,
    *,
    table: Path,
    costs: Path,
    written: Sequence[Written],
    figures: Sequence[Path],
    captions: Sequence[Path],
    out: Path,
) -> None:
    """Write the page.

    In the toxicity task, text whose score is above its threshold, and text without a score, waits
    behind a click. The page's policy lets it run no script and load nothing, whatever a text holds;
    control characters and marks of direction are shown as U+FFFD.

    Args:
        config: the whole configuration; shown as it was resolved.
        task: whose page it is.
        table: CSV of `quark.reporting.tables.make_table`.
        costs: CSV of `quark.reporting.tables.cost_table`.
        written: of the base model and of Quark, on the same prompts; none if neither is evaluated.
        figures: SVG files, shown in this order.
        captions: plain text of what each of them shows.
        out: the HTML file.

    Raises:
        TableError: a table is missing or broken, or the methods wrote on different prompts.
    """
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("quark.reporting.report"),
        autoescape=True,
        trim_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) else value,
    )
    style = found.get_template("style.css").render()
    text = found.get_template("page.html").render(
        style=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        task=task.replace("_", ", "),
        tables=rounded(read_table(table), TASKS[task]),
        figures=[
            {
                "title": _title(file),
                "caption": caption.read_text(),
                "data": base64.b64encode(file.read_bytes()).decode(),
            }
            for file, caption in zip(figures, captions, strict=True)
        ],
        methods=[each.method for each in written],
        samples=_samples(config, task, written),
        hides=task in HIDES,
        shown=PROMPTS,
        costs=_costs(costs),
        config=json.dumps(config.model_dump(mode="json"), indent=2),
        versions=_versions(),
    )
    files.write_text(out, text)


def _title(figure: Path) -> str:
    """What a figure shows, and of which method and seed if there are several."""
    own = [part for part in figure.parts[-3:-1] if part.startswith(("quark", "seed-"))]
    return ", ".join([TITLES.get(figure.stem, figure.stem), *own])


def _samples(config: Config, task: TaskName, written: Sequence[Written]) -> list[dict[str, Any]]:
    """The first continuation of the first prompts by each method, with its score."""
    if not written:
        return []
    tables = []
    for each in written:
        columns = ["row_id", "prompt_id", "sample", "prompt", "response"]
        rows = schemas.read_scored(each.generations, each.scores, columns).to_pandas()
        tables.append(rows[rows["sample"] == 0].head(PROMPTS).reset_index(drop=True))
    for each, rows in zip(written, tables, strict=True):
        if list(rows["prompt_id"]) != list(tables[0]["prompt_id"]):
            raise schemas.TableError(
                f"{each.generations}: other prompts than {written[0].generations}"
            )
    threshold = for_task(config, task).evaluation.threshold
    return [
        {
            "prompt": tables[0]["prompt"][i],
            "texts": [
                {
                    "text": rows["response"][i].strip(),
                    "score": "no score" if pd.isna(rows["score"][i]) else f"{rows['score'][i]:.2f}",
                    "hidden": task in HIDES and not rows["score"][i] <= threshold,
                }
                for rows in tables
            ],
        }
        for i in range(len(tables[0]))
    ]


def _costs(file: Path) -> list[list[str]]:
    """Rows, tokens and minutes of each method, and of all; the first line is the header."""
    rows = pd.DataFrame(read_csv(file)).replace("", None)
    rows = rows.astype({"rows": float, "tokens": float, "seconds": float})
    rows["of"] = rows["task"].where(rows["method"].isna(), rows["method"])
    sums = rows.groupby("of", sort=False)[["rows", "tokens", "seconds"]].sum()
    lines = [
        [str(name), f"{count:,.0f}", f"{tokens:,.0f}", f"{seconds / 60:.1f}"]
        for name, (count, tokens, seconds) in zip(sums.index, sums.to_numpy().tolist(), strict=True)
    ]
    return [["method", "rows", "tokens", "minutes"], *lines]


def _versions() -> dict[str, str]:
    """Of Python, this package, and what it computes with."""
    found = {"python": platform.python_version()}
    for name in ("quark", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
