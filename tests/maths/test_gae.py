import pytest
import torch

from quark.maths.gae import advantages


def plain(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """A_t as the sum over l of (gamma lambda)^l delta_{t+l}, for one row."""
    values = [*values, 0.0]
    delta = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [
        sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, len(delta)))
        for t in range(len(delta))
    ]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.9, 0.0), (1.0, 1.0)])
def test_equals_the_sum(gamma: float, lam: float) -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 4, 6, dtype=torch.float64)
    lengths = [6, 1, 4, 3]
    real = torch.arange(6) < torch.tensor(lengths)[:, None]
    found, returns = advantages(rewards, values, real, gamma=gamma, lam=lam)
    for row, n in enumerate(lengths):
        expected = plain(rewards[row, :n].tolist(), values[row, :n].tolist(), gamma, lam)
        assert found[row, :n].tolist() == pytest.approx(expected)
        assert returns[row, :n].tolist() == pytest.approx(
            [a + v for a, v in zip(expected, values[row, :n].tolist(), strict=True)]
        )
        assert not found[row, n:].any() and not returns[row, n:].any()


def test_lambda_one_is_the_return_minus_the_value() -> None:
    rewards, values = torch.tensor([[1.0, 2, 3]]), torch.tensor([[5.0, 5, 5]])
    found, returns = advantages(rewards, values, torch.ones(1, 3, dtype=bool), gamma=1, lam=1)
    assert found.tolist() == [[1, 0, -2]] and returns.tolist() == [[6, 5, 3]]
