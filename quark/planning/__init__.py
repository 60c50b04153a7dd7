"""What a configuration will cost, estimated before anything runs (`quark plan`).

Layer 4: imports no torch. Every continuation has its full length, prompts have 15 tokens unless
they are cut, and a classifier that scores is left out. The estimate is coarse; it shows what is
large.
"""

from quark.planning.costs import Cost, plan
from quark.planning.text import table

__all__ = ["Cost", "plan", "table"]
