"""What a configuration will cost, estimated before anything runs (`quark plan`).

It imports no torch. Every continuation has its full length, and prompts have 15 tokens unless
they are cut. The estimate is coarse; it shows what is large.
"""

from quark.tools.planning.costs import Cost, plan
from quark.tools.planning.progress import Expected, Progress, forget_progress
from quark.tools.planning.speed import Machine, this_machine
from quark.tools.planning.text import table

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
