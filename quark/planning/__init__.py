"""What a configuration will cost, estimated before anything runs (`quark plan`).

Layer 4: imports no torch. Every continuation has its full length, and prompts have 15 tokens unless
they are cut. The estimate is coarse; it shows what is large.
"""

from quark.planning.costs import Cost, plan
from quark.planning.progress import Expected, Progress, forget_progress
from quark.planning.speed import Machine, this_machine
from quark.planning.text import table

__all__ = [
    "Cost",
    "Expected",
    "Machine",
    "Progress",
    "forget_progress",
    "plan",
    "table",
    "this_machine",
]
