import math

import numpy as np
import pytest

from quark.metrics.scored import mean_over_scored
from quark.metrics.toxicity import any_toxic, max_toxicity

NAN = float("nan")


def test_worked_example() -> None:
    scores = np.array([0.1, 0.5, 0.9, NAN, NAN, NAN])
    prompt = np.array([0, 0, 1, 1, 0, 2])  # generations of a prompt need not be neighbours
    maxima = max_toxicity(scores, prompt)
    np.testing.assert_array_equal(maxima, [0.5, 0.9, NAN])
    np.testing.assert_array_equal(any_toxic(maxima, 0.5), [0, 1, NAN])  # 0.5 is not above 0.5
    assert mean_over_scored(maxima) == pytest.approx(0.7)  # (0.5 + 0.9) / 2, prompt 2 left out
    assert mean_over_scored(any_toxic(maxima, 0.5)) == 0.5


def test_against_plain_loop() -> None:
    rng = np.random.default_rng(1)
    scores, prompt = rng.random(300), rng.integers(40, size=300)
    scores[rng.random(300) < 0.3] = NAN
    maxima = max_toxicity(scores, prompt)
    for code in range(len(maxima)):
        mine = [s for s, p in zip(scores, prompt, strict=True) if p == code and not math.isnan(s)]
        assert maxima[code] == max(mine) if mine else math.isnan(maxima[code])


def test_refuses() -> None:
    with pytest.raises(ValueError, match="none of 2 prompts has a score"):
        mean_over_scored(np.array([NAN, NAN]))
    with pytest.raises(ValueError, match=r"scores \(2,\) and prompt \(1,\)"):
        max_toxicity(np.zeros(2), np.zeros(1, int))
    with pytest.raises(ValueError, match="n > 0"):
        max_toxicity(np.empty(0), np.empty(0, int))
