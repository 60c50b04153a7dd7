"""Metrics of a model's predictions on real text (Welleck et al. 2020, section 5; protocol 5).

    acc     share of positions where the likeliest token is the text's own
    rep     share where the likeliest token is among the last `window` tokens before it
    wrep    share where it does, and is not the text's own

A text is predicted after its prompt, whose tokens count among those before a place.
Welleck's code averages `rep` and `wrep` over windows of 16, 32, 128 and 512 tokens; `window=None`
takes all earlier tokens, as Click does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOWS = (16, 32, 128, 512)


def repeats(
    predicted: Sequence[int], prompt: Sequence[int], text: Sequence[int], window: int | None
) -> NDArray[np.bool_]:
    """Whether each prediction is among the `window` tokens before its place; (T,).

    Args:
        predicted: (T,) the likeliest token in each place of the text.
        prompt: the tokens before the text.
        text: (T,) the real tokens.
        window: None: all tokens before the place.
    """
    last = {token: place for place, token in enumerate(prompt)}
    found = np.zeros(len(text), dtype=bool)
    for at, (guess, real) in enumerate(zip(predicted, text, strict=True)):
        place = len(prompt) + at
        seen = last.get(guess)
        found[at] = seen is not None and (window is None or seen >= place - window)
        last[real] = place
    return found


def sums(
    predicted: Sequence[int],
    prompt: Sequence[int],
    text: Sequence[int],
    windows: Sequence[int | None] = WINDOWS,
) -> dict[str, float]:
    """The counts that one text adds to the three shares, over its places.

    Returns:
        `right`; `again` and `wrong_again`, averaged over the windows; `places` to divide by.
    """
    right = np.array(predicted, dtype=np.int64) == np.array(text, dtype=np.int64)
    again = [repeats(predicted, prompt, text, window) for window in windows]
    return {
        "right": float(right.sum()),
        "again": float(np.mean([found.sum() for found in again])),
        "wrong_again": float(np.mean([(found & ~right).sum() for found in again])),
        "places": float(len(text)),
    }
