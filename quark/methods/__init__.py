"""Quark and the methods that it is compared with; one file each, which imports no other method."""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from quark.config.registry import parts, spec

if TYPE_CHECKING:  # a method's file may import no torch: the workflow reads its spec
    from quark.generation.decoding import Decoder
    from quark.training.fitting import Fit
    from quark.training.rounds import Learner


def decoder_of(method: str) -> "Callable[..., Decoder]":
    """The function that makes a method's decoder.

    Its arguments are the model's directory, the checkpoints of the method's parts, its settings and
    the precision.

    Raises:
        ValueError: there is no such method, or it decodes as a plain policy.
    """
    place = spec(method).decoder
    if place is None:
        raise ValueError(f"{method} has no decoder of its own")
    found: Callable[..., Decoder] = resolve_name(place)
    return found


def fit_of(part: str) -> "Fit":
    """The function that trains a part of a method on the corpus.

    Raises:
        KeyError: no method has such a part.
    """
    found: Fit = resolve_name(parts()[part].fit)
    return found


def learner_of(method: str) -> "Learner":
    """The function that trains a method on the scored samples of a round.

    Raises:
        ValueError: there is no such method, or it has no learner of its own.
    """
    rounds = spec(method).rounds
    if rounds is None or rounds.learner is None:
        raise ValueError(f"{method} has no learner of its own")
    found: Learner = resolve_name(rounds.learner)
    return found
