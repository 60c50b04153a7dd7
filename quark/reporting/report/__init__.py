"""The page of a task: its tables, figures, samples side by side, settings, versions and costs.

It imports neither torch nor MLflow. One HTML file that needs no network; Snakemake's report
holds it beside the figures, and it can be sent to someone by itself.
"""

from quark.reporting.report.page import Written, make_page

__all__ = ["Written", "make_page"]
