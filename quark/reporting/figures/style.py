"""The common parts of all figures: their style, and how they are written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")  # no display

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from quark.config.registry import METHODS
from quark.core import files
from quark.core.schemas import TableError
from quark.reporting.tables.columns import Row
from quark.reporting.tables.text import read_table
from quark.tasks import TASKS, Metric

LOOKS = {name: method.look for name, method in METHODS.items() if method.look}
"""Colour (most of Okabe and Ito 2008) and marker of each method that defines them."""
FLUENCY = "output_ppl"
STYLE: Any = {
    "svg.hashsalt": "quark",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
UNDATED = {"svg": {"Date": None}, "png": {"Software": None}}


def look(method: str, among: Sequence[str]) -> dict[str, str]:
    """Return a method's colour and marker; variants and methods without a look get a hollow one."""
    if method in LOOKS:
        color, marker = LOOKS[method]
        return {"color": color, "marker": marker}
    others = [name for name in dict.fromkeys(among) if name not in LOOKS]
    color, marker = list(LOOKS.values())[(1 + others.index(method)) % len(LOOKS)]
    return {"color": color, "marker": marker, "markerfacecolor": "none"}


def shade(place: int, count: int) -> Any:
    """Return the colour of number `place` of `count` ordered things, dark to light."""
    return plt.get_cmap("viridis")(0.85 * place / max(1, count - 1))


@contextmanager
def canvas(
    out: Path, data: pd.DataFrame, rows: int, columns: int, width: float, height: float
) -> Iterator[np.ndarray[Any, np.dtype[np.object_]]]:
    """Yield (rows, columns) axes; write them with their data if the block ends without an error.

    Args:
        out: the SVG; PNG and Parquet are written beside it, and before it.
        data: the data that are drawn.
        rows, columns: the numbers of panels.
        width, height: the size of a panel, in inches.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), squeeze=False
        )
        try:
            yield axes
            figure.tight_layout()
            with files.whole(out.with_suffix(".parquet")) as made:
                data.to_parquet(made, index=False)
            _write(figure, out)
        finally:
            plt.close(figure)


def _write(figure: Figure, out: Path) -> None:
    for file in (out.with_suffix(".png"), out):  # the SVG last: it is the requested file
        kind = file.suffix[1:]
        with files.whole(file) as made:
            figure.savefig(made, format=kind, metadata=UNDATED[kind], dpi=150, bbox_inches="tight")


def only(sources: Sequence[Path]) -> Path:
    """Return the one file from which a figure is drawn.

    Raises:
        TableError: there is not exactly one file.
    """
    if len(sources) != 1:
        raise TableError(f"this figure is drawn from one table, not from {len(sources)}")
    return Path(sources[0])


def rows_of(table: Path) -> tuple[list[Row], str, Metric]:
    """Return the rows of a task's table, and name and definition of its main metric.

    Raises:
        TableError: the table is missing, empty, or not a task's table.
    """
    rows = read_table(table)
    if rows[0].get("task") not in TASKS:
        raise TableError(f"{table}: holds no rows of a task")
    main, metric = next(iter(TASKS[rows[0]["task"]].metrics.items()))
    return rows, main, metric


def with_fluency(table: Path) -> tuple[list[Row], str, Metric, list[tuple[str, str]]]:
    """As `rows_of`, but only rows with main metric and perplexity; also return their places.

    Raises:
        TableError: the table is missing, empty, or not a task's table.
    """
    rows, main, metric = rows_of(table)
    drawn = [row for row in rows if row[main] is not None and row[FLUENCY] is not None]
    return drawn, main, metric, places(drawn)


def places(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return split and decoding of the rows, each pair once, in their order."""
    return list(dict.fromkeys((row["split"], row["decoding"]) for row in rows))


def title(place: tuple[str, str], every: Sequence[tuple[str, str]]) -> str:
    """Return a panel's title; it names the decoding if there are several decodings."""
    several = len({decoding for _, decoding in every}) > 1
    return ", ".join(place) if several else place[0]


def legend(axes: Sequence[Axes]) -> None:
    """Draw one legend for all panels to the right of the last panel, without duplicates."""
    found: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    axes[-1].legend(found.values(), found.keys(), loc="center left", bbox_to_anchor=(1.0, 0.5))
