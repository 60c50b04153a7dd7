"""Figures of the measured values: an SVG for papers, a PNG, and the data as Parquet.

This package imports neither torch nor MLflow. Equal data give equal bytes: no dates, no random ids.
A method has the same colour and marker in every figure. Colour-blind readers can distinguish the
colours (Okabe & Ito 2008), and the markers differ without colour.

    tradeoff    main metric against fluency, a point for each method (the paper's figure)
    published   measured and published numbers, each as a ratio to its own base model
    curves      the results of each iteration of Quark
    rewards     distribution of the pool's rewards, by the iteration that sampled them
    sweep       an ablation
    operating   main metric against fluency, a line for each setting that was tried
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from quark.reporting.figures.curves import draw_curves
from quark.reporting.figures.operating import draw_operating
from quark.reporting.figures.published import draw_published
from quark.reporting.figures.rewards import draw_rewards
from quark.reporting.figures.sweep import draw_sweep
from quark.reporting.figures.tradeoff import draw_tradeoff

FIGURES: dict[str, Callable[[Sequence[Path], Path], None]] = {
    "curves": draw_curves,
    "operating": draw_operating,
    "published": draw_published,
    "rewards": draw_rewards,
    "sweep": draw_sweep,
    "tradeoff": draw_tradeoff,
}
"""The function that draws each kind of figure; Snakefile and `quark figure` use these names."""

__all__ = ["FIGURES"]
