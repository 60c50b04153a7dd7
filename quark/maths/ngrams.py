"""Repetition on one page: the share of a text's n-grams that occurred in it before.

    rep-n       1 - distinct n-grams / n-grams            over the n-grams of one text
    diversity   product over n = 2, 3, 4 of (1 - rep-n)   1: nothing twice, 0: nothing new

(Welleck et al. 2020; Su et al. 2022, SimCTG: `diversity` is theirs, as a share and not in per
cent.) Over several texts both counts are made in each text separately and then added up. A text of
fewer than n units has no n-gram: rep-n is not defined for it alone. The `diversity` of a text
without 4-grams is 0, so that an early end earns no reward.

Departure: SimCTG's `evaluation.py` leaves out the last n-gram of each text by a loop that ends one
step early; here all count (protocol 5).
"""

from collections.abc import Hashable, Sequence
from math import prod

ORDERS = (2, 3, 4)
"""The n of `diversity`."""


def counts(text: Sequence[Hashable], n: int) -> tuple[int, int]:
    """Distinct n-grams of a text, and all of them."""
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    return len(set(grams)), len(grams)


def rep_n(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """1 - distinct / all n-grams, in [0, 1); NaN if there is no n-gram at all.

    Args:
        texts: words or token ids of each text.
        n: 1 or more.
    """
    distinct, every = map(sum, zip((0, 0), *(counts(text, n) for text in texts), strict=True))
    return 1 - distinct / every if every else float("nan")


def diversity(texts: Sequence[Sequence[Hashable]]) -> float:
    """Product of 1 - rep-n for n = 2, 3, 4, in [0, 1]; 0 where the texts have no 4-gram."""
    if not any(len(text) >= max(ORDERS) for text in texts):
        return 0.0
    return prod(1 - rep_n(texts, n) for n in ORDERS)
