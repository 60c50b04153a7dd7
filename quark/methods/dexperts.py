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
from pathlib import Path

from torch import Tensor

from quark import config
from quark.checkpoint import load_policy
from quark.config import Precision
from quark.decoding import Decoder, Decoding, Guidance, Guided, Plain
from quark.lm import Policy, load_model


@dataclass
class _Experts:
    expert: Decoding
    anti: Decoding
    alpha: float

    def adjust(self, logits: Tensor) -> Tensor:
        expert, anti = (each.law().logits.float() for each in (self.expert, self.anti))
        return logits + self.alpha * (expert - anti)

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
        self.models: Sequence[Policy] = [expert, anti]

    def read(self, prompts: Sequence[Sequence[int]]) -> Guidance:
        """Both read the prompts."""
        return _Experts(
            Plain(self.expert).read(prompts), Plain(self.anti).read(prompts), self.alpha
        )


def decoder(
    model: Path, parts: Sequence[Path], settings: config.DExperts, precision: Precision
) -> Decoder:
    """The base model under the experts whose checkpoints `parts` holds: expert, anti-expert."""
    expert, anti = (load_policy(model, part, precision) for part in parts)
    return Guided(load_model(model, precision), DExperts(expert, anti, settings.alpha))
