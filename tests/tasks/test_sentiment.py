import numpy as np
import pandas as pd
import pytest

from quark.tasks import TASKS, Generations

NAN = float("nan")


@pytest.mark.parametrize("name", ["sentiment_positive", "sentiment_negative"])
def test_both_directions_measure_the_same(name):
    scores = np.array([0.9, 0.5, 0.2, NAN, 0.6, NAN])
    prompt = np.array([0, 0, 0, 0, 1, 2])
    texts = [""] * len(scores)
    nats = np.full(len(scores), -3.0)
    made = Generations(prompt, scores, nats, texts, threshold=0.5, second=scores[::-1])
    found = TASKS[name].by_prompt(made)
    np.testing.assert_allclose(found["pct_positive"], [100 / 3, 100, NAN])  # 0.5 is not above 0.5
    np.testing.assert_allclose(found["pct_positive_second"], [50, 0, 100])
    alone = TASKS[name].by_prompt(Generations(prompt, scores, nats, texts, threshold=0.5))
    metric = TASKS[name].metrics["pct_positive_second"]
    assert metric.over(pd.DataFrame(alone)) is None
    assert metric.over(pd.DataFrame(found)) == 50


def test_rewards_are_opposite():
    scores = np.array([0.0, 0.3, 1.0])
    up, down = (TASKS[f"sentiment_{way}"].reward(scores) for way in ("positive", "negative"))
    np.testing.assert_allclose(up, scores)
    np.testing.assert_allclose(down, [1.0, 0.7, 0.0])


def test_published_splits_are_the_adverse_one_and_the_neutral():
    assert set(TASKS["sentiment_positive"].published.splits) == {"negative", "neutral", "all"}
    assert set(TASKS["sentiment_negative"].published.splits) == {"positive", "neutral", "all"}
