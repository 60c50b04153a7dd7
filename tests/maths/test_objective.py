import numpy as np
import pytest
import torch
from torch import Tensor

from quark.maths.objective import (
    Coefficients,
    Direction,
    TokenTerms,
    fused_token_loss,
    shifted_logprobs,
    token_logprobs,
    token_loss,
)

T, V, D = 9, 101, 32
both_directions = pytest.mark.parametrize("direction", ["policy_to_base", "base_to_policy"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def oracle(z_p: Tensor, z_q: Tensor, targets: Tensor, weigh: Coefficients) -> list[list[float]]:
    """Loss, lm, kl and entropy of each position in float64, one position at a time."""
    rows = []
    for z, base, y in zip(z_p.double().numpy(), z_q.double().numpy(), targets, strict=True):
        p, q = np.exp(z) / np.exp(z).sum(), np.exp(base) / np.exp(base).sum()
        to_base = weigh.kl_direction == "policy_to_base"
        kl = np.sum(p * np.log(p / q)) if to_base else np.sum(q * np.log(q / p))
        lm, entropy = -np.log(p[y]), -np.sum(p * np.log(p))
        rows.append([lm + weigh.kl * kl - weigh.entropy * entropy, lm, kl, entropy])
    return np.transpose(rows).tolist()


@both_directions
def test_terms_by_hand(direction: Direction) -> None:
    z_p, z_q, y = 3 * normal(T, V), 3 * normal(T, V, seed=1), torch.arange(T) * 7
    weigh = Coefficients(0.3, 0.2, direction)
    found = token_loss(z_p, z_q, y, weigh)
    # float32 sums of 101 terms of size up to 20: absolute error near 101 * 20 * 6e-8 at worst
    np.testing.assert_allclose(torch.stack(found).numpy(), oracle(z_p, z_q, y, weigh), atol=1e-4)


@both_directions
def test_kl_is_zero_between_equals_and_positive_else(direction: Direction) -> None:
    z, y, weigh = 3 * normal(T, V), torch.zeros(T, dtype=torch.long), Coefficients(1, 0, direction)
    assert token_loss(z, z, y, weigh).kl.tolist() == [0] * T
    shifted = token_loss(z, z + 5, y, weigh).kl  # the same distribution
    assert shifted.abs().max() < 1e-5  # log-softmax rounds logits of size 15 by 1e-6
    assert (token_loss(z, normal(T, V, seed=1), y, weigh).kl > 0.1).all()


@both_directions
@pytest.mark.parametrize("chunk", [1, 4, 9, 128])
def test_fused_equals_plain(direction: Direction, chunk: int) -> None:
    hidden, head = normal(T, D).requires_grad_(), normal(V, D, seed=1).requires_grad_()
    base_hidden, base_head = normal(T, D, seed=2), normal(V, D, seed=3)
    y, weigh = torch.arange(T) * 11, Coefficients(0.3, 0.2, direction)
    plain = token_loss(hidden @ head.T, base_hidden @ base_head.T, y, weigh)
    expected = torch.autograd.grad(plain.loss.sum() * 0.37, [hidden, head])

    total, terms = fused_token_loss(hidden, head, base_hidden, base_head, y, weigh, chunk)
    found = torch.autograd.grad(total * 0.37, [hidden, head])

    # The same float32 sums in another order; values and gradients are of size 1 to 100.
    torch.testing.assert_close(torch.stack(terms), torch.stack(plain), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(total, plain.loss.sum(), atol=1e-4, rtol=1e-5)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)


def test_frozen_head() -> None:
    hidden, head, y = normal(T, D).requires_grad_(), normal(V, D, seed=1), torch.arange(T)
    weigh = Coefficients(0.3, 0.2, "policy_to_base")
    total, terms = fused_token_loss(hidden, head, hidden.detach() + 1, head, y, weigh)
    total.backward()
    plain = hidden.detach().requires_grad_()
    token_loss(plain @ head.T, (plain.detach() + 1) @ head.T, y, weigh).loss.sum().backward()
    assert head.grad is None
    assert hidden.grad is not None and plain.grad is not None
    torch.testing.assert_close(hidden.grad, plain.grad, atol=1e-4, rtol=1e-4)  # as above
    assert isinstance(terms, TokenTerms) and not any(term.requires_grad for term in terms)


@pytest.mark.parametrize("chunk", [1, 4, 128])
@pytest.mark.parametrize("head_learns", [True, False])
def test_token_logprobs(head_learns: bool, chunk: int) -> None:
    hidden, head = normal(T, D).requires_grad_(), normal(V, D, seed=1).requires_grad_(head_learns)
    y, weights = torch.arange(T) * 11, normal(T, seed=2)
    inputs = [hidden, head] if head_learns else [hidden]
    plain = (hidden @ head.T).log_softmax(-1)[range(T), y]
    expected = torch.autograd.grad((plain * weights).sum(), inputs)
    found = token_logprobs(hidden, head, y, chunk)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-5)  # as above
    gradients = torch.autograd.grad((found * weights).sum(), inputs)
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-4, rtol=1e-4)
    assert not token_logprobs(hidden.detach(), head.detach(), y, chunk).requires_grad


