"""Unlikelihood training against repetition (Welleck et al. 2020, ICLR).

Token level: earlier tokens must not be likely in a token's place, unless they equal that token,

    loss(x) = sum_t [ -log p_t(x_t)  -  alpha sum_{c in C_t} log(1 - p_t(c)) ],
    C_t     = {x_1 .. x_{t-1}} without x_t

Sequence level: the model continues a prefix greedily, and tokens that repeat an n-gram of the
continuation must become unlikely,

    loss(y) = - sum_t [y_t ends or lies in an n-gram that came before] log(1 - p_t(y_t))

alpha is 1 and n is 4; half of all updates are of the sequence level (official `run_gpt2.py`,
`candidate_penalty_ce_loss.py`; protocol 6). 1 - p is kept above `SMALLEST`, as in the second file.

Departures: a text's candidates are its own tokens, whereas the official token-level loss flattens
the batch, so that a row also has the candidates of the rows before it; the last n-gram of a
continuation counts, whereas the official loop ends one step before it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from quark.config import Precision, Unlikelihood
from quark.generation.decoding import Plain
from quark.models.decode_state import response_hidden
from quark.models.lm import DTYPES, Policy
from quark.training.trainer import Rows, autocast

SMALLEST = 1e-5
"""The least 1 - p whose logarithm is taken."""


def candidates(ids: Tensor) -> Tensor:
    """Which tokens are in each C_t: (T, T) bool, [t, s] for token s at its last place before t.

    A token that occurs several times before t counts once, at its last place.

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
    """Which tokens lie in an n-gram that occurred earlier in the text."""
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


class Loss:
    """The loss of either level; each step's level is drawn at random.

    Args:
        how: weights and lengths.
        rng: of the levels.
    """

    def __init__(self, how: Unlikelihood, rng: np.random.Generator) -> None:
        self.how, self.rng = how, rng
        self._of_sequences: list[bool] = []

    def __call__(
        self, policy: Policy, rows: Rows, precision: Precision, step: int
    ) -> dict[str, Tensor]:
        """Sums over some rows, to be divided by their tokens: `loss`, and the terms it is made of.

        The sequence-level term is a mean over the continuation's tokens, as in the official code,
        times the text's tokens.
        """
        while step >= len(self._of_sequences):
            self._of_sequences.append(bool(self.rng.random() < self.how.sequence_share))
        if self._of_sequences[step]:
            return self._sequences(policy, rows, precision)
        alpha = self.how.alpha
        found = self._each(
            policy,
            rows.prompts,
            rows.responses,
            precision,
            lambda logits, ids: torch.stack(token_loss(logits, ids, alpha)),
        )
        likely, unlikely = torch.stack(found).sum(0)
        nothing = torch.zeros_like(likely)
        return {
            "loss": likely + unlikely,
            "lm_loss": likely,
            "token_loss": unlikely,
            "sequence_loss": nothing,
        }

    def _sequences(self, policy: Policy, rows: Rows, precision: Precision) -> dict[str, Tensor]:
        prompts = [
            [*prompt, *text[: self.how.prefix]]
            for prompt, text in zip(rows.prompts, rows.responses, strict=True)
        ]
        written = greedy(policy, prompts, self.how.continuation, precision)
        found = self._each(
            policy,
            prompts,
            written,
            precision,
            lambda logits, ids: sequence_loss(logits, ids, self.how.ngram),
        )
        tokens = torch.tensor(
            [len(text) / len(w) for text, w in zip(rows.responses, written, strict=True)]
        )
        total = (torch.stack(found) * tokens.to(found[0].device)).sum()
        nothing = torch.zeros_like(total)
        return {"loss": total, "lm_loss": nothing, "token_loss": nothing, "sequence_loss": total}

    def _each(
        self,
        policy: Policy,
        prompts: Sequence[list[int]],
        texts: Sequence[list[int]],
        precision: Precision,
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> list[Tensor]:
        """The loss of each text; backward computes the logits again, one text at a time."""
        with autocast(policy, precision):
            hidden = response_hidden(policy, prompts, texts)
        dtype = DTYPES[precision]

        def of(states: Tensor, ids: Tensor) -> Tensor:
            return loss(states.to(dtype) @ policy.head.to(dtype).T, ids)

        found = []
        for states, text in zip(hidden.split(list(map(len, texts))), texts, strict=True):
            ids = torch.tensor(text, device=hidden.device)
            found.append(checkpoint(of, states, ids, use_reentrant=False))
        return found


@torch.no_grad()
def greedy(
    policy: Policy, prompts: Sequence[Sequence[int]], tokens: int, precision: Precision
) -> list[list[int]]:
    """Greedy continuations of the prompts: the likeliest token each time; (prompts, tokens) ids.

    No text ends early: end ids are excluded, so that all rows have equal weight.
    """
    with autocast(policy, precision):
        decoding = Plain(policy).read(prompts)
        written = []
        for _ in range(tokens):
            written.append(decoding.next_token(policy.end_ids).logits.argmax(-1))
            decoding.feed(written[-1])
    ids: list[list[int]] = torch.stack(written, dim=1).tolist()
    return ids


def _log_not(log_p: Tensor) -> Tensor:
    """log(1 - p), from log p."""
    return (1 - log_p.exp()).clamp(min=SMALLEST).log()
