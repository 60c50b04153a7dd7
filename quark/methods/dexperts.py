"""DExperts: steer by an expert and an anti-expert (Liu et al. 2021, ACL).

    logits = base + alpha (expert - anti-expert)

Expert and anti-expert are the base model, trained further on wanted text and on unwanted text.
Tokens outside the nucleus of the *base* distribution are never drawn; within it, tokens are
drawn from the guided distribution without further truncation (official
`generation/dexperts_generation.py`; protocol 6). alpha is 2.0 for toxicity in the paper; alpha 0 is
the base model.

Departures: keys and values are cached, whereas the official code reads the whole text again for
each token and filters the base logits at every position; and layers that an expert shares with the
base model are run once (`quark.models.shared_layers`).
"""

from collections.abc import Sequence
from pathlib import Path

from quark import config
from quark.config import Precision
from quark.generation.decoding import Contrast, Decoder, Guided, Plain
from quark.models.checkpoint import load_policy
from quark.models.lm import load_model
from quark.models.shared_layers import share_trunk


def decoder(
    model: Path, parts: Sequence[Path], settings: config.Contrast, precision: Precision
) -> Decoder:
    """The decoder of the base model with expert and anti-expert, whose checkpoints are `parts`."""
    base = load_model(model, precision)
    trained = (load_policy(model, part, precision) for part in parts)
    expert, anti = (Plain(share_trunk(base, policy)) for policy in trained)
    return Guided(base, Contrast(expert, anti, settings.alpha))
