import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark.metrics.repetition import sums

TOKENS = st.integers(0, 4)
TRIPLES = st.integers(0, 12).flatmap(
    lambda t: st.tuples(
        st.lists(TOKENS, min_size=t, max_size=t),
        st.lists(TOKENS, max_size=5),
        st.lists(TOKENS, min_size=t, max_size=t),
    )
)


@given(TRIPLES, st.lists(st.sampled_from([1, 2, 5, None]), min_size=1, max_size=3))
def test_against_slices(triple, windows):
    predicted, prompt, text = triple
    whole = [*prompt, *text]
    right = [guess == real for guess, real in zip(predicted, text, strict=True)]
    again, wrong = [], []
    for window in windows:
        places = range(len(prompt), len(whole))
        seen = [
            guess in whole[max(0, i - window) if window else 0 : i]
            for i, guess in zip(places, predicted, strict=True)
        ]
        again.append(sum(seen))
        wrong.append(sum(s and not r for s, r in zip(seen, right, strict=True)))
    assert sums(predicted, prompt, text, windows) == {
        "right": sum(right),
        "again": pytest.approx(np.mean(again)),
        "wrong_again": pytest.approx(np.mean(wrong)),
        "places": len(text),
    }


def test_by_hand():
    predicted, prompt, text = [7, 7, 8, 8], [7], [8, 7, 9, 7]
    # repeats, right (and repeats), repeats, repeats
    found = sums(predicted, prompt, text, [None])
    assert found == {"right": 1, "again": 4, "wrong_again": 3, "places": 4}
    # within two tokens: 7 | 7, 7 | 7 8, 8 | 8 7, 8 | 7 9
    assert sums(predicted, prompt, text, [2]) | {"again": 3, "wrong_again": 2} == sums(
        predicted, prompt, text, [2]
    )
