"""Compare measured and published numbers, each as a ratio to its own base model's number."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from quark.core.schemas import TableError
from quark.reporting.figures.style import canvas, legend, look, only, places, rows_of, title
from quark.reporting.tables.text import shown
from quark.tasks import TASKS

COLUMNS = 4
"""Largest number of panels in a row."""


def draw_published(sources: Sequence[Path], out: Path) -> None:
    """Draw a panel for each metric that the paper gives, with a point for each method and split.

    A point's size shows its split. Models, prompts and scorers differ, so numbers are compared as
    ratios to the base model of the same table. On the dashed line, a method changes the metric by
    the same ratio here and in the paper. Published numbers that are recalled, not read, are drawn
    too; the table says which they are. If a base model has 0, as the published one on negative
    prompts, there is no ratio and no point.

    Args:
        sources: the CSV of `quark.reporting.tables.make_table`.
        out: the SVG; PNG and Parquet are written beside it.

    Raises:
        TableError: the table is missing, empty or not a task's table, or no row has a published
            counterpart.
    """
    rows, _, _ = rows_of(only(sources))
    headers = {name: header for name, (header, _) in shown(TASKS[rows[0]["task"]]).items()}
    base = {(row["split"], row["decoding"]): row for row in rows if row["method"] == "base"}
    found = []
    for row in rows:
        start = base.get((row["split"], row["decoding"]))
        if start is None or row["method"] == "base" or not row["published_method"]:
            continue
        for name in headers:
            values: list[Any] = [
                each.get(key) for each in (row, start) for key in (name, f"published_{name}")
            ]
            if any(value is None for value in values):
                continue
            ours, theirs, our_base, their_base = map(float, values)
            if not our_base or not their_base:
                continue  # there is no ratio to 0
            found.append(
                {
                    "split": row["split"],
                    "decoding": row["decoding"],
                    "method": row["method"],
                    "metric": name,
                    "measured": ours / our_base,
                    "published": theirs / their_base,
                }
            )
    if not found:
        raise TableError(f"{sources[0]}: no row beside the base model's has a published number")
    data = pd.DataFrame(found)
    metrics = list(dict.fromkeys(data["metric"]))
    methods = list(dict.fromkeys(data["method"]))
    every = places(found)
    sizes = dict(zip(every, np.linspace(8, 4, len(every)), strict=True))
    columns = min(len(metrics), COLUMNS)
    lines = math.ceil(len(metrics) / columns)
    with canvas(out, data, lines, columns, 3.0, 2.8) as axes:
        panels: list[Any] = list(axes.flat)
        for axis in panels[len(metrics) :]:
            axis.set_axis_off()
        for axis, name in zip(panels, metrics, strict=False):
            part = data[data["metric"] == name]
            for row in part.itertuples():
                axis.plot(
                    row.published,
                    row.measured,
                    linestyle="none",
                    markersize=sizes[row.split, row.decoding],
                    label=row.method,
                    **look(row.method, methods),
                )
            axis.margins(0.15)
            axis.axline((1, 1), slope=1, linestyle="--", color="0.6", linewidth=0.8)
            axis.set_title(headers[name], fontsize=9)
            axis.set_xlabel("published / its base model")
        for axis in axes[:, 0]:
            axis.set_ylabel("measured / its base model")
        for place in every if len(every) > 1 else ():
            axes[0, -1].plot(
                [], [], "o", color="0.6", markersize=sizes[place], label=title(place, every)
            )
        legend(axes[0])
