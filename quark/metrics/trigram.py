"""The log-likelihood of texts under a trigram model of words: a judge that no method is held near.

A perplexity under the base model favours methods with a KL penalty to that model. The trigram model
was made for speech recognition from other texts: the US English model of CMU Sphinx, which comes
with the package pocketsphinx, 72 545 words. It reads only the two words before each word, so it
measures common wording and not sense.
"""

import logging
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOG = logging.getLogger(__name__)
BASE = 1.0001
"""The base of the library's logarithms, which are whole numbers."""
WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")


def word_likelihoods(texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum of log p(word | two words before) of each text, and how many words it is over.

    Words that the model does not know are left out of both. A text's first word is read without
    context, so prompts play no part.

    Returns:
        (n,) in nats and (n,) counts; NaN for texts without a known word, and for all if
        pocketsphinx is not installed.
    """
    model = _model()
    known = [_known(model, text) if model else [] for text in texts]
    total = [sum(words) if words else np.nan for words in known]
    count = [len(words) or np.nan for words in known]
    return np.array(total, np.float64), np.array(count, np.float64)


def _known(model: Any, text: str) -> list[float]:
    """Return log p of each word of a text that the model knows, in nats."""
    words = WORD.findall(text.lower().replace("\u2019", "'"))
    newest_first = (words[max(0, i - 2) : i + 1][::-1] for i in range(len(words)))
    found = map(model.prob, newest_first)
    return [log * math.log(BASE) for log in found if log > _unknown(model)]


@cache
def _unknown(model: Any) -> int:
    """Return the logarithm that stands for a probability of 0."""
    zero: int = model.prob(["-"])
    return zero


@cache
def _model() -> Any:
    try:
        import pocketsphinx
    except ModuleNotFoundError:
        LOG.warning("pocketsphinx is not installed: no perplexity under the trigram model")
        return None
    alone = pocketsphinx.Config(hmm=None, lm=None, dict=None)
    file = pocketsphinx.get_model_path("en-us/en-us.lm.bin")
    return pocketsphinx.NGramModel(alone, pocketsphinx.LogMath(BASE), file)
