"""Advantages within groups, against plain loops."""

import numpy as np
import pytest

from quark.maths.groups import EPSILON, centred, leave_one_out

REWARD = np.array([0.5, 0.1, 0.9, 0.3, 0.7, 0.4])
GROUP = np.array([2, 0, 2, 0, 1, 2])


def others(i: int) -> list[float]:
    return [REWARD[j] for j in range(6) if j != i and GROUP[j] == GROUP[i]]


def test_leave_one_out() -> None:
    plain = [REWARD[i] - np.mean(others(i)) if others(i) else 0.0 for i in range(6)]
    np.testing.assert_allclose(leave_one_out(REWARD, GROUP), plain, atol=1e-15)


@pytest.mark.parametrize("normalise", [False, True])
def test_centred(normalise: bool) -> None:
    plain = []
    for i in range(6):
        own = [REWARD[i], *others(i)]
        plain.append((REWARD[i] - np.mean(own)) / (np.std(own) + EPSILON if normalise else 1))
    np.testing.assert_allclose(centred(REWARD, GROUP, normalise=normalise), plain, atol=1e-13)


def test_equal_rewards_have_no_advantage() -> None:
    for found in (
        leave_one_out(np.full(6, 0.3), GROUP),
        centred(np.full(6, 0.3), GROUP, normalise=True),
        centred(np.full(6, 0.3), GROUP, normalise=False),
    ):
        np.testing.assert_allclose(found, 0, atol=1e-12)  # a mean of equal numbers may round


def test_single_samples_are_refused() -> None:
    alone = np.arange(6)
    with pytest.raises(ValueError, match="no prompt has two samples to compare"):
        leave_one_out(REWARD, alone)
    with pytest.raises(ValueError, match="no prompt has two samples to compare"):
        centred(REWARD, alone, normalise=True)
