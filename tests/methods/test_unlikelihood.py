"""Both losses against loops over sets, in float64, and training with them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import plain_logits

from quark.config import Unlikelihood
from quark.methods.unlikelihood import (
    SMALLEST,
    Loss,
    greedy,
    repeated,
    sequence_loss,
    token_loss,
)
from quark.models.lm import Policy
from quark.training.trainer import Rows

V = 5
IDS = st.lists(st.integers(0, V - 1), min_size=1, max_size=9)


def distributions(length: int) -> tuple[torch.Tensor, list[list[float]]]:
    torch.manual_seed(length)
    logits = 3 * torch.randn(length, V)
    return logits, logits.double().softmax(-1).tolist()


def log_not(p: float) -> float:
    return math.log(max(1 - p, SMALLEST))


@given(IDS)
def test_token_level(ids: list[int]) -> None:
    logits, p = distributions(len(ids))
    likely = -sum(math.log(p[t][token]) for t, token in enumerate(ids))
    unlikely = -sum(log_not(p[t][c]) for t, token in enumerate(ids) for c in set(ids[:t]) - {token})
    found = token_loss(logits, torch.tensor(ids), alpha=0.5)
    # float32 sums of at most 40 terms
    assert found[0].item() == pytest.approx(likely, rel=1e-4, abs=1e-5)
    assert found[1].item() == pytest.approx(0.5 * unlikely, rel=1e-4, abs=1e-4)


@given(IDS, st.integers(1, 4))
def test_sequence_level(ids: list[int], n: int) -> None:
    logits, p = distributions(len(ids))
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


# ------------------------------------------------------------------------------------ training
HOW = Unlikelihood(alpha=0.5, sequence_share=0.0, ngram=2, prefix=2, continuation=6)
ROWS = Rows(["a", "b"], [[100], [100]], [[3, 4, 3, 4, 5], [9, 9, 8]], np.zeros(2, dtype=np.int32))


@torch.no_grad()
def written(policy: Policy, prompt: list[int], tokens: int) -> list[int]:
    """Greedy search, the whole text read again for each token."""
    text = list(prompt)
    for _ in range(tokens):
        logits = policy.lm(torch.tensor([text])).logits[0, -1]
        logits[list(policy.end_ids)] = -torch.inf
        text.append(int(logits.argmax()))
    return text[len(prompt) :]


def test_a_step_of_the_token_level(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy(0)
    found = Loss(HOW, np.random.default_rng(0))(policy, ROWS, "fp32", 0)
    wanted = torch.zeros(2)
    for prompt, text in zip(ROWS.prompts, ROWS.responses, strict=True):
        logits = plain_logits(policy, prompt, text)[:-1]
        wanted += torch.stack(token_loss(logits, torch.tensor(text), HOW.alpha))
    assert found["lm_loss"].item() == pytest.approx(float(wanted[0]), rel=1e-4)
    assert found["token_loss"].item() == pytest.approx(float(wanted[1]), rel=1e-3)
    assert found["loss"].item() == pytest.approx(float(wanted.sum()), rel=1e-4)
    assert found["sequence_loss"].item() == 0


def test_a_step_of_the_sequence_level(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy(0)
    # of twelve tokens that a tiny model finds likeliest, one at least comes again
    how = HOW.model_copy(update={"sequence_share": 1.0, "ngram": 1, "continuation": 12})
    found = Loss(how, np.random.default_rng(0))(policy, ROWS, "fp32", 0)
    wanted = 0.0
    for prompt, text in zip(ROWS.prompts, ROWS.responses, strict=True):
        read = [*prompt, *text[: how.prefix]]
        new = written(policy, read, how.continuation)
        logits = plain_logits(policy, read, new)[:-1]
        mean = float(sequence_loss(logits, torch.tensor(new), how.ngram)) / how.continuation
        wanted += len(text) * mean
    assert wanted > 0
    assert found["loss"].item() == pytest.approx(wanted, rel=1e-3)
    assert found["lm_loss"].item() == 0
    found["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in policy.parameters())


def test_greedy_writes_the_likeliest_token(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy(0)
    prompts = [[7], [1, 2, 3], [8, 8]]
    found = greedy(policy, prompts, 6, "fp32")
    assert found == [written(policy, prompt, 6) for prompt in prompts]


def test_the_level_is_that_of_the_step(make_policy: Callable[..., Policy]) -> None:
    """Micro-batches of one step are of one level; about half of the steps are of each."""
    policy = make_policy(0)
    loss = Loss(HOW.model_copy(update={"sequence_share": 0.5}), np.random.default_rng(1))
    levels = [bool(loss(policy, ROWS, "fp32", step)["lm_loss"] == 0) for step in range(12)]
    again = [bool(loss(policy, ROWS, "fp32", step)["lm_loss"] == 0) for step in range(12)]
    assert levels == again and 2 <= sum(levels) <= 10
