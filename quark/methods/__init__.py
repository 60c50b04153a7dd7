"""Quark and what the table compares it with; one method a file, which never imports another.

`DECODERS` holds, for each method that is no plain policy, what makes its decoder: a function of
the model's directory, the checkpoints of its parts, its settings and the precision.
"""

from collections.abc import Callable

from quark.decoding import Decoder
from quark.methods import ctrl, dexperts, gedi, guided, pplm

DECODERS: dict[str, Callable[..., Decoder]] = {
    "ctrl": ctrl.decoder,
    "dexperts": dexperts.decoder,
    "gedi": gedi.decoder,
    "ppo": guided.decoder,  # if it has a place
    "pplm": pplm.decoder,
    "quark_guided": guided.decoder,
}

__all__ = ["DECODERS"]
