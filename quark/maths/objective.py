"""The objective of Quark on one page.

For a response y = (y_1 .. y_T) in quantile k to the prompt x, which has reward token r_k before it,

    loss(x, y) = sum_t [ -log p_t(y_t)  +  beta KL_t  -  alpha H(p_t) ]

    symbol  argument        meaning                                                  shape
    p_t     policy_logits   softmax of the policy's logits given r_k, x, y_<t         (T, V)
    q_t     base_logits     softmax of the frozen base model's logits given x, y_<t   (T, V)
    y_t     targets         the sampled token                                         (T,)
    beta    kl_coef         weight of the KL penalty, 0.05 in the official code
    alpha   entropy_coef    weight of the entropy bonus, 0.06 in the official code
    KL_t    kl_direction    "policy_to_base": sum_v p (log p - log q), as the official code runs it;
                            "base_to_policy": sum_v q (log q - log p), as the paper writes it

Everything is in nats. The KL is exact: it sums over the whole vocabulary, because the pool is
off-policy and an estimate from the sampled token would be biased. Source: paper section 2 and
equation 2 (as quoted in secondary notes); official `main.py`, `ConditionTrainer.loss`, for the
entropy bonus and the direction (protocol 1, 9.6, 9.7).

Departure: p and q range over the same vocabulary. The reward tokens are in neither, whereas the
official code leaves them in the policy's softmax and cuts the last six logits for the KL (9.8).

`token_loss` follows the equation. The trainer uses `fused_token_loss`: it takes hidden states,
applies the output head in chunks and computes each chunk's gradient at once, so that only one
chunk's logits are in memory. With d = log p - log q, its gradient by the logits z is

    (p - e_y) + beta p (d - KL) + alpha p (log p + H)          for policy_to_base
    (p - e_y) + beta (p - q)    + alpha p (log p + H)          for base_to_policy
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Direction = Literal["policy_to_base", "base_to_policy"]

CHUNK = 128
"""Positions whose logits are in memory at one time."""
BLOCK = 16
"""Positions whose logits one CPU operation reads; few enough to fit in its cache."""

Forbidden = tuple[Tensor, Tensor] | None
"""Positions, (T,) bool, and ids, (n,), that are impossible there; None: all are possible."""


class Coefficients(NamedTuple):
    """The weights of the objective's terms."""

    kl: float
    entropy: float
    kl_direction: Direction


class TokenTerms(NamedTuple):
    """The objective and its parts at each response position, in nats; each of shape (T,)."""

    loss: Tensor
    lm: Tensor
    kl: Tensor
    entropy: Tensor


def token_loss(
    policy_logits: Tensor, base_logits: Tensor, targets: Tensor, weigh: Coefficients
) -> TokenTerms:
    """The objective, computed by the equation; logits (T, V), targets (T,)."""
    return _terms(_log_softmax(policy_logits), _log_softmax(base_logits), targets, weigh)


def fused_token_loss(
    hidden: Tensor,
    head: Tensor,
    base_hidden: Tensor,
    base_head: Tensor,
    targets: Tensor,
    weigh: Coefficients,
    chunk: int = CHUNK,
    is_shift: bool = False,
) -> tuple[Tensor, TokenTerms]:
    """The sum of the objective over positions, differentiable, and its terms, detached.

    Args:
        hidden, base_hidden: (T, d) last hidden states of the policy and of the base model.
        head, base_head: (V, d) their output embeddings.
        targets: (T,) sampled tokens.
        weigh: the weights of the terms.
        chunk: positions whose logits exist at one time.
        is_shift: `hidden` is the shift that the policy adds to `base_hidden`, and `base_head` is
            frozen. The policy's logits are then the base model's plus those of the shift: in
            bfloat16 both have the same rounding, which could otherwise exceed a small shift.
    """
    total, *terms = _Fused.apply(  # type: ignore[no-untyped-call]
        hidden, head, base_hidden, base_head, targets, weigh, chunk, is_shift
    )
    return total, TokenTerms(*terms)


