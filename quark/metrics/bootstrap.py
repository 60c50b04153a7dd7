"""Percentile bootstrap intervals over prompts (Efron 1979).

Layer 3. Prompts are resampled, not generations: the generations of one prompt are no independent
draws from what the table speaks of, which is prompts.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

CELLS = 1 << 21  # prompts drawn at once; bounds the memory to some 50 MB


def interval(
    columns: Sequence[Values],
    value: Callable[..., Values],
    resamples: int,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of a function of means over prompts.

    Args:
        columns: one or more (prompts,), whose means over the resampled prompts `value` takes.
        value: of as many arrays (resamples,) of means; a ratio of sums is that of the means.
        resamples: how often as many prompts are drawn with replacement.
        rng: draws them; equal generators draw equal prompts, however many fit in memory at once.
        level: share of the resampled statistics between the two ends.

    Raises:
        ValueError: no prompts, a NaN or infinite number in a column or among the statistics,
            lengths that differ, resamples below 1, or a level outside (0, 1).
    """
    _check(columns, resamples, level)
    prompts = len(columns[0])
    at_once = max(1, CELLS // prompts)
    statistics = np.empty(resamples)
    for start in range(0, resamples, at_once):
        part = statistics[start : start + at_once]
        drawn = rng.integers(prompts, size=(len(part), prompts))
        with np.errstate(invalid="ignore", divide="ignore"):
            part[:] = value(*(column[drawn].mean(axis=1) for column in columns))
    if not np.isfinite(statistics).all():
        raise ValueError("a statistic is not finite: leave out prompts without a value first")
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(columns: Sequence[Values], resamples: int, level: float) -> None:
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or len(columns[0].shape) != 1 or not columns[0].size:
        raise ValueError(f"columns {sorted(shapes)}: need (prompts,), all of one length")
    for column in columns:
        if not np.isfinite(column).all():
            at = int(np.flatnonzero(~np.isfinite(column))[0])
            raise ValueError(f"value {at} is {column[at]}: leave out prompts without a value first")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples = {resamples}, level = {level}: need >= 1 and in (0, 1)")
