"""What a language model predicts of real text (Welleck et al. 2020, section 5; protocol 5).

    acc     share of positions where the likeliest token is the text's own
    rep     share where the likeliest token stands among the last `window` tokens before it
    wrep    share where it does, and is not the text's own

Layer 3. Positions are those whose token is predicted; the first token of a text has nothing before
it and is none. Welleck's code averages `rep` and `wrep` over windows of 16, 32, 128 and 512 tokens;
`window=None` takes all that came before, as Click does.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WINDOWS = (16, 32, 128, 512)


def accuracy(predicted: NDArray[np.integer], text: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether each prediction is right, shape (T - 1,).

    Args:
        predicted: (T - 1,) the likeliest token at places 1 .. T - 1.
        text: (T,) the tokens.
    """
    right: NDArray[np.bool_] = predicted == text[1:]
    return right


def repeats(
    predicted: NDArray[np.integer], text: NDArray[np.integer], window: int | None
) -> NDArray[np.bool_]:
    """Whether each prediction stands among the `window` tokens before its place, shape (T - 1,)."""
    last: dict[int, int] = {}
    found = np.zeros(len(predicted), dtype=bool)
    for place, token in enumerate(predicted.tolist(), 1):
        last[int(text[place - 1])] = place - 1
        seen = last.get(token)
        found[place - 1] = seen is not None and (window is None or seen >= place - window)
    return found


def rates(
    predicted: Sequence[NDArray[np.integer]],
    texts: Sequence[NDArray[np.integer]],
    windows: Sequence[int | None] = WINDOWS,
) -> dict[str, float]:
    """`acc`, and `rep` and `wrep` averaged over `windows`, each over all positions of all texts.

    Raises:
        ValueError: no text has a second token.
    """
    right = np.concatenate([accuracy(p, t) for p, t in zip(predicted, texts, strict=True)])
    if not right.size:
        raise ValueError("no text has a second token to predict")
    again = [
        np.concatenate([repeats(p, t, w) for p, t in zip(predicted, texts, strict=True)])
        for w in windows
    ]
    return {
        "acc": float(right.mean()),
        "rep": float(np.mean([found.mean() for found in again])),
        "wrep": float(np.mean([(found & ~right).mean() for found in again])),
    }
