import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from quark.core.seeds import stream
from quark.metrics.bootstrap import interval
from quark.reporting.tables.intervals import metric_interval, paired_difference
from quark.tasks import Metric

METRIC = Metric(("value",), "value", 3, "")
RATIO = Metric(("sum", "count"), "ratio", 3, "", np.divide)


def frame(values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"value": values}, [f"p{i}" for i in range(len(values))])


def test_the_difference_is_paired() -> None:
    """A constant difference has no spread, however much the prompts differ."""
    one = frame(list(np.random.default_rng(0).random(50)))
    found = paired_difference(METRIC, [one + 0.25], [one], 100)
    assert found is not None
    ours, theirs, low, high = found
    assert ours - theirs == pytest.approx(0.25)
    assert (low, high) == pytest.approx((0.25, 0.25))


def test_seeds_are_paired_too() -> None:
    """What a seed adds to both methods is no difference between them."""
    ours = [frame([0.1, 0.2, 0.3]), frame([0.6, 0.7, 0.8])]
    theirs = [one - 0.05 for one in ours]
    found = paired_difference(METRIC, ours, theirs, 100)
    assert found == (pytest.approx(0.45), pytest.approx(0.4), *[pytest.approx(0.05)] * 2)


def test_prompts_without_a_value_in_one_count_in_neither() -> None:
    ours, theirs = frame([1.0, 5.0, np.nan]), frame([2.0, np.nan, 7.0])
    assert paired_difference(METRIC, [ours], [theirs], 10) == (1, 2, -1, -1)
    assert paired_difference(METRIC, [ours], [theirs * np.nan], 10) is None
    # no prompt has a value in both
    assert paired_difference(METRIC, [ours], [theirs[1:]], 10) is None


def test_the_order_of_the_prompts_does_not_matter() -> None:
    ours, theirs = frame([1.0, 5.0, 3.0]), frame([2.0, 9.0, 7.0])
    assert paired_difference(METRIC, [ours], [theirs], 50) == paired_difference(
        METRIC, [ours], [theirs[::-1]], 50
    )


def test_a_ratio_of_nothing_has_no_difference() -> None:
    known = pd.DataFrame({"sum": [4.0], "count": [2]}, ["p"])
    assert paired_difference(RATIO, [known], [known * 0], 10) is None
    assert paired_difference(RATIO, [known], [known * [1, 2]], 10) == (2, 1, 1, 1)


def test_a_prompt_without_a_perplexity_is_drawn_but_counts_nothing() -> None:
    counted = pd.DataFrame({"sum": [4.0, 0.0], "count": [2, 0]}, ["p", "q"])
    assert metric_interval(RATIO, [counted], 50) == (2, 2)


def test_a_share_of_prompts_has_wilsons_interval() -> None:
    """Also over seeds, whose average of a prompt may lie between 0 and 1."""
    share = Metric(("value",), "share", 3, "", share=True)
    want = binomtest(3, 3).proportion_ci(method="wilson")
    assert metric_interval(share, [frame([1.0, 1.0, 1.0, np.nan])], 50) == pytest.approx(
        tuple(want)
    )
    want = binomtest(1, 2).proportion_ci(method="wilson")
    assert metric_interval(share, [frame([1.0, 0.0]), frame([0.0, 1.0])], 50) == pytest.approx(
        tuple(want)
    )


def test_another_metric_has_the_bootstraps() -> None:
    values = np.random.default_rng(0).random((2, 9))
    want = interval([values], lambda mean: mean, 80, stream("bootstrap", "a", "b"))
    assert metric_interval(METRIC, [frame(list(row)) for row in values], 80, "a", "b") == want
