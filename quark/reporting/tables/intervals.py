"""The intervals in a table: of a metric, and of its difference between two methods.

Two methods are compared prompt by prompt, so the interval of their difference is often narrower
than the interval of each.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from quark.core.seeds import stream
from quark.metrics.bootstrap import Values, interval, wilson
from quark.reporting.tables.text import COMMON
from quark.tasks import Metric, Task

OF_ALL_TASKS = {
    "output_ppl": Metric(("ppl_sum", "ppl_count"), *COMMON["output_ppl"], "", np.divide),
    "dist2": Metric(("dist2",), *COMMON["dist2"], ""),
}
"""The metrics with an interval in every task's table, besides the task's own metrics."""


def metrics(task: Task) -> dict[str, Metric]:
    """Return the metrics that have an interval in a task's table."""
    return {**task.metrics, **OF_ALL_TASKS}


def metric_interval(
    metric: Metric, seeds: Sequence[pd.DataFrame], resamples: int, *draw: str
) -> tuple[float, float]:
    """Return the 95 % interval of a metric: Wilson's for a share of prompts, else the bootstrap's.

    Args:
        metric: the metric, computed from columns' means; it has a value.
        seeds: a table of the same prompts for each seed.
        resamples: the number of resamples of prompts and seeds.
        draw: the name of the random draw; the same for all methods that are compared.
    """
    columns = _columns(_stack(metric, seeds, seeds[0].index))
    if metric.share:
        of_prompts = np.nanmean(columns[0], axis=0)
        return wilson(float(of_prompts.mean()), len(of_prompts))
    return interval(columns, metric.value, resamples, stream("bootstrap", *draw))


def paired_difference(
    metric: Metric,
    ours: Sequence[pd.DataFrame],
    theirs: Sequence[pd.DataFrame],
    resamples: int,
    *draw: str,
) -> tuple[float, float, float, float] | None:
    """Return a metric of two methods, and the ends of the 95 % interval of their difference.

    Args:
        metric: the metric, computed from columns' means.
        ours, theirs: the methods' tables, one for each seed, with the same seeds in the same order.
            The difference is ours minus theirs. A prompt that only one method has is left out.
        resamples: the number of resamples of prompts and seeds, the same for both methods.
        draw: the name of the random draw.

    Returns:
        None if a method has no value.
    """
    shared = ours[0].index.intersection(theirs[0].index)
    n = len(metric.columns)

    def minus(*means: Values) -> Values:
        return np.asarray(metric.value(*means[:n]) - metric.value(*means[n:]))

    both = [_stack(metric, seeds, shared) for seeds in (ours, theirs)]
    columns = _columns(np.concatenate(both, axis=2))
    if not columns[0].size:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [np.nanmean(column, axis=0).mean() for column in columns]
        one, other = float(metric.value(*means[:n])), float(metric.value(*means[n:]))
    if np.isnan(one - other):
        return None
    return one, other, *interval(columns, minus, resamples, stream("bootstrap", *draw))


def _stack(metric: Metric, seeds: Sequence[pd.DataFrame], prompts: pd.Index) -> Values:
    """Return the metric's columns as an array (seeds, prompts, columns)."""
    return np.stack([f.loc[prompts, list(metric.columns)].to_numpy(float) for f in seeds])


def _columns(stack: Values) -> list[Values]:
    """Return columns (seeds, prompts) of prompts with a value for some seed; NaN: no value."""
    stack = np.where(np.isnan(stack).any(axis=2, keepdims=True), np.nan, stack)
    known = ~np.isnan(stack[:, :, 0]).all(axis=0)
    return list(stack[:, known].transpose(2, 0, 1))
