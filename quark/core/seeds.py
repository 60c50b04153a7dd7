"""Random streams, each named after its use.

It imports no torch. Every random draw of the project comes from a stream whose name holds
the seed, the task, the method, the iteration, the stage and often the row. So a stage draws
the same numbers when it runs again, alone, in shards or in other batches.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stream(*name: str | int) -> np.random.Generator:
    """The generator named `name`; equal names give equal numbers on every machine."""
    digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def ranks(name: str, rows: Sequence[str]) -> NDArray[np.uint64]:
    """A pseudo-random number for each row, to order rows independently of their positions.

    SipHash of the row under a key made from `name`: a million rows take a tenth of a second.
    """
    from pandas.util import hash_array  # here: streams need no pandas

    key = hashlib.sha256(name.encode()).hexdigest()[:16]
    return hash_array(np.array(rows, dtype=object), hash_key=key, categorize=False)