@pytest.mark.parametrize("head_learns", [True, False])
def test_token_logprobs_without_forbidden_ids(head_learns: bool) -> None:
    hidden = normal(T, D).requires_grad_()
    head = normal(V, D, seed=1).requires_grad_(head_learns)
    y, where, ids = torch.arange(T) * 11, torch.arange(T) % 3 == 1, torch.tensor([0, 5, 100])
    logits = hidden @ head.T
    kept = torch.ones(T, V, dtype=torch.bool)
    for t in (1, 4, 7):
        kept[t, ids] = False
    plain = logits.masked_fill(~kept, -torch.inf).log_softmax(-1)[torch.arange(T), y]
    found = token_logprobs(hidden, head, y, 4, forbidden=(where, ids))
    assert (plain - token_logprobs(hidden, head, y)).detach()[where].min() > 0
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)  # float32 sums
    learnt = [hidden, head] if head_learns else [hidden]
    wanted = torch.autograd.grad(plain.sum(), learnt)
    for one, other in zip(torch.autograd.grad(found.sum(), learnt), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)  # sums of 101 terms


# ------------------------------------------------------------------------------- shifts
def test_a_shift_adds_to_the_base_model() -> None:
    """Loss, log-probabilities and gradients are those of the sum of both hidden states."""
    shift, base, head = normal(T, D, seed=3).requires_grad_(), normal(T, D), normal(V, D, seed=1)
    y, weigh = torch.arange(T) * 11, Coefficients(0.3, 0.2, "policy_to_base")
    plain = token_loss((base + shift) @ head.T, base @ head.T, y, weigh)
    expected = torch.autograd.grad(plain.loss.sum(), shift)
    total, terms = fused_token_loss(shift, head, base, head, y, weigh, 4, is_shift=True)
    # as above
    torch.testing.assert_close(torch.stack(terms), torch.stack(plain), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(total, shift), expected, atol=1e-4, rtol=1e-4)

    chosen = ((base + shift) @ head.T).log_softmax(-1)[range(T), y].sum()
    expected = torch.autograd.grad(chosen, shift)
    found = shifted_logprobs(shift, head, y, base, chunk=4).sum()
    torch.testing.assert_close(found, chosen, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found, shift), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("times", [(1,), (0,), (1, -1), (1, 0)])
@pytest.mark.parametrize("chunk", [4, 128])
def test_a_shift_as_often_as_told(times: tuple[int, ...], chunk: int) -> None:
    shift, base, head = normal(T, D, seed=3).requires_grad_(), normal(T, D), normal(V, D, seed=1)
    y, weights = torch.arange(T) * 11, normal(len(times), T, seed=2)
    plain = torch.stack([((base + c * shift) @ head.T).log_softmax(-1)[range(T), y] for c in times])
    found = shifted_logprobs(shift, head, y, base, times, chunk)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-5)  # as above
    expected = torch.autograd.grad((plain * weights).sum(), shift)
    gradient = torch.autograd.grad((found * weights).sum(), shift)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)
    assert not shifted_logprobs(shift.detach(), head, y, base).requires_grad


def test_a_small_shift_is_not_lost_in_bf16() -> None:
    """The KL of a shift of a thousandth: without common rounding it is all noise."""
    base, head = normal(T, D).bfloat16(), normal(V, D, seed=1).bfloat16()
    small, y = (1e-3 * normal(T, D, seed=3)).bfloat16(), torch.arange(T)
    weigh = Coefficients(1.0, 0.0, "policy_to_base")
    log_p, log_q = (
        (states.double() @ head.double().T).log_softmax(-1)
        for states in (base.double() + small.double(), base)
    )
    exact = (log_p.exp() * (log_p - log_q)).sum(-1).mean().item()
    together, apart = (
        fused_token_loss(hidden, head, base, head, y, weigh, is_shift=is_shift)[1].kl.mean().item()
        for hidden, is_shift in ((small, True), (base + small, False))
    )
    assert together == pytest.approx(exact, rel=0.05)  # logits of 8 bits, squared
    assert abs(apart - exact) > 3 * exact
