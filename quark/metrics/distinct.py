"""dist-n: how varied the generations of one prompt are (Li et al. 2016; protocol 5).

As in the official code and in DExperts, distinct n-grams are pooled over the generations
of a prompt and divided by the number of *words*, not of n-grams, so dist-2 and dist-3 of short
texts cannot reach 1. Words are separated by single spaces: "a  b" has an empty word in the
middle, " a" one in front, and the empty text is one empty word (one distinct 1-gram, no 2-gram).
The only departure: our n-grams are tuples; the official code joins words with "_", which makes
("a_b", "c") and ("a", "b_c") equal.
"""

from collections.abc import Sequence


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return distinct n-grams over all `texts` of one prompt / words in them.

    Raises:
        ValueError: there is no text, or n is below 1.
    """
    if not texts or n < 1:
        raise ValueError(f"dist-{n} of {len(texts)} texts: needs a text and n of at least 1")
    words = [text.split(" ") for text in texts]
    ngrams = {tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)}
    return len(ngrams) / sum(map(len, words))
