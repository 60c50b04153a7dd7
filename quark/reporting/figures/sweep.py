"""Draw an ablation: the task's main metric and fluency of each variant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from quark.reporting.figures.style import canvas, only, places, rows_of, shade, title
from quark.reporting.tables.columns import Row

WIDTH = 0.8  # width of a group of bars
COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#D55E00")


def draw_sweep(sources: Sequence[Path], out: Path) -> None:
    """Draw the task's main metric and fluency for each row of an ablation's table.

    Each of the two has a panel. A panel has a group of bars for each method. A group has a bar for
    each split, with the 95 % interval over prompts.

    Args:
        sources: the CSV of `quark.reporting.tables.make_table`.
        out: the SVG; PNG and Parquet are written beside it.

    Raises:
        TableError: the table is missing, empty, or not a task's table.
    """
    rows, main, metric = rows_of(only(sources))
    every = places(rows)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    shown = {main: metric.header, "output_ppl": "output ppl"}
    columns = ["split", "decoding", "method"]
    columns += [f"{name}{end}" for name in shown for end in ("", "_low", "_high")]
    data = pd.DataFrame(rows)[columns]
    with canvas(out, data, len(shown), 1, 1.6 + 0.9 * len(methods), 2.3) as axes:
        for axis, (name, label) in zip(axes[:, 0], shown.items(), strict=True):
            for i, place in enumerate(every):
                own = [row for row in rows if (row["split"], row["decoding"]) == place]
                known = [row for row in own if row[name] is not None]
                _bars(axis, known, name, methods, i, len(every))
            axis.set_ylabel(label)
            axis.set_xticks([])
        labels = [method.split(".", 2)[-1] for method in methods]
        axes[-1, 0].set_xticks(range(len(methods)), labels, rotation=30, ha="right")
        if len(every) > 1:
            keys = [
                Patch(color=_colour(i, len(every)), label=title(p, every))
                for i, p in enumerate(every)
            ]
            above = (0.0, 1.0)
            axes[0, 0].legend(handles=keys, loc="lower left", bbox_to_anchor=above, ncols=len(keys))


def _bars(
    axis: Axes, rows: Sequence[Row], name: str, methods: Sequence[str], i: int, n: int
) -> None:
    """Draw one bar for each row: number i of n in its method's group."""
    for row in rows:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        axis.bar(
            methods.index(row["method"]) + WIDTH * ((i + 0.5) / n - 0.5),
            value,
            WIDTH / n,
            yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            color=_colour(i, n),
            error_kw={"elinewidth": 1},
        )


def _colour(place: int, count: int) -> Any:
    """Return the colour of bar `place` of `count` in a group; a shade if COLOURS are too few."""
    return COLOURS[place] if count <= len(COLOURS) else shade(place, count)