def token_logprobs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    chunk: int = CHUNK,
    forbidden: Forbidden = None,
) -> Tensor:
    """Log p of each target, (T,) float32 nats, differentiable; for the baselines' losses.

    Logits are in memory for one chunk at a time. If only the hidden states learn, the derivative is
    computed together with the logits; if the head learns too, backward computes the logits again.

    Args:
        hidden: (T, d) last hidden states.
        head: (V, d) output embeddings.
        targets: (T,) tokens.
        chunk: positions whose logits exist at one time.
        forbidden: ids that are impossible at some positions.
    """
    if not head.requires_grad:
        return _under_frozen_head(hidden, head, targets, chunk, None, forbidden, (1,))[0]
    found = [
        checkpoint(
            _chosen,
            hidden[part],
            head,
            targets[part],
            _at(part, forbidden),
            use_reentrant=False,
        )
        for part in _chunks(targets, chunk)
    ]
    return torch.cat(found)


def shifted_logprobs(
    shift: Tensor,
    head: Tensor,
    targets: Tensor,
    base_hidden: Tensor,
    times: Sequence[int] = (1,),
    chunk: int = CHUNK,
    forbidden: Forbidden = None,
) -> Tensor:
    """Log p of each target where a shift is added to the base model's last hidden states.

    In bfloat16 the logits are the base model's plus those of the shift, as in `fused_token_loss`.
    In float32 one shift is added to the hidden states, which saves a product.

    Args:
        shift, base_hidden: (T, d) last hidden states.
        head: (V, d) output embeddings, frozen.
        targets: (T,) tokens.
        times: factors of the shift: 1, -1 (it is subtracted), or 0 (the base model alone).
        chunk: positions whose logits exist at one time.
        forbidden: ids that are impossible at some positions.

    Returns:
        (len(times), T) float32 nats, differentiable by `shift`.
    """
    if tuple(times) == (0,) or (len(times) == 1 and shift.dtype == torch.float32):
        hidden = base_hidden + times[0] * shift
        return _under_frozen_head(hidden, head, targets, chunk, None, forbidden, (1,))
    return _under_frozen_head(shift, head, targets, chunk, base_hidden, forbidden, times)


def _under_frozen_head(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    chunk: int,
    base_hidden: Tensor | None,
    forbidden: Forbidden,
    times: Sequence[int],
) -> Tensor:
    """`_Chosen` chunk by chunk."""
    low_head = head.to(hidden.dtype)
    found = [
        _Chosen.apply(  # type: ignore[no-untyped-call]
            hidden[part],
            low_head,
            targets[part],
            None if base_hidden is None else base_hidden[part],
            _at(part, forbidden),
            times,
        )
        for part in _chunks(targets, chunk)
    ]
    return torch.cat(found, dim=1)


def _chunks(targets: Tensor, chunk: int) -> Iterator[slice]:
    return (slice(start, start + chunk) for start in range(0, len(targets), chunk))


def _at(part: slice, forbidden: Forbidden) -> Forbidden:
    return None if forbidden is None else (forbidden[0][part], forbidden[1])


def _without(logits: Tensor, forbidden: Forbidden) -> Tensor:
    """The logits (T, V), changed in place: -inf where an id is forbidden."""
    if forbidden is not None:
        where, ids = forbidden
        logits[where.nonzero(), ids] = -torch.inf
    return logits


def _chosen(hidden: Tensor, head: Tensor, targets: Tensor, forbidden: Forbidden) -> Tensor:
    log_p = _log_softmax(_without(hidden @ head.to(hidden.dtype).T, forbidden))
    return log_p.gather(-1, targets[:, None]).squeeze(-1)


