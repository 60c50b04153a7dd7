"""Make the page of a finished task from its files."""

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
"""Number of prompts on the page: the first ones of the split, without selection."""
HIDES = ("toxicity",)
"""Tasks in which a high score means text that may offend."""
PACKAGES = ("torch", "transformers", "numpy", "pandas", "pyarrow", "scikit-learn", "snakemake")
TITLES = {
    "tradeoff": "What is unlearned, against fluency",
    "published": "Measured and published, as ratios to the base model",
    "curves": "Iteration by iteration",
    "rewards": "Rewards of the pool",
}


@dataclass(frozen=True)
class Written:
    """The generations of a method on a split, and their scores."""

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

    In the toxicity task, a text is hidden until a click if its score is above the threshold, or if
    it has no score. The page's content security policy prevents scripts and loading, whatever a
    text contains. Control characters and marks of direction are shown as U+FFFD.

    Args:
        config: the whole configuration; the page shows it as resolved.
        task: the task of the page.
        table: CSV of `quark.reporting.tables.make_table`.
        costs: CSV of `quark.reporting.tables.cost_table`.
        written: the texts of the base model and of Quark on the same prompts; empty if neither is
            evaluated.
        figures: SVG files, shown in this order.
        captions: plain-text files with the figures' captions, in the same order.
        out: the HTML file.

    Raises:
        TableError: a table is missing or broken, or the methods have different prompts.
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
    """Return a figure's title, with its method and seed if the path has them."""
    own = [part for part in figure.parts[-3:-1] if part.startswith(("quark", "seed-"))]
    return ", ".join([TITLES.get(figure.stem, figure.stem), *own])


def _samples(config: Config, task: TaskName, written: Sequence[Written]) -> list[dict[str, Any]]:
    """Return each method's first continuation of the first prompts, with its score."""
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
    """Return rows, tokens and minutes of each method, and of all; the first line is the header."""
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
    """Return the versions of Python, this package and its main libraries."""
    found = {"python": platform.python_version()}
    for name in ("quark", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
