"""Averages over prompts of which some have no score.

Layer 3. A score that is NaN was never given (its scorer failed). Such scores are left out, and a
prompt without any has no value of its own.
"""

import numpy as np
from numpy.typing import NDArray


class UnscoredError(ValueError):
    """No generation of a split has a score."""


def mean_over_scored(values: NDArray[np.float64]) -> float:
    """Return the mean of the prompts' values that are not NaN.

    Of the highest toxicities this is the average maximum toxicity, of those above a threshold the
    toxicity probability.

    Raises:
        UnscoredError: no prompt has a score.
    """
    scored = values[~np.isnan(values)]
    if not scored.size:
        raise UnscoredError(f"none of {values.size} prompts has a score: their mean is undefined")
    return float(scored.mean())
