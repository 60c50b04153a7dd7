"""Operating curves: the main metric against fluency as one setting of a method varies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from quark.reporting.figures.style import FLUENCY, canvas, legend, look, only, title, with_fluency
from quark.reporting.tables.columns import Row, parts


def draw_operating(sources: Sequence[Path], out: Path) -> None:
    """Draw a panel for each decoding, with a line for each setting that was tried.

    A line connects the tries in their order. Each try is a point with its value beside it; the base
    model is a separate point.

    Args:
        sources: the CSV of `quark.reporting.tables.make_table`, whose variants are named
            METHOD.KEY.VALUE.
        out: the SVG; PNG and Parquet are written beside it.

    Raises:
        TableError: the table is missing, empty, or not a task's table.
    """
    drawn, main, metric, every = with_fluency(only(sources))
    for row in drawn:
        row["tuned"], row["key"], row["value"] = parts(row["method"])
    columns = ["split", "decoding", "method", "tuned", "key", "value", main, FLUENCY]
    methods = list(dict.fromkeys(row["tuned"] for row in drawn))
    with canvas(out, pd.DataFrame(drawn)[columns], 1, len(every), 4.2, 3.2) as axes:
        for axis, place in zip(axes[0], every, strict=True):
            for method, key in dict.fromkeys((row["tuned"], row["key"]) for row in drawn):
                tries = [
                    row
                    for row in drawn
                    if (row["split"], row["decoding"]) == place
                    and (row["tuned"], row["key"]) == (method, key)
                ]
                if tries:
                    _line(axis, tries, main, look(method, methods))
            axis.set_title(title(place, every), fontsize=9)
            axis.set_xlabel("output perplexity")
        axes[0, 0].set_ylabel(metric.header)
        legend(axes[0])


def _line(axis: Axes, tries: Sequence[Row], main: str, how: Mapping[str, Any]) -> None:
    """Draw the tries of one setting, each with its value beside it."""
    name = ": ".join(filter(None, (tries[0]["tuned"], tries[0]["key"])))
    at = [[row[FLUENCY] for row in tries], [row[main] for row in tries]]
    axis.plot(*at, label=name, markersize=5, **how)
    for row in tries:
        if row["value"] is not None:
            axis.annotate(
                row["value"],
                (row[FLUENCY], row[main]),
                (4, 3),
                textcoords="offset points",
                fontsize=6,
            )
