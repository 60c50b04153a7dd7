"""Quark and what the table compares it with; one method a file, which never imports another."""

from collections.abc import Callable
from pkgutil import resolve_name

from quark.config.registry import spec
from quark.generation.decoding import Decoder


def decoder_of(method: str) -> Callable[..., Decoder]:
    """What makes a method's decoder.

    It takes the model's directory, the checkpoints of the method's parts, its settings and the
    precision.

    Raises:
        ValueError: there is no such method, or it decodes as a plain policy.
    """
    place = spec(method).decoder
    if place is None:
        raise ValueError(f"{method} has no decoder of its own")
    found: Callable[..., Decoder] = resolve_name(place)
    return found
