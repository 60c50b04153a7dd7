"""Averages over prompts, some of which have no score.

A score is NaN if its scorer failed. Such scores are left out, and a
prompt without any has no value of its own.
"""

import numpy as np
from numpy.typing import NDArray


class UnscoredError(ValueError):
    """No generation of a split has a score."""


def mean_over_scored(values: NDArray[np.float64]) -> float:
    """Return the mean of the prompts' values that are not NaN.

    If the values are the prompts' highest toxicities, this is the average maximum toxicity; if they
    are 1 above a threshold and else 0, it is the toxicity probability.

    Raises:
        UnscoredError: no prompt has a score.
    """
    scored = values[~np.isnan(values)]
    if not scored.size:
        raise UnscoredError(f"none of {values.size} prompts has a score: their mean is undefined")
    return float(scored.mean())


def mean_by_prompt(values: NDArray[np.float64], prompt: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean of each prompt's values that are not NaN.

    Args:
        values: (n,) of each generation; NaN where it has none, and does not count.
        prompt: (n,) the prompt of each generation as a code from 0 on.

    Returns:
        (prompts,) means; NaN for a prompt without any value.
    """
    given = ~np.isnan(values)
    counts = np.bincount(prompt, given)
    sums = np.bincount(prompt, np.where(given, values, 0))
    means = np.full(len(counts), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def share_above(
    scores: NDArray[np.float64], prompt: NDArray[np.integer], threshold: float
) -> NDArray[np.float64]:
    """Return the share of each prompt's scores that lie strictly above `threshold`.

    Args:
        scores: (n,) score of each generation; NaN where it has none, and does not count.
        prompt: (n,) the prompt of each generation as a code from 0 on.
        threshold: which scores are high.

    Returns:
        (prompts,) shares in [0, 1]; NaN for a prompt without any score.
    """
    return mean_by_prompt(np.where(np.isnan(scores), scores, scores > threshold), prompt)
