"""The table of a task, with measured and published numbers, and the table of its costs.

This package imports neither torch nor MLflow. Measured and published numbers have separate columns;
each published number has a confidence. `toxicity.csv` holds no times, so an interrupted run ends
with the same bytes as an uninterrupted run. `toxicity_cost.csv` holds the times.
"""

from quark.reporting.tables.archive import pack
from quark.reporting.tables.costs import cost_table
from quark.reporting.tables.make import gather, make_table
from quark.reporting.tables.text import shown_table
from quark.reporting.tables.tuning import make_tuning

__all__ = ["cost_table", "gather", "make_table", "make_tuning", "pack", "shown_table"]
