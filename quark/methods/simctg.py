"""SimCTG: contrastive training and contrastive search (Su et al. 2022, NeurIPS).

Training pushes the hidden states of a text apart, s being the cosine and rho the margin:

    loss(x) = -1/T sum_t log p_t(x_t)  +  1/(T (T-1)) sum_{i != j} max(0, rho - 1 + s(h_i, h_j))

Search takes, among the k likeliest next tokens, the one with the highest

    (1 - alpha) p(v)  -  alpha max_j s(h_v, h_j)        h_v: last hidden state after reading v

over all tokens j so far, prompt included. It draws nothing at random. rho 0 trains without
contrast; alpha 0 is greedy search. Published: rho 0.5, k 8, alpha 0.6 (protocol 6).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from quark.config import Precision
from quark.generation.decoding import Decoding, NextToken
from quark.models.decode_state import DecodeState, read_padded
from quark.models.lm import Policy, pad
from quark.training.trainer import Rows, response_tokens


def contrast(hidden: Tensor, margin: float) -> Tensor:
    """The contrastive term of one text, a scalar; 0 for a text of one token.

    Args:
        hidden: (T, d) last hidden states.
        margin: rho.
    """
    time = len(hidden)
    if time < 2:
        return hidden.new_zeros(())
    unit = functional.normalize(hidden.float(), dim=-1)
    close = (margin - 1 + unit @ unit.T).clamp(min=0)
    return (close.sum() - close.diagonal().sum()) / (time * (time - 1))


class Loss:
    """The loss above, where each text's loss is multiplied by T: long texts have more weight.

    The hidden states are those that predict the text's tokens: the state of the last token before
    the text, and the states of all its tokens but the last.

    Args:
        margin: rho.
    """

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def __call__(
        self, policy: Policy, rows: Rows, precision: Precision, step: int
    ) -> dict[str, Tensor]:
        """Sums over the tokens of some rows: `loss`, and its terms `lm_loss` and `contrast`."""
        hidden, log_p = response_tokens(policy, rows.prompts, rows.responses, precision)
        likely = -log_p.sum()
        texts = hidden.split(list(map(len, rows.responses)))
        apart = torch.stack([len(text) * contrast(text, self.margin) for text in texts]).sum()
        return {"loss": likely + apart, "lm_loss": likely, "contrast": apart}


class ContrastiveSearch:
    """The decoder of contrastive search.

    Args:
        policy: the policy that is decoded; no reward token.
        k: candidates for each token.
        alpha: weight of the similarity.
    """

    def __init__(self, policy: Policy, k: int, alpha: float) -> None:
        self.policy, self.k, self.alpha = policy, k, alpha
        self.models: Sequence[Policy] = [policy] * (1 + k)  # each candidate has a cache

    def read(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Read the prompts and remember their hidden states."""
        return _Search(self, prompts)


class _Search:
    """Texts being written; `past` (rows, time, d) their unit hidden states, 0 at padding."""

    def __init__(self, search: ContrastiveSearch, prompts: Sequence[Sequence[int]]) -> None:
        self.search = search
        ids, real = pad(prompts, "left")
        self.reading, states = read_padded(search.policy, ids, real)
        self.past = functional.normalize(states.float(), dim=-1) * real[..., None]
        self._tried: tuple[Tensor, DecodeState, Tensor] | None = None

    @property
    def hidden(self) -> Tensor:
        return self.reading.hidden

    def next_token(self, forbidden: Sequence[int] = ()) -> NextToken:
        """The distribution that has all probability on the token that the search chose."""
        search = self.search
        logits = self.reading.hidden @ search.policy.head.T
        logits[:, list(forbidden)] = -torch.inf
        probs, tokens = logits.softmax(-1, dtype=torch.float32).topk(search.k, dim=-1)
        ahead = self.reading.fork()
        rows = torch.arange(len(tokens), device=tokens.device)
        ahead.select(rows.repeat_interleave(search.k))
        flat = tokens.flatten()
        ahead.feed(flat[:, None], torch.ones_like(flat, dtype=torch.bool)[:, None])
        states = functional.normalize(ahead.hidden.float(), dim=-1).view(len(rows), search.k, -1)
        alike = (states @ self.past.transpose(1, 2)).masked_fill(
            ~self.reading.real[:, None, :], -torch.inf
        )
        worth = (1 - search.alpha) * probs - search.alpha * alike.amax(-1)
        best = worth.masked_fill(probs == 0, -torch.inf).argmax(-1)
        self._tried = best + rows * search.k, ahead, states[rows, best]
        chosen = tokens[rows, best]
        found = torch.full_like(logits, -torch.inf)
        return NextToken(found.scatter(-1, chosen[:, None], 0.0))

    def select(self, rows: Tensor) -> None:
        self.reading.select(rows)
        self.past = self.past[rows]

    def feed(self, ids: Tensor) -> None:
        """Continue from the state that the search has read; `ids` are the tokens it chose."""
        assert self._tried is not None, "a token is fed after `next_token` has chosen it"
        rows, ahead, state = self._tried
        ahead.select(rows)
        self.reading, self._tried = ahead, None
        self.past = torch.cat([self.past, state[:, None]], dim=1)
