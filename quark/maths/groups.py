"""Responses compared with other responses to the same prompt: advantages, and the best of them.

    symbol  meaning                                             shape
    r_i     reward of response i                                (rows,)
    g_i     a number for its prompt: its group                  (rows,)

    leave one out   A_i = r_i - mean of r_j,  j in the group, j != i      (Ahmadian et al. 2024)
    group mean      A_i = (r_i - mean of the group) / deviation           (Shao et al. 2024)

A response without others in its group has the advantage 0. If no group has two responses, both
functions of advantages raise ValueError.
"""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
EPSILON = 1e-4
"""Added to a group's deviation; a group of equal rewards has advantages of 0."""


def leave_one_out(reward: Values, group: NDArray[np.int64]) -> Values:
    """Each reward less the mean of the others in its group, (rows,)."""
    count, total = _sums(reward, group)
    others = np.where(count > 1, (total - reward) / np.maximum(count - 1, 1), reward)
    return np.asarray(reward - others)


def centred(reward: Values, group: NDArray[np.int64], *, normalise: bool) -> Values:
    """Each reward less its group's mean, (rows,); `normalise`: divided by the group's deviation.

    The deviation is that of the population (its sum is divided by the group's size).
    """
    count, total = _sums(reward, group)
    away = reward - total / count
    if not normalise:
        return np.asarray(away)
    variance = _sums(away**2, group)[1] / count
    return np.asarray(away / (np.sqrt(variance) + EPSILON))


def best_first(
    reward: Values, group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The rows of each group, the best first; among equal rewards in their order.

    Returns:
        Row numbers, group after group, (rows,); and where each group begins in them and how many
        rows it has, (groups,) each.
    """
    order = np.lexsort((np.arange(len(reward)), -reward, group))
    _, first, count = np.unique(group[order], return_index=True, return_counts=True)
    return order, first, count


def best_and_worst(
    reward: Values, group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the best and of the worst row of each group, (groups,).

    Of equal rewards, the first row is the best and the last row is the worst. Groups whose rewards
    are all equal are left out.

    Raises:
        ValueError: all are left out.
    """
    order, first, count = best_first(reward, group)
    best, worst = order[first], order[first + count - 1]
    differ = reward[best] > reward[worst]
    if not differ.any():
        raise ValueError("no prompt has two samples of different rewards; draw more samples")
    return best[differ], worst[differ]


def _sums(values: Values, group: NDArray[np.int64]) -> tuple[Values, Values]:
    """The size of each row's group, and the sum of its values, (rows,) each."""
    count: Values = np.bincount(group)[group].astype(np.float64)
    if not (count > 1).any():
        raise ValueError("no prompt has two samples to compare; raise quark.first_samples")
    total = np.bincount(group, values)[group].astype(np.float64)
    return count, total
