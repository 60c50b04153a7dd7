"""The table of a task, measured beside published numbers, and the table of what it cost.

It imports neither torch nor MLflow. Measured and published numbers stand in columns of their
own; a published one comes with how far it can be trusted. `toxicity.csv` holds no times, so a run
that was interrupted ends with the same bytes as one that was not; `toxicity_cost.csv` holds them.
"""

from quark.reporting.tables.costs import cost_table
from quark.reporting.tables.make import gather, make_table
from quark.reporting.tables.text import shown_table
from quark.reporting.tables.tuning import make_tuning

__all__ = ["cost_table", "gather", "make_table", "make_tuning", "shown_table"]
