"""Draw the task's main metric against fluency."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from quark.reporting.figures.style import FLUENCY, canvas, legend, look, only, title, with_fluency
from quark.reporting.tables.columns import Row


def draw_tradeoff(sources: Sequence[Path], out: Path) -> None:
    """Draw a panel for each split and decoding, with a point and 95 % intervals for each method.

    Args:
        sources: the CSV of `quark.reporting.tables.make_table`.
        out: the SVG; PNG and Parquet are written beside it.

    Raises:
        TableError: the table is missing, empty, or not a task's table.
    """
    drawn, main, metric, every = with_fluency(only(sources))
    columns = ["split", "decoding", "method", "n_prompts"]
    columns += [f"{name}{end}" for name in (main, FLUENCY) for end in ("", "_low", "_high")]
    data = pd.DataFrame(drawn)[columns]
    methods = list(dict.fromkeys(row["method"] for row in drawn))
    with canvas(out, data, 1, len(every), 3.4, 3.0) as axes:
        for axis, place in zip(axes[0], every, strict=True):
            for row in drawn:
                if (row["split"], row["decoding"]) == place:
                    _point(axis, row, main, methods)
            axis.set_title(title(place, every), fontsize=9)
            axis.set_xlabel("output perplexity")
        axes[0, 0].set_ylabel(metric.header)
        legend(axes[0])


def _point(axis: Axes, row: Row, main: str, methods: Sequence[str]) -> None:
    """Draw a method's point, and its intervals in a lighter colour."""
    x, y = row[FLUENCY], row[main]
    how = look(row["method"], methods)
    errors: dict[str, Any] = {
        f"{axis_name}err": [[max(0.0, v - row[f"{name}_low"])], [max(0.0, row[f"{name}_high"] - v)]]
        for axis_name, name, v in (("x", FLUENCY, x), ("y", main, y))
    }
    axis.errorbar(x, y, **errors, fmt="none", ecolor=how["color"], alpha=0.4)
    axis.plot(x, y, linestyle="none", markersize=6, label=row["method"], **how)  # type: ignore[arg-type]
