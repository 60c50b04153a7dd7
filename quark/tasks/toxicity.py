"""Unlearning toxicity (paper section 3.1): the scorer gives the toxicity of the continuation."""

import numpy as np
from numpy.typing import NDArray


def reward(toxicity: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - toxicity, both in [0, 1]; shape (n,) (official `reward.py`, protocol 2)."""
    return 1 - toxicity
