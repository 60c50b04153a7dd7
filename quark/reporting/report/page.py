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
from quark.reporting.tables.words import in_words
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
    it has no score. The page's content security policy allows its own style and script alone and
    loads nothing, whatever a text contains. Control characters and marks of direction are shown as
    U+FFFD.

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
        finalize=lambda value: printable(value) if type(value) is str else value,  # no Markup
    )
    style, script = (found.get_template(name).render() for name in ("style.css", "script.js"))
    rows, numbers = _rows(config, task, written), read_table(table)
    text = found.get_template("page.html").render(
        style_sum=_sum(style),
        script_sum=_sum(script),
        task=task.replace("_", ", "),
        words=in_words(numbers, TASKS[task]),
        tables=rounded(numbers, TASKS[task]),
        figures=[
            {
                "title": _title(file),
                "caption": caption.read_text(),
                "data": base64.b64encode(file.read_bytes()).decode(),
            }
            for file, caption in zip(figures, captions, strict=True)
        ],
        methods=[each.method for each in written],
        samples=_samples(rows),
        generations=[row for of_method in rows for row in of_method],
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


def _sum(text: str) -> str:
    """Return the SHA-256 of a style or script, as a content security policy has it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _rows(config: Config, task: TaskName, written: Sequence[Written]) -> list[list[dict[str, Any]]]:
    """Return each method's continuations of the first prompts, with their scores."""
    threshold = for_task(config, task).evaluation.threshold
    found, prompts = [], []
    for each in written:
        columns = ["row_id", "prompt_id", "sample", "prompt", "response"]
        rows = schemas.read_scored(each.generations, each.scores, columns).to_pandas()
        first = rows["prompt_id"].unique()[:PROMPTS]
        prompts.append(list(first))
        if prompts[-1] != prompts[0]:
            raise schemas.TableError(
                f"{each.generations}: other prompts than {written[0].generations}"
            )
        rows = rows[rows["prompt_id"].isin(first)]
        found.append(
            [
                {
                    "method": each.method,
                    "prompt": prompt,
                    "sample": sample,
                    "text": text.strip(),
                    "value": "" if pd.isna(score) else f"{score:.4f}",
                    "score": "no score" if pd.isna(score) else f"{score:.2f}",
                    "hidden": task in HIDES and not score <= threshold,
                }
                for prompt, sample, text, score in zip(
                    *(rows[name] for name in ("prompt", "sample", "response", "score")), strict=True
                )
            ]
        )
    return found


def _samples(rows: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the first continuation of each prompt, of all methods side by side."""
    first = [[row for row in of_method if row["sample"] == 0] for of_method in rows]
    return [{"prompt": each[0]["prompt"], "texts": each} for each in zip(*first, strict=True)]


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
