"""The interface between the sampler and a decoding method: next-token logits, then the next token.

A plain policy gives its own logits. A `Guide`, such as DExperts or GeDi, changes them; its models
read the same text with caches of their own. A method that steers in another way is a
`Decoder` itself; PPLM, for example, changes the cache. `GuideProcessor` is a guide for
transformers' `generate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import LogitsProcessor, TopPLogitsWarper

from quark.models.decode_state import DecodeState, read
from quark.models.lm import Policy
from quark.models.reward_tokens import LinearTokens


class NextToken(NamedTuple):
    """The logits of the next token.

    `logits`: (rows, V), of the policy's precision or float32.
    `nucleus_of`: (rows, V) logits whose nucleus bounds the draw; None: `logits` themselves.
    """

    logits: Tensor
    nucleus_of: Tensor | None = None


class Decoding(Protocol):
    """Texts being written, row by row."""

    @property
    def hidden(self) -> Tensor:
        """The policy's last hidden states (rows, d), which predict the next token."""

    def next_token(self, forbidden: Sequence[int] = ()) -> NextToken:
        """The distribution of the next token, in which the forbidden ids are impossible."""

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows; not between `next_token` and `feed`."""

    def feed(self, ids: Tensor) -> None:
        """Append a token to each row, (rows,), drawn from the last `next_token`."""


class Decoder(Protocol):
    """A model or method that continues prompts.

    `policy`: gives the vocabulary, the context and the end ids.
    `models`: all models whose weights and caches take memory, including the policy.
    """

    policy: Policy
    models: Sequence[Policy]

    def read(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Read prompts of token ids."""


@dataclass
class _Plain:
    reading: DecodeState

    @property
    def hidden(self) -> Tensor:
        return self.reading.hidden

    def next_token(self, forbidden: Sequence[int] = ()) -> NextToken:
        logits = self.reading.hidden @ self.reading.policy.head.T
        logits[:, list(forbidden)] = -torch.inf
        return NextToken(logits)

    def select(self, rows: Tensor) -> None:
        self.reading.select(rows)

    def feed(self, ids: Tensor) -> None:
        self.reading.feed(ids[:, None], torch.ones_like(ids, dtype=torch.bool)[:, None])


