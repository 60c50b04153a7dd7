"""Guided Quark: decode at a place beyond the best reward token. Ours, not the paper's.

    logits = base + c/2 (policy under token 0 - policy under token K - 1)

A Quark policy has learned log p(y | x, quantile) for every quantile, so by Bayes' rule the bracket
is the log-odds of the best quantile against the worst, given the next token. The paper decodes
under the best token alone. Here the place c extrapolates, like classifier-free guidance (Ho &
Salimans 2022, "Classifier-free diffusion guidance") and like DExperts with two models. c 0 is the
base model. As in DExperts, only tokens within the nucleus of the base model are drawn: from few
samples the policy learns noise too, which would raise tokens that the base model never generates.

With linear reward tokens the formula is exactly the policy at place c of its map. It costs one pass
of the base model and a second product with its output embeddings. Other forms need three caches and
three passes. The maps of several parts are added: their shifts of the logits add up.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from quark import config
from quark.config import Precision
from quark.generation.decoding import (
    BaseStates,
    Contrast,
    Decoder,
    Decoding,
    Guidance,
    Guided,
    Plain,
)
from quark.models.checkpoint import load_policy
from quark.models.lm import ModelError, Policy, load_model
from quark.models.reward_tokens import LinearTokens


class _Shifted(BaseStates):
    """Linear reward tokens at a place, applied to the base model's hidden states."""

    def __init__(
        self,
        guide: "Extrapolation",
        prompts: Sequence[Sequence[int]],
        guided: Decoding | None,
    ) -> None:
        super().__init__(guide.base, prompts, guided)
        self.guide = guide

    def adjust(self, logits: Tensor) -> Tensor:
        head = self.guide.base.head
        shift = self.guide.tokens.shift(self.hidden, self.guide.place).to(head.dtype)
        return logits + (shift @ head.T).float()


class Extrapolation:
    """A guide: base logits + c h W E', within the nucleus of the base model's distribution.

    Args:
        base: the frozen base model, without reward tokens.
        tokens: linear reward tokens, which hold W.
        place: c.
    """

    within_base = True

    def __init__(self, base: Policy, tokens: LinearTokens, place: float) -> None:
        self.base, self.tokens, self.place = base, tokens, place
        self.models: Sequence[Policy] = []

    def read(self, prompts: Sequence[Sequence[int]], guided: Decoding | None = None) -> Guidance:
        """Use the hidden states of `guided`; without it, the base model reads the prompts."""
        return _Shifted(self, prompts, guided)


def decoder(
    model: Path, parts: Sequence[Path], settings: config.Place, precision: Precision
) -> Decoder:
    """The decoder of the base model guided by the policy in `parts`, at a place of its tokens.

    Raises:
        ModelError: the policy has no reward tokens; or a further part has no linear ones.
    """
    policy = load_policy(model, parts[0], precision)
    tokens = policy.reward_tokens
    if tokens is None:
        raise ModelError(f"{parts[0]}: holds no reward tokens to be guided by")
    for part in parts[1:]:
        other = load_policy(model, part, precision).reward_tokens
        if not isinstance(tokens, LinearTokens) or not isinstance(other, LinearTokens):
            raise ModelError(f"{part}: only linear reward tokens can be added")
        tokens.map.data += other.map.data
    if isinstance(tokens, LinearTokens):
        base = Policy(policy.lm)
        return Guided(base, Extrapolation(base, tokens, settings.place))
    best, worst = Plain(policy, 0), Plain(policy, tokens.count - 1)
    return Guided(load_model(model, precision), Contrast(best, worst, settings.place / 2))
