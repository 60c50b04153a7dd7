"""Unlikelihood training against repetition (Welleck et al. 2020, ICLR).

Token level: what stands before a token must not be likely in its place, unless it is that token,

    loss(x) = sum_t [ -log p_t(x_t)  -  alpha sum_{c in C_t} log(1 - p_t(c)) ],
    C_t     = {x_1 .. x_{t-1}} without x_t

Sequence level: the model continues a prefix greedily, and what repeats an n-gram of the
continuation must become unlikely,

    loss(y) = - sum_t [y_t ends or lies in an n-gram that came before] log(1 - p_t(y_t))

alpha is 1 and n is 4; half of all updates are of the sequence level (official `run_gpt2.py`,
`candidate_penalty_ce_loss.py`; protocol 6). 1 - p is kept above `SMALLEST`, as in the second file.

Departures: a text's candidates are its own tokens, where the official token-level loss flattens the
batch and lets a row see those of the rows before it; the last n-gram of a continuation counts,
where the official loop ends one step before it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST = 1e-5
"""The least 1 - p whose logarithm is taken."""


def candidates(ids: Tensor) -> Tensor:
    """Which tokens are in each C_t: (T, T) bool, [t, s] for token s at its last place before t.

    A token that stood several times before t counts once, at the last of its places.

    Args:
        ids: (T,) one text.
    """
    same = ids[:, None] == ids[None, :]  # [t, s]
    before = torch.ones_like(same).tril(-1)
    # s is its token's last place before t: no r with s < r < t holds the same token
    later = torch.zeros_like(ids)
    for s, token in enumerate(ids.tolist()):
        after = (ids[s + 1 :] == token).nonzero()
        later[s] = s + 1 + int(after[0]) if len(after) else len(ids)
    place = torch.arange(len(ids), device=ids.device)
    return before & ~same & (later[None, :] >= place[:, None])


def token_loss(logits: Tensor, ids: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Likelihood and unlikelihood terms of one text, each summed, in nats.

    Args:
        logits: (T, V), row t predicts token t.
        ids: (T,) the text; every earlier token is a candidate, those of a prompt included.
        alpha: weight of the second term.
    """
    log_p = logits.float().log_softmax(-1)
    likely = -log_p.gather(-1, ids[:, None]).sum()
    of_candidates = log_p[:, ids]  # [t, s]: token s in place t
    unlikely = _log_not(of_candidates)[candidates(ids)].sum()
    return likely, -alpha * unlikely


def repeated(ids: Sequence[int], n: int) -> list[bool]:
    """Which tokens lie in an n-gram that stood in the text before."""
    seen: set[tuple[int, ...]] = set()
    marked = [False] * len(ids)
    for start in range(len(ids) - n + 1):
        gram = tuple(ids[start : start + n])
        if gram in seen:
            marked[start : start + n] = [True] * n
        seen.add(gram)
    return marked


def sequence_loss(logits: Tensor, ids: Tensor, n: int) -> Tensor:
    """The sequence-level term of one continuation, summed, in nats.

    Args:
        logits: (T, V), row t predicts token t.
        ids: (T,) the continuation.
        n: length of the n-grams.
    """
    marked = torch.tensor(repeated(ids.tolist(), n), device=ids.device)
    log_p = logits.float().log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    return -_log_not(log_p)[marked].sum()


def _log_not(log_p: Tensor) -> Tensor:
    """log(1 - p), from log p."""
    return (1 - log_p.exp()).clamp(min=SMALLEST).log()
