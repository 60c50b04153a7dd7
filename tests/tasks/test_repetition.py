"""The repetition task's metrics, worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from quark.tasks import TASKS, Generations

TASK = TASKS["repetition"]
PREDICTIONS = pd.DataFrame(
    {
        "prompt_ids": [[7], [5, 6]],
        "text_ids": [[8, 7], [6, 5]],
        "predicted": [[7, 7], [6, 9]],  # repeats; repeats and right | repeats and right; new
        "nll": [math.log(4), math.log(16)],
    },
    index=["p", "q"],
)


def measured(texts: list[str], prompt: list[int]) -> pd.DataFrame:
    made = Generations(
        np.array(prompt),
        np.full(len(texts), 0.5),
        -np.arange(1.0, len(texts) + 1),
        texts,
        threshold=0.5,
        predictions=PREDICTIONS,
    )
    return pd.DataFrame(TASK.by_prompt(made))


def test_by_hand() -> None:
    found = measured(["a b a b a", "a b c d e", " x x\nx x x"], [0, 0, 1])
    # ab ba ab ba | 4 new | xx four times
    assert found["repeated2"].tolist() == [2, 3] and found["grams2"].tolist() == [8, 4]
    assert found["repeated3"].tolist() == [1, 2] and found["grams3"].tolist() == [6, 3]
    assert found["repeated4"].tolist() == [0, 1] and found["grams4"].tolist() == [4, 2]
    values = {name: metric.over(found) for name, metric in TASK.metrics.items()}
    assert values == pytest.approx(
        {
            "diversity": (1 - 5 / 12) * (1 - 3 / 9) * (1 - 1 / 6),
            "rep2": 500 / 12,
            "rep3": 300 / 9,
            "rep4": 100 / 6,
            "coherence": -((1 + 2) / 2 + 3) / 2,
            "ppl": 64 ** (1 / 4),
            "acc": 50,
            "rep": 75,  # within any window of 16 tokens and more
            "wrep": 25,
        }
    )
    assert set(found) == set(TASK.columns)


def test_metrics_take_many_means_at_once() -> None:
    found = measured(["a b a b a", "x y x x x"], [0, 1])
    for metric in TASK.metrics.values():
        means = [np.array([column.mean(), column[0]]) for column in metric.present(found)]
        assert metric.value(*means) == pytest.approx(
            [metric.over(found), metric.over(found.iloc[:1])]
        )


def test_texts_too_short_for_an_n_gram() -> None:
    found = measured(["a", "b c"], [0, 1])
    values = {name: metric.over(found) for name, metric in TASK.metrics.items()}
    assert [values[f"rep{n}"] for n in (2, 3, 4)] == [0, 0, 0]
    assert values["diversity"] == 0  # as the reward: nothing is new


def test_real_continuations_are_needed() -> None:
    with pytest.raises(ValueError, match="give predictions"):
        TASK.by_prompt(Generations(np.array([0]), np.ones(1), np.ones(1), ["a"], 0.5))
