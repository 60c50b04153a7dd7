import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark.maths.ngrams import diversity, rep_n

TEXTS = st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=5)


@given(TEXTS, st.integers(1, 4))
def test_rep_n_counts_what_came_before(texts: list[list[int]], n: int) -> None:
    """Against the other definition: the share of n-grams that stand earlier in their text."""
    again = every = 0
    for text in texts:
        joined = [
            "-".join(map(str, text[i : i + n])) for i in range(len(text)) if i + n <= len(text)
        ]
        again += sum(count - 1 for count in Counter(joined).values())
        every += len(joined)
    found = rep_n(texts, n)
    assert math.isnan(found) if not every else found == pytest.approx(again / every, abs=1e-12)


def test_diversity_by_hand() -> None:
    # 2-grams: ab bc ca ab bc (3 of 5); 3-grams: abc bca cab abc (3 of 4); 4-grams: 3 of 3
    assert diversity(["abcabc"]) == pytest.approx(3 / 5 * 3 / 4 * 1)
    assert diversity(["abcdef"]) == 1
    assert diversity(["aaaaaa"]) == pytest.approx(1 / 5 * 1 / 4 * 1 / 3)
    # n-grams of two texts do not meet
    assert diversity(["abcd", "abcd"]) == 1


def test_a_text_that_ends_early_earns_nothing() -> None:
    assert diversity([]) == diversity(["abc"]) == diversity([""]) == 0
    assert diversity(["abc", "abcd"]) == 1
