import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from quark.maths.nucleus import UNIFORMS, draw, in_nucleus

ROWS = 20_000
LOGITS = 2 * torch.randn(50, generator=torch.Generator().manual_seed(0))
LARGEST = float(np.nextafter(np.float32(1), np.float32(0)))  # the largest uniform there is


def next_token(
    logits: Tensor, temperature: float = 1, top_k: int = 0, top_p: float = 1
) -> NDArray[np.float64]:
    """The truncated softmax in float64, by sorting."""
    z = logits.double().numpy() / temperature
    p = np.exp(z - z.max())
    if top_k:
        p[p < np.sort(p)[-top_k]] = 0
    p /= p.sum()
    kept = np.array([p[p > p_i].sum() < top_p for p_i in p])
    return p * kept / (p * kept).sum()


def frequencies(logits: Tensor, uniforms: Tensor, **how: float) -> NDArray[np.float64]:
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | how
    tokens = draw(logits.expand(len(uniforms), -1), uniforms, **settings)  # type: ignore[arg-type]
    return np.bincount(tokens.numpy(), minlength=len(logits)) / len(uniforms)


def grid() -> Tensor:
    """Every share of [0, 1) alike: without rejections, each token is met up to one row."""
    return ((torch.arange(ROWS) + 0.5) / ROWS)[:, None].expand(-1, UNIFORMS)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 90])
def test_law_without_rejections(temperature: float, top_k: int) -> None:
    found = frequencies(LOGITS, grid(), temperature=temperature, top_k=top_k)
    expected = next_token(LOGITS, temperature, min(top_k, 50))
    # a token owns an interval: one row at either end of it, and float32 sums off by 1e-6
    np.testing.assert_allclose(found, expected, atol=2 / ROWS + 1e-6)
    assert not found[expected == 0].any()


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("top_k", [0, 7])
def test_law_with_rejections(top_p: float, top_k: int) -> None:
    uniforms = torch.rand(ROWS, UNIFORMS, generator=torch.Generator().manual_seed(1))
    found = frequencies(LOGITS, uniforms, top_k=top_k, top_p=top_p)
    expected = next_token(LOGITS, top_k=top_k, top_p=top_p)
    assert not found[expected == 0].any()
    # five binomial deviations: one test in 1e6 would fail by chance if the seed were not fixed
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / ROWS) + 1e-6).all()


def test_sorted_path() -> None:
    """All proposals but the last fall outside a nucleus of three tokens of 51."""
    logits = torch.cat([LOGITS, torch.tensor([0.0])])
    uniforms = grid().clone()
    uniforms[:, :-1] = LARGEST  # the last token
    top_p = float(np.sort(next_token(logits))[-3:].sum()) - 1e-3
    expected = next_token(logits, top_p=top_p)
    assert (expected > 0).sum() == 3 and expected[-1] == 0
    found = frequencies(logits, uniforms, top_p=top_p)
    np.testing.assert_allclose(found, expected, atol=2 / ROWS + 1e-6)  # as without rejections


def test_equally_likely_tokens_stay_together() -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0, -5.0]])
    kept = [bool(in_nucleus(logits.softmax(-1), torch.tensor([i]), 0.5)) for i in range(5)]
    assert kept == [True, True, True, True, False]


def test_equally_likely_tokens_stay_together_in_the_sorted_path() -> None:
    """Four tokens of a fifth each: the third reaches p = 0.5, and the fourth is as likely."""
    logits = torch.tensor([0.2, 0.2, 0.2, 0.2, 0.1, 0.1]).log()
    uniforms = grid().clone()
    uniforms[:, :-1] = LARGEST  # the last token
    expected = [0.25, 0.25, 0.25, 0.25, 0, 0]
    found = frequencies(logits, uniforms, top_p=0.5)
    np.testing.assert_allclose(found, expected, atol=2 / ROWS + 1e-6)  # as without rejections
    # another distribution's nucleus: all tokens are as likely there
    other = torch.tensor([3.0, 3, 3, 3, 3, 0]).expand(ROWS, -1)
    many = logits.expand(ROWS, -1)
    tokens = draw(many, uniforms, temperature=1, top_k=0, top_p=0.5, nucleus_of=other)
    found = np.bincount(tokens.numpy(), minlength=6) / ROWS
    wanted = np.array([2, 2, 2, 2, 1, 0]) / 9
    np.testing.assert_allclose(found, wanted, atol=2 / ROWS + 1e-6)


@pytest.mark.parametrize("vocabulary", [8, 50_000])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
@pytest.mark.parametrize("top_k", [0, 4])
@pytest.mark.parametrize("u", [0.0, 0.5, LARGEST])
def test_impossible_tokens_are_never_drawn(
    vocabulary: int, top_p: float, top_k: int, u: float
) -> None:
    logits = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(2))
    logits[:, :3] = logits[:, -3:] = -torch.inf
    uniforms = torch.full((1, UNIFORMS), u)
    token = int(draw(logits, uniforms, temperature=1, top_k=top_k, top_p=top_p))
    assert 3 <= token < vocabulary - 3


def test_a_row_needs_no_other() -> None:
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(3))
    uniforms = torch.rand(64, UNIFORMS, generator=torch.Generator().manual_seed(4))
    together = draw(logits, uniforms, temperature=1, top_k=0, top_p=0.3)
    alone = [
        int(draw(row[None], u[None], temperature=1, top_k=0, top_p=0.3))
        for row, u in zip(logits, uniforms, strict=True)
    ]
    assert together.tolist() == alone
