"""The task of any reward, on numbers worked out by hand."""

import numpy as np
import pandas as pd

from quark.tasks import TASKS, Generations

NAN = float("nan")
TASK = TASKS["reward"]


def test_the_reward_is_the_score() -> None:
    scores = np.array([0.0, 0.3, 1.0])
    np.testing.assert_array_equal(TASK.reward(scores), scores)


def test_columns() -> None:
    scores = np.array([0.9, 0.5, 0.1, NAN, 0.6, NAN])
    prompt = np.array([0, 0, 0, 0, 1, 2])
    nats = np.full(len(scores), -3.0)
    made = Generations(prompt, scores, nats, [""] * 6, threshold=0.5, second=scores[::-1])
    found = TASK.by_prompt(made)
    np.testing.assert_allclose(found["mean_reward"], [0.5, 0.6, NAN])
    np.testing.assert_allclose(found["pct_above"], [100 / 3, 100, NAN])  # 0.5 is not above 0.5
    np.testing.assert_allclose(found["mean_reward_second"], [0.35, 0.5, 0.9])
    alone = TASK.by_prompt(Generations(prompt, scores, nats, [""] * 6, threshold=0.5))
    assert TASK.metrics["mean_reward_second"].over(pd.DataFrame(alone)) is None
