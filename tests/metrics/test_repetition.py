import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark.metrics.repetition import rates

PAIRS = st.lists(
    st.integers(1, 12).flatmap(
        lambda t: st.tuples(
            st.lists(st.integers(0, 4), min_size=t - 1, max_size=t - 1),
            st.lists(st.integers(0, 4), min_size=t, max_size=t),
        )
    ),
    min_size=1,
    max_size=4,
)


@given(PAIRS, st.lists(st.sampled_from([1, 2, 5, None]), min_size=1, max_size=3))
def test_against_slices(pairs, windows):
    predicted = [np.array(p, dtype=int) for p, _ in pairs]
    texts = [np.array(t, dtype=int) for _, t in pairs]
    rows = [(p, t, i) for p, t in pairs for i in range(1, len(t))]
    if not rows:
        with pytest.raises(ValueError, match="no text has a second token"):
            rates(predicted, texts, windows)
        return
    found = rates(predicted, texts, windows)
    assert found["acc"] == pytest.approx(np.mean([p[i - 1] == t[i] for p, t, i in rows]))
    rep = wrep = 0.0
    for window in windows:
        again = [p[i - 1] in t[max(0, i - (window or i)) : i] for p, t, i in rows]
        wrong = [p[i - 1] != t[i] for p, t, i in rows]
        rep += np.mean(again) / len(windows)
        wrep += np.mean(np.logical_and(again, wrong)) / len(windows)
    assert found["rep"] == pytest.approx(rep)
    assert found["wrep"] == pytest.approx(wrep)


def test_by_hand():
    text = np.array([7, 8, 7, 9, 7])
    predicted = np.array([7, 7, 8, 8])  # repeats, right (and repeats), repeats, repeats
    assert rates([predicted], [text], [None]) == {"acc": 0.25, "rep": 1.0, "wrep": 0.75}
    # within two tokens: 7 | 7 8, 7 | 8 7, 8 | 7 9, 8
    assert rates([predicted], [text], [2]) == {"acc": 0.25, "rep": 0.75, "wrep": 0.5}
