"""Intervals over prompts: percentile bootstrap (Efron 1979), and Wilson's for a share.

Prompts are resampled, not generations: the tables make statements about prompts, and the
generations of one prompt are not independent.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist

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

    Seeds are resampled too, independently of prompts (the pigeonhole bootstrap, Owen 2007), so the
    interval includes the variance of both; it tends to be too wide, not too narrow.

    Args:
        columns: one or more arrays (prompts,) or (seeds, prompts). `value` gets their means over
            the resampled seeds and prompts. NaN in any column: that seed has no value for that
            prompt; at least one seed must have a value.
        value: function of as many arrays (resamples,) of means; a ratio of sums is that of means.
        resamples: how often all prompts are drawn again, with replacement.
        rng: draws them; equal generators draw equal prompts, however many fit in memory at once.
        level: share of the resampled statistics between the two ends.

    Raises:
        ValueError: no prompts, a prompt without a value, an infinite number in a column or among
            the statistics, no statistic with a value, shapes that differ, resamples below 1, or a
            level outside (0, 1).
    """
    table, known = _check(columns, resamples, level)
    _, seeds, prompts = table.shape
    at_once = max(1, CELLS // prompts)
    drawn_seeds = rng.integers(seeds, size=(resamples, seeds))
    times = (drawn_seeds[:, :, None] == np.arange(seeds)).sum(axis=1).astype(float)
    statistics = np.empty(resamples)
    for start in range(0, resamples, at_once):
        part = statistics[start : start + at_once]
        weights = times[start : start + at_once]
        drawn = rng.integers(prompts, size=(len(part), prompts))
        with np.errstate(invalid="ignore", divide="ignore"):
            over_seeds = (weights @ table) / (weights @ known)
            part[:] = value(*(_means(column, drawn) for column in over_seeds))
    statistics = statistics[~np.isnan(statistics)]  # NaN: none of the drawn has a value
    if not statistics.size or not np.isfinite(statistics).all():
        raise ValueError("a statistic is not finite: leave out prompts without a value first")
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share of n prompts (Wilson 1927).

    Unlike the bootstrap's interval, its width is above 0 even if the share is 0 or 1.

    Raises:
        ValueError: a share outside [0, 1], n below 1, or a level outside (0, 1).
    """
    if not 0 <= share <= 1 or n < 1 or not 0 < level < 1:
        raise ValueError(f"share = {share}, n = {n}, level = {level}: not in range")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle = share + z * z / (2 * n)
    half = z * sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def _means(values: Values, drawn: NDArray[np.integer]) -> Values:
    """The mean over the prompts drawn that have a value; both (resamples, prompts)."""
    found = np.take_along_axis(values, drawn, axis=1)
    given = ~np.isnan(found)
    means: Values = np.where(given, found, 0).sum(axis=1) / given.sum(axis=1)
    return means


def _check(columns: Sequence[Values], resamples: int, level: float) -> tuple[Values, Values]:
    """The columns, with 0 for missing values, and a mask: 1 where no value is missing."""
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or columns[0].ndim not in (1, 2) or not columns[0].size:
        raise ValueError(
            f"columns {sorted(shapes)}: need (prompts,) or (seeds, prompts), all of one shape"
        )
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples = {resamples}, level = {level}: need >= 1 and in (0, 1)")
    table = np.stack([np.atleast_2d(column) for column in columns])
    known = ~np.isnan(table).any(axis=0)
    bad = np.isinf(table).any(axis=(0, 1)) | ~known.any(axis=0)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        odd = table[:, :, at][~np.isfinite(table[:, :, at])][0]
        raise ValueError(f"value {at} is {odd}: leave out prompts without a value first")
    return np.where(known, table, 0), known.astype(float)
