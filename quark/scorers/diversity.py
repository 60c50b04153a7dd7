"""The scorer of the repetition task: how little a continuation repeats itself."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quark.maths.ngrams import diversity


class Diversity:
    """`quark.ngrams.diversity` of the continuation's words, split at white space.

    The paper's reward counts unique n-grams; its exact form was not found (protocol 4). A
    continuation of fewer than four words gets 0.
    """

    name = "diversity"
    version = "1"

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return the diversity of each continuation in [0, 1], shape (n,); never NaN.

        Raises:
            ValueError: `prompts` and `responses` differ in length.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts, but {len(responses)} responses")
        return np.array([diversity([text.split()]) for text in responses], dtype=np.float64)
