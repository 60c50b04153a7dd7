import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark.core.seeds import ranks
from quark.maths.quantiles import edges, quantiles

few_values = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # so that there are ties


@given(st.data(), st.integers(1, 7))
def test_equal_parts_in_order(data: st.DataObject, k: int) -> None:
    values = st.one_of(few_values, st.floats(0, 1))
    rewards = np.array(data.draw(st.lists(values, min_size=k, max_size=40)))
    ties = ranks("seed", [str(i) for i in range(len(rewards))])
    quantile = quantiles(rewards, ties, k)

    sizes = np.bincount(quantile, minlength=k)
    assert len(sizes) == k and sizes.max() - sizes.min() <= 1
    by_hand = sorted(range(len(rewards)), key=lambda i: (-rewards[i], ties[i]))
    assert np.all(np.diff(quantile[by_hand]) >= 0)
    found = edges(rewards, quantile, k)
    assert found[0] == max(rewards) and found[-1] == min(rewards)
    assert found == sorted(found, reverse=True)


@given(st.permutations(range(12)))
def test_place_in_the_pool_does_not_matter(order: list[int]) -> None:
    rewards = np.array([0.5] * 9 + [1.0] * 3)
    ties = ranks("seed", [str(i) for i in range(12)])
    expected = quantiles(rewards, ties, 5)
    assert quantiles(rewards[order], ties[order], 5).tolist() == expected[order].tolist()


def test_ties_go_by_hash_not_by_age() -> None:
    old, new = np.arange(500), np.arange(500, 1000)
    quantile = quantiles(np.ones(1000), ranks("seed", [str(i) for i in range(1000)]), 5)
    best = quantile == 0
    # 100 of each half are expected; the hypergeometric deviation is 6.3, so 32 is five of them
    assert abs(int(best[old].sum()) - 100) < 32 and best.sum() == 200
    assert best[old].sum() + best[new].sum() == 200


def test_remainder_is_spread() -> None:
    quantile = quantiles(np.linspace(1, 0, 7), np.zeros(7, dtype=np.uint64), 3)
    assert quantile.tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_errors() -> None:
    ties = np.zeros(3, dtype=np.uint64)
    with pytest.raises(ValueError, match="row 1: reward is NaN"):
        quantiles(np.array([1, np.nan, 0]), ties, 2)
    with pytest.raises(ValueError, match="3 rows cannot be cut into 4"):
        quantiles(np.ones(3), ties, 4)
