"""The local default scorer of sentiment: a lexicon and rules (Hutto & Gilbert 2014, VADER)."""

from collections.abc import Sequence
from importlib import metadata

import numpy as np
from numpy.typing import NDArray
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class Vader:
    """How positive a text is: (compound + 1) / 2, so 0.5 is neutral; never NaN.

    `vader` reads prompt and continuation as one text, as DExperts fed its classifier;
    `vader-continuation` the continuation alone. The two are not the same number (protocol 3).

    Args:
        whole: whether the prompt is read too.
    """

    version = metadata.version("vaderSentiment")

    def __init__(self, whole: bool = True) -> None:
        self.name = "vader" if whole else "vader-continuation"
        self.whole = whole
        self._score = SentimentIntensityAnalyzer().polarity_scores

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return the positivity of each text in [0, 1], shape (n,).

        Raises:
            ValueError: `prompts` and `responses` differ in length.
        """
        if len(prompts) != len(responses):
            raise ValueError(f"{len(prompts)} prompts, but {len(responses)} responses")
        texts = map("".join, zip(prompts, responses, strict=True)) if self.whole else responses
        compound = [self._score(text)["compound"] for text in texts]
        return (np.array(compound, dtype=np.float64) + 1) / 2


def continuation() -> Vader:
    """The scorer that ignores the prompt."""
    return Vader(whole=False)
