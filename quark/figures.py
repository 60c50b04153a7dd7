"""Figures, drawn from tables; SVG for papers and PNG beside it.

Layer 4: imports neither torch nor MLflow. Equal tables give equal bytes: no dates, no random ids.
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")  # no display

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from quark import files
from quark.schemas import TableError
from quark.tables.text import read_csv
from quark.tasks import TASKS

WIDTH = 0.8  # of a group of bars
UNDATED = {"svg": {"Date": None}, "png": {"Software": None}}


def draw_sweep(table: Path, out: Path) -> None:
    """Draw the task's main metric and fluency for each row of an ablation's table.

    One panel for each of the two, one group of bars for each method, one bar for each split, with
    the 95 % interval over prompts.

    Args:
        table: CSV of `quark.tables.make_table`.
        out: the SVG; a PNG appears beside it.

    Raises:
        TableError: the table is missing, empty, or of no task.
    """
    rows = read_csv(table)
    if rows[0].get("task") not in TASKS:
        raise TableError(f"{table}: holds no rows of a task")
    main, metric = next(iter(TASKS[rows[0]["task"]].metrics.items()))
    places = list(dict.fromkeys((row["split"], row["decoding"]) for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with plt.rc_context({"svg.hashsalt": "quark", "font.size": 9, "svg.fonttype": "none"}):
        figure, axes = plt.subplots(2, 1, figsize=(1.6 + 0.9 * len(methods), 4.6), sharex=True)
        for axis, name, label in zip(
            axes, (main, "output_ppl"), (metric.header, "output ppl"), strict=True
        ):
            for i, place in enumerate(places):
                shown = [row for row in rows if (row["split"], row["decoding"]) == place]
                _bars(axis, [row for row in shown if row[name]], name, methods, i, len(places))
            axis.set_ylabel(label)
            axis.spines[["top", "right"]].set_visible(False)
        labels = [method.split(".", 2)[-1] for method in methods]
        axes[1].set_xticks(range(len(methods)), labels, rotation=30, ha="right")
        if len(places) > 1:
            keys = [Patch(color=f"C{i}", label=", ".join(p)) for i, p in enumerate(places)]
            axes[0].legend(handles=keys, frameon=False, fontsize=8)
        figure.tight_layout()
        for file in (out.with_suffix(".png"), out):  # the SVG last, as it is asked for
            kind = file.suffix[1:]
            with files.whole(file) as made:
                figure.savefig(made, format=kind, metadata=UNDATED[kind], dpi=150)
        plt.close(figure)


def _bars(
    axis: Axes, rows: list[dict[str, str]], name: str, methods: list[str], i: int, n: int
) -> None:
    """One bar for each row, the i-th of n in its method's group."""
    for row in rows:
        value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
        axis.bar(
            methods.index(row["method"]) + WIDTH * ((i + 0.5) / n - 0.5),
            value,
            WIDTH / n,
            yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            color=f"C{i}",
            error_kw={"elinewidth": 1},
        )
