"""The page of a task: its tables, figures, samples side by side, settings, versions and costs.

This package imports neither torch nor MLflow. The page is one HTML file that needs no network.
Snakemake's report contains it beside the figures, and it can be sent alone.
"""

from quark.reporting.report.page import Written, make_page

__all__ = ["Written", "make_page"]