class Plain:
    """The decoder of a policy by its own next-token logits.

    Args:
        policy: the policy; linear reward tokens must be put at a place first (`Policy.steer`).
        quantile: the reward token before every prompt; None: prompts include theirs.

    Raises:
        ValueError: linear reward tokens are not fixed at a place.
    """

    def __init__(self, policy: Policy, quantile: int | None = None) -> None:
        if isinstance(policy.reward_tokens, LinearTokens):
            raise ValueError("linear reward tokens are at no place: call policy.steer() first")
        self.policy, self.quantile = policy, quantile
        self.models: Sequence[Policy] = [policy]

    def read(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Read prompts, under the reward token if there is one."""
        conditioned = [self.policy.condition(prompt, self.quantile) for prompt in prompts]
        return _Plain(read(self.policy, conditioned))


# --------------------------------------------------------------------------------------- guides
class Guidance(Protocol):
    """A guide's state for the texts being written; rows as in the guided `Decoding`."""

    def adjust(self, logits: Tensor) -> Tensor:
        """The guided logits (rows, V), given the policy's own; both float32.

        Impossible tokens (-inf) stay impossible, and at least one token stays possible.
        """

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""

    def feed(self, ids: Tensor) -> None:
        """Append a token to each row, (rows,)."""


class Guide(Protocol):
    """Other models that change the distribution of a policy's next token.

    `models`: the models whose weights and caches take memory besides the policy's.
    `within_base`: the nucleus is that of the policy's own distribution, not of the guided one.
    """

    models: Sequence[Policy]
    within_base: bool

    def read(self, prompts: Sequence[Sequence[int]], guided: Decoding | None = None) -> Guidance:
        """Read prompts of token ids.

        Args:
            prompts: token ids of each prompt.
            guided: the policy's own decoding of them; only its hidden states may be used.
        """


@dataclass
class _Guided:
    plain: Decoding
    guidance: Guidance
    within_base: bool

    @property
    def hidden(self) -> Tensor:
        return self.plain.hidden

    def next_token(self, forbidden: Sequence[int] = ()) -> NextToken:
        logits = self.plain.next_token(forbidden).logits.float()
        return NextToken(self.guidance.adjust(logits), logits if self.within_base else None)

    def select(self, rows: Tensor) -> None:
        self.plain.select(rows)
        self.guidance.select(rows)

    def feed(self, ids: Tensor) -> None:
        self.plain.feed(ids)
        self.guidance.feed(ids)


@dataclass
class _Contrast:
    wanted: Decoding
    unwanted: Decoding
    alpha: float

    def adjust(self, logits: Tensor) -> Tensor:
        wanted, unwanted = (
            each.next_token().logits.float() for each in (self.wanted, self.unwanted)
        )
        return logits + self.alpha * (wanted - unwanted)

    def select(self, rows: Tensor) -> None:
        self.wanted.select(rows)
        self.unwanted.select(rows)

    def feed(self, ids: Tensor) -> None:
        self.wanted.feed(ids)
        self.unwanted.feed(ids)


class Contrast:
    """A guide: logits + alpha (wanted - unwanted), within the guided policy's own nucleus.

    Args:
        wanted: the decoder of wanted text.
        unwanted: the decoder of unwanted text.
        alpha: how strongly they steer; 0: not at all.
    """

    within_base = True

    def __init__(self, wanted: Decoder, unwanted: Decoder, alpha: float) -> None:
        self.wanted, self.unwanted, self.alpha = wanted, unwanted, alpha
        self.models: Sequence[Policy] = [*wanted.models, *unwanted.models]

    def read(self, prompts: Sequence[Sequence[int]], guided: Decoding | None = None) -> Guidance:
        """Both read the prompts."""
        return _Contrast(self.wanted.read(prompts), self.unwanted.read(prompts), self.alpha)


class Guided:
    """The decoder of a policy under a guide."""

    def __init__(self, policy: Policy, guide: Guide) -> None:
        self.policy, self.guide = policy, guide
        self.models: Sequence[Policy] = [policy, *guide.models]

    def read(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Policy and guide read the same prompts, each with a cache of its own."""
        plain = Plain(self.policy).read(prompts)
        return _Guided(plain, self.guide.read(prompts, plain), self.guide.within_base)


class BaseStates:
    """The base model's last hidden states of the texts being written, for a guide that is a map.

    Args:
        base: the base model.
        prompts: token ids of each prompt.
        guided: the guided policy's decoding of them, which reads the texts; None: `base` reads
            them here.
    """

    def __init__(
        self, base: Policy, prompts: Sequence[Sequence[int]], guided: Decoding | None
    ) -> None:
        self.decoding = guided or Plain(base).read(prompts)
        self._is_own = guided is None

    @property
    def hidden(self) -> Tensor:
        """(rows, d)."""
        return self.decoding.hidden

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        if self._is_own:
            self.decoding.select(rows)

    def feed(self, ids: Tensor) -> None:
        """Append a token to each row, (rows,)."""
        if self._is_own:
            self.decoding.feed(ids)


class GuideProcessor(LogitsProcessor):
    """A guide for transformers' `generate`: one processor for one call.

    Args:
        guide: DExperts, GeDi or another.
        prompts: token ids of each prompt, without padding, repeated as often as in `generate`.
        top_p: for a guide `within_base`, of the policy's own distribution; leave `generate`'s at 1.
    """

    def __init__(self, guide: Guide, prompts: Sequence[Sequence[int]], top_p: float = 1.0) -> None:
        self._guidance = guide.read(prompts)
        self._nucleus = TopPLogitsWarper(top_p)
        self._begun = False

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Guided scores (rows, V); `generate` calls this once for each new token."""
        if self._begun:
            self._guidance.feed(input_ids[:, -1])
        self._begun = True
        outside = self._nucleus(input_ids, scores.float()).isneginf()
        return self._guidance.adjust(scores.float()).masked_fill(outside, -torch.inf)
