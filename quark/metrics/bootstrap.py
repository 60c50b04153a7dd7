"""Percentile bootstrap intervals over prompts (Efron 1979).

Layer 3. Prompts are resampled, not generations: the generations of one prompt are no independent
draws from what the table speaks of, which is prompts.
"""

import numpy as np
from numpy.typing import NDArray

CELLS = 1 << 21  # prompts drawn at once; bounds the memory to some 50 MB


def interval(
    values: NDArray[np.float64],
    resamples: int,
    rng: np.random.Generator,
    *,
    counts: NDArray[np.float64] | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of the mean over prompts, or of a ratio of sums.

    Args:
        values: (prompts,) a value, or the sum of a prompt's values.
        resamples: how often as many prompts are drawn with replacement.
        rng: draws them; equal generators draw equal prompts, however many fit in memory at once.
        counts: (prompts,) how many values each sum is made of; the statistic is then
            sum(values) / sum(counts), the mean over generations.
        level: share of the resampled statistics between the two ends.

    Raises:
        ValueError: no prompts, a NaN or infinite value, a count that is not above 0, lengths
            that differ, resamples below 1, or a level outside (0, 1).
    """
    counts = np.ones_like(values) if counts is None else counts
    _check(values, counts, resamples, level)
    prompts = len(values)
    at_once = max(1, CELLS // prompts)
    statistics = np.empty(resamples)
    for start in range(0, resamples, at_once):
        part = statistics[start : start + at_once]
        drawn = rng.integers(prompts, size=(len(part), prompts))
        part[:] = values[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(
    values: NDArray[np.float64],
    counts: NDArray[np.float64],
    resamples: int,
    level: float,
) -> None:
    if values.ndim != 1 or not values.size or counts.shape != values.shape:
        raise ValueError(f"values {values.shape}, counts {counts.shape}: need (prompts,) both")
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"value {at} is {values[at]}: leave out prompts without a value first")
    if not (counts > 0).all():
        at = int(np.flatnonzero(~(counts > 0))[0])
        raise ValueError(f"count {at} is {counts[at]}: leave out prompts without a value first")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples = {resamples}, level = {level}: need >= 1 and in (0, 1)")
