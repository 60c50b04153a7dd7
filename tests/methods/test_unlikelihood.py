"""Both losses against loops over sets, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quark.methods.unlikelihood import SMALLEST, repeated, sequence_loss, token_loss

V = 5
IDS = st.lists(st.integers(0, V - 1), min_size=1, max_size=9)


def laws(length: int) -> tuple[torch.Tensor, list[list[float]]]:
    torch.manual_seed(length)
    logits = 3 * torch.randn(length, V)
    return logits, logits.double().softmax(-1).tolist()


def log_not(p: float) -> float:
    return math.log(max(1 - p, SMALLEST))


@given(IDS)
def test_token_level(ids: list[int]) -> None:
    logits, p = laws(len(ids))
    likely = -sum(math.log(p[t][token]) for t, token in enumerate(ids))
    unlikely = -sum(log_not(p[t][c]) for t, token in enumerate(ids) for c in set(ids[:t]) - {token})
    found = token_loss(logits, torch.tensor(ids), alpha=0.5)
    # float32 sums of at most 40 terms
    assert found[0].item() == pytest.approx(likely, rel=1e-4, abs=1e-5)
    assert found[1].item() == pytest.approx(0.5 * unlikely, rel=1e-4, abs=1e-4)


@given(IDS, st.integers(1, 4))
def test_sequence_level(ids: list[int], n: int) -> None:
    logits, p = laws(len(ids))
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
    again = [i for i, gram in enumerate(grams) if gram in grams[:i]]
    marked = [any(i <= t < i + n for i in again) for t in range(len(ids))]
    assert repeated(ids, n) == marked
    wanted = -sum(log_not(p[t][ids[t]]) for t in range(len(ids)) if marked[t])
    found = sequence_loss(logits, torch.tensor(ids), n).item()
    assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def test_a_step_makes_repetition_less_likely() -> None:
    ids = torch.tensor([1, 2, 1, 2, 1, 2])
    logits = torch.zeros(6, V, requires_grad=True)
    sequence_loss(logits, ids, 2).backward()
    assert logits.grad is not None
    moved = (logits - logits.grad).softmax(-1)
    assert (moved[2:, :].gather(-1, ids[2:, None]) < 1 / V).all()  # marked: all but the first two
    torch.testing.assert_close(moved[:2], torch.full((2, V), 1 / V))


def test_no_infinite_loss_where_the_model_is_sure() -> None:
    logits = torch.full((3, V), -100.0)
    logits[:, 1] = 100.0
    logits.requires_grad_()
    loss = sum(token_loss(logits, torch.tensor([1, 2, 1]), alpha=1.0))
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
