"""MAUVE: how close a set of texts is to a set of real ones (Pillutla et al. 2021, NeurIPS).

The package `mauve-text` clusters features of both sets and compares their histograms; it
is under GPL-3 and therefore an extra (`pip install mauve-text`), imported here alone. A few
thousand texts of each kind are needed; with fewer the number says little.
"""

import numpy as np
from numpy.typing import NDArray

from quark.config import Mauve


class MauveError(RuntimeError):
    """MAUVE cannot be computed; the text says what to do."""


def mauve(real: NDArray[np.float32], written: NDArray[np.float32], how: Mauve) -> float:
    """Return MAUVE in [0, 1]; 1: the two sets have the same histogram.

    Args:
        real: (n, d) features of real texts.
        written: (m, d) features of the texts to be measured.
        how: buckets (null: a tenth of the smaller set), scaling factor, seed of the clusters.

    Raises:
        MauveError: the package is missing, or there are fewer texts than buckets.
    """
    try:
        from mauve import compute_mauve
    except ImportError as error:
        raise MauveError(
            f"evaluation.mauve needs the package mauve-text ({error}); install it, or set "
            "evaluation.mauve to null"
        ) from error
    fewest = min(len(real), len(written))
    buckets = how.buckets or max(2, round(fewest / 10))
    if fewest < buckets:
        raise MauveError(f"{fewest} texts cannot fill evaluation.mauve.buckets = {buckets}")
    found = compute_mauve(
        p_features=real,
        q_features=written,
        num_buckets=buckets,
        mauve_scaling_factor=how.scaling,
        seed=how.seed,
    )
    return float(found.mauve)
