"""Quantize: sort the pool by reward and cut it into K equal parts (paper section 2, step 2).

Departures from the official `data_pool.py`: equal rewards are ordered by a seeded hash of the row,
whereas a stable sort gives older samples the better token (protocol 9.10); and parts differ by at
most one row, whereas the official code puts the whole remainder into the worst part.
"""

import numpy as np
from numpy.typing import NDArray


class QuantileError(ValueError):
    """Rewards that cannot be cut into quantiles."""


def quantiles(rewards: NDArray[np.float64], ties: NDArray[np.uint64], k: int) -> NDArray[np.int32]:
    """The quantile of each row, 0 = highest rewards, K - 1 = lowest.

    Args:
        rewards: shape (n,), no NaN.
        ties: shape (n,), orders rows of equal reward.
        k: number of quantiles.

    Raises:
        QuantileError: a reward is NaN, or there are fewer rows than quantiles.
    """
    n = len(rewards)
    if bad := np.flatnonzero(np.isnan(rewards)).tolist():
        raise QuantileError(f"row {bad[0]}: reward is NaN; a failed score is null and left out")
    if n < k:
        raise QuantileError(f"{n} rows cannot be cut into {k} quantiles")
    order = np.argsort(-rewards)  # in half lexsort's time; equal rewards are ordered below
    ordered = rewards[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    order[tied] = order[tied][np.lexsort((ties[order[tied]], -ordered[tied]))]
    quantile = np.empty(n, dtype=np.int32)
    quantile[order] = np.arange(n) * k // n
    return quantile


def edges(rewards: NDArray[np.float64], quantile: NDArray[np.int32], k: int) -> list[float]:
    """The K + 1 rewards between quantiles, best first: the maximum, each part's minimum."""
    return [float(rewards.max())] + [float(rewards[quantile == i].min()) for i in range(k)]
