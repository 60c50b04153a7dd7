"""DExperts: steer by an expert and an anti-expert (Liu et al. 2021, ACL).

    logits = base + alpha (expert - anti-expert)

Expert and anti-expert are the base model, further trained on text that is wanted and on text that
is not. Tokens outside the nucleus of the *base* law are never drawn; within it, tokens are drawn
from the guided law without further truncation (official `generation/dexperts_generation.py`;
protocol 6). alpha is 2.0 for toxicity in the paper; alpha 0 is the base model.

Departure: caches of keys and values, where the official code reads the whole text again for each
token and filters the base logits at every position.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from quark.decoding import Decoding, Guidance, Plain
from quark.lm import Policy


@dataclass
class _Experts:
    expert: Decoding
    anti: Decoding
    alpha: float

    def adjust(self, logits: Tensor) -> Tensor:
        return logits + self.alpha * (self.expert.law().logits - self.anti.law().logits)

    def select(self, rows: Tensor) -> None:
        self.expert.select(rows)
        self.anti.select(rows)

    def feed(self, ids: Tensor) -> None:
        self.expert.feed(ids)
        self.anti.feed(ids)


class DExperts:
    """The guide.

    Args:
        expert: trained on wanted text.
        anti: trained on unwanted text.
        alpha: how strongly they steer.
    """

    within_base = True

    def __init__(self, expert: Policy, anti: Policy, alpha: float) -> None:
        self.expert, self.anti, self.alpha = expert, anti, alpha
        self.models = [expert, anti]

    def read(self, prompts: Sequence[Sequence[int]]) -> Guidance:
        """Both read the prompts."""
        return _Experts(
            Plain(self.expert).read(prompts), Plain(self.anti).read(prompts), self.alpha
        )
