"""Generalised advantage estimation (Schulman et al. 2016, equation 16).

delta_t = r_t + gamma V_{t+1} - V_t            V after the last token is 0
A_t     = delta_t + gamma lambda A_{t+1}
R_t     = A_t + V_t
"""

import torch
from torch import Tensor


def advantages(
    rewards: Tensor, values: Tensor, real: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages A and returns R, both (rows, time), 0 where a row has ended.

    Args:
        rewards: (rows, time) of each token.
        values: (rows, time) estimates before each token.
        real: (rows, time) bool: which tokens a row has; padded on the right.
        gamma: discount of a token.
        lam: lambda, 0: one step ahead, 1: the whole response.
    """
    rewards, values = rewards * real, values * real
    found = torch.zeros_like(rewards)
    later = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        ahead = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(later)
        delta = rewards[:, t] + gamma * ahead - values[:, t]
        later = (delta + gamma * lam * later) * real[:, t]
        found[:, t] = later
    return found, (found + values) * real
