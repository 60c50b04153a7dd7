"""How long a configuration takes on known GPUs, and which of them are too small for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from quark.tools.planning.costs import Cost
from quark.tools.planning.speed import Machine


@dataclass(frozen=True)
class GPU:
    """A GPU's speed in dense products of bfloat16, in TFLOP/s, and its memory in GB."""

    tflops: float
    memory: float


GPUS = {
    "RTX 3090": GPU(71, 24),
    "RTX 4090": GPU(165, 24),
    "L4": GPU(121, 24),
    "A10": GPU(125, 24),
    "L40S": GPU(362, 48),
    "A100, 40 GB": GPU(312, 40),
    "A100, 80 GB": GPU(312, 80),
    "H100": GPU(989, 80),
    "H200": GPU(989, 141),
}
"""By the vendor's data sheets [recalled]; sums in float32."""
SPARE = 0.8
"""The share of a GPU's memory for weights; the rest is for rows and what the libraries take."""


def on_gpus(costs: Sequence[Cost], utilisation: float) -> Table:
    """Return the time on each GPU, one job after another, and the stages that do not fit.

    Time is for matrix products of language models and for starting jobs; a classifier's scoring is
    not counted. What must fit are weights, gradients and moments; the rows of a batch adapt to what
    is left.

    Args:
        costs: the costs that `plan` returned.
        utilisation: the share of a GPU's speed that is reached.
    """
    shown = Table("GPU", title="One GPU, one job after another, roughly")
    for column in ("memory, GB", "hours", "does not fit"):
        shown.add_column(column, justify="right" if column != "does not fit" else "left")
    for name, gpu in GPUS.items():
        machine = Machine(gpu.tflops * 1000 * utilisation)
        hours = sum(map(machine.seconds, costs)) / 3600
        large = [cost for cost in costs if cost.memory > SPARE * gpu.memory * 1e9]
        stages = {f"{cost.method} {cost.stage}": cost.memory / 1e9 for cost in large}
        named = ", ".join(f"{stage} ({size:.0f} GB)" for stage, size in stages.items())
        shown.add_row(name, f"{gpu.memory:g}", f"{hours:.1f}", named or "-")
    return shown
