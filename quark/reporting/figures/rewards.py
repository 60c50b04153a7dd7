"""Draw the distribution of a pool's rewards, by the iteration that sampled them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from quark.core import schemas
from quark.reporting.figures.style import canvas, legend, only, shade

LEVELS = np.linspace(0, 1, 101)
SHOWN = 6
"""Largest number of iterations that have their own line."""


def draw_rewards(sources: Sequence[Path], out: Path) -> None:
    """Draw the share of samples up to each reward, with a line for each iteration.

    With more than `SHOWN` iterations, evenly spaced ones are drawn, with the first and the last.

    Args:
        sources: the last iteration's pool.
        out: the SVG; PNG and Parquet are written beside it.

    Raises:
        TableError: the pool is missing or broken.
    """
    pool = schemas.read(only(sources), schemas.POOL, ["iteration", "reward"]).to_pandas()
    iterations = sorted(set(pool["iteration"]))
    spread = [
        pd.DataFrame(
            {
                "iteration": iteration,
                "share": LEVELS,
                "reward": pool.loc[pool["iteration"] == iteration, "reward"].quantile(LEVELS),
            }
        )
        for iteration in iterations
    ]
    chosen = np.unique(np.linspace(0, len(iterations) - 1, SHOWN).round().astype(int))
    with canvas(out, pd.concat(spread), 1, 1, 4.2, 3.0) as axes:
        axis = axes[0, 0]
        for place in chosen:
            line = spread[place]
            colour = shade(int(place), len(iterations))
            label = f"iteration {iterations[place]}"
            axis.plot(line["reward"], line["share"], color=colour, label=label)
        axis.set_xlabel("reward")
        axis.set_ylabel("share of samples up to it")
        axis.set_xlim(-0.02, 1.02)
        legend([axis])
