"""Estimate the cost of a configuration before anything runs (`quark plan`).

This package imports no torch. It assumes that every continuation has its full length, and that
prompts have 15 tokens unless they are cut. The estimate is coarse; it shows which costs are large.
"""

from quark.tools.planning.costs import Cost, plan
from quark.tools.planning.gpus import on_gpus
from quark.tools.planning.progress import Expected, Progress, forget_progress
from quark.tools.planning.speed import Machine, this_machine
from quark.tools.planning.text import table

__all__ = [
    "Cost",
    "Expected",
    "Machine",
    "Progress",
    "forget_progress",
    "on_gpus",
    "plan",
    "table",
    "this_machine",
]
