"""Figures of what was measured: an SVG for papers, beside it a PNG and the data as Parquet.

It imports neither torch nor MLflow. Equal data give equal bytes: no dates, no random ids. A
method has the same colour and marker everywhere; the colours are told apart by the colour-blind
(Okabe & Ito 2008), the markers without any colour.

    tradeoff    what is unlearned against fluency, a point for each method (the paper's figure)
    published   measured and published numbers, each as a ratio to its own base model
    curves      what each iteration of Quark did
    rewards     how the rewards of the pool are spread, by the iteration that sampled them
    sweep       an ablation
    operating   what is unlearned against fluency, a line for each setting that was tried
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
"""What draws each kind, from files to the SVG; Snakefile and `quark figure` know them by name."""

__all__ = ["FIGURES"]