class _Chosen(torch.autograd.Function):
    """`_chosen` under a frozen head: d log p(y) / d hidden = head[y] - sum_v p(v) head[v].

    With `base_hidden`, the logits are those of `base_hidden` plus those of `hidden` times each of
    `times`; the result is (len(times), T). Without it, `times` is (1,).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        base_hidden: Tensor | None,
        forbidden: Forbidden,
        times: Sequence[int],
    ) -> Tensor:
        logits = hidden @ head.T
        base_logits = None if base_hidden is None else base_hidden @ head.T
        by_logits = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        found = torch.empty(len(times), len(targets), device=hidden.device)
        by_hidden = []
        for count, each in zip(times, found, strict=True):
            for few in _blocks(logits):
                z = count * logits[few].float()
                if base_logits is not None:
                    z += base_logits[few].float()
                log_p, own = _log_softmax(_without(z, _at(few, forbidden))), targets[few][:, None]
                each[few] = log_p.gather(-1, own).squeeze(-1)
                if by_logits is not None:
                    one = torch.ones_like(own, dtype=log_p.dtype)
                    by_logits[few] = log_p.exp_().neg_().scatter_add_(-1, own, one)
            if by_logits is not None:
                by_hidden.append(count * (by_logits @ head))
        ctx.save_for_backward(*by_hidden)
        return found

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        by_hidden = [
            each * own[:, None].to(each.dtype)
            for each, own in zip(ctx.saved_tensors, scale, strict=True)
        ]
        return torch.stack(by_hidden).sum(0), None, None, None, None, None


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _terms(log_p: Tensor, log_q: Tensor, targets: Tensor, weigh: Coefficients) -> TokenTerms:
    p = log_p.exp()
    lm = -log_p.gather(-1, targets[:, None]).squeeze(-1)
    if weigh.kl_direction == "policy_to_base":
        kl = (p * (log_p - log_q)).sum(-1)
    else:
        kl = (log_q.exp() * (log_q - log_p)).sum(-1)
    entropy = -(p * log_p).sum(-1)
    return TokenTerms(lm + weigh.kl * kl - weigh.entropy * entropy, lm, kl, entropy)


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Rows to compute together: a few on a CPU, all on a GPU."""
    block = BLOCK if logits.device.type == "cpu" else len(logits)
    return (slice(start, start + block) for start in range(0, len(logits), block))


def _terms_and_gradient(
    log_p: Tensor, log_q: Tensor, targets: Tensor, weigh: Coefficients
) -> tuple[TokenTerms, Tensor]:
    """`_terms`, and the derivative (n, V) of their loss by the policy's logits."""
    own, p = targets[:, None], log_p.exp()
    lm, entropy = -log_p.gather(-1, own), -torch.linalg.vecdot(p, log_p)[:, None]
    if weigh.kl_direction == "policy_to_base":
        d = log_p - log_q
        kl = torch.linalg.vecdot(p, d)[:, None]
        grad = d.mul_(weigh.kl).add_(1 - weigh.kl * kl).mul_(p)
    else:
        q = log_q.exp()
        kl = torch.linalg.vecdot(q, log_q - log_p)[:, None]
        grad = (1 + weigh.kl) * p - weigh.kl * q
    if weigh.entropy:
        grad += weigh.entropy * p * (log_p + entropy)
    grad.scatter_add_(-1, own, -torch.ones_like(lm))
    loss = lm + weigh.kl * kl - weigh.entropy * entropy
    return TokenTerms(*(term.squeeze(-1) for term in (loss, lm, kl, entropy))), grad


class _Fused(torch.autograd.Function):
    """Forward forms loss and gradients together, chunk by chunk; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        base_hidden: Tensor,
        base_head: Tensor,
        targets: Tensor,
        weigh: Coefficients,
        chunk: int,
        is_shift: bool,
    ) -> tuple[Tensor, ...]:
        low_head = head.to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        head_grad = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        found = []
        for part in _chunks(targets, chunk):
            logits, base_logits = hidden[part] @ low_head.T, base_hidden[part] @ base_head.T
            by_logits = torch.empty_like(logits)
            for few in _blocks(logits):
                z, w = logits[few].float(), base_logits[few].float()
                log_p, log_q = (z + w if is_shift else z).log_softmax(-1), w.log_softmax(-1)
                terms, by_logits[few] = _terms_and_gradient(log_p, log_q, targets[part][few], weigh)
                found.append(terms)
            hidden_grad[part] = by_logits @ low_head
            if head_grad is not None:
                head_grad += by_logits.T @ hidden[part]
        ctx.save_for_backward(hidden_grad, head_grad)
        together = [torch.cat(term) for term in zip(*found, strict=True)]
        ctx.mark_non_differentiable(*together)
        return together[0].sum(), *together

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, head_grad = ctx.saved_tensors
        by_head = None if head_grad is None else head_grad * scale
        return hidden_grad * scale.to(hidden_grad.dtype), by_head, *[None] * 6
