"""Quark and what the table compares it with; one method a file, which never imports another.

`DECODERS` finds the decoder of a method that steers the base model, by the type of its settings: a
function of the model's directory, the checkpoints of its parts, the settings and the precision.
"""

from collections.abc import Callable

from quark import config
from quark.decoding import Decoder
from quark.methods import dexperts, gedi, pplm

DECODERS: dict[type, Callable[..., Decoder]] = {
    config.DExperts: dexperts.decoder,
    config.GeDi: gedi.decoder,
    config.PPLM: pplm.decoder,
}

__all__ = ["DECODERS"]
