import numpy as np
import pytest
from scipy.stats import binomtest

from quark.metrics import bootstrap
from quark.metrics.bootstrap import interval, wilson


def mean(value: np.ndarray) -> np.ndarray:
    return value


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_against_slow_loop_on_the_same_draw(level: float) -> None:
    values, counts = _rng(1).random(13), _rng(2).integers(1, 5, 13).astype(float)
    draw = _rng().integers(13, size=(400, 13))
    means, ratios = [], []
    for row in draw:
        means.append(sum(values[i] for i in row) / 13)
        ratios.append(sum(values[i] for i in row) / sum(counts[i] for i in row))
    ends = [50 * (1 - level), 50 * (1 + level)]
    # both add the same 13 numbers, in another order: a few ulp
    np.testing.assert_allclose(
        interval([values], mean, 400, _rng(), level=level), np.percentile(means, ends), rtol=1e-13
    )
    np.testing.assert_allclose(
        interval([values, counts], np.divide, 400, _rng(), level=level),
        np.percentile(ratios, ends),
        rtol=1e-13,
    )


def test_seeds_against_slow_loop_on_the_same_draw() -> None:
    """Means over drawn seeds, then over drawn prompts; one seed has no value for prompt 2."""
    values = _rng(1).random((3, 5))
    values[1, 2] = np.nan
    rng = _rng()
    seeds, prompts = rng.integers(3, size=(200, 3)), rng.integers(5, size=(200, 5))
    means = []
    for drawn_seeds, drawn_prompts in zip(seeds, prompts, strict=True):
        averaged = []
        for prompt in drawn_prompts:
            known = [values[s, prompt] for s in drawn_seeds if not np.isnan(values[s, prompt])]
            if known:  # seed 1 may have been drawn three times
                averaged.append(sum(known) / len(known))
        if averaged:
            means.append(sum(averaged) / len(averaged))
    # the same sums in another order
    np.testing.assert_allclose(
        interval([values], mean, 200, _rng()), np.percentile(means, [2.5, 97.5]), rtol=1e-13
    )


def test_seeds_that_differ_widen_the_interval() -> None:
    """Four seeds around 0 and 1 in turn: prompts alone would give no width at all."""
    seeds = np.tile([[0.0], [1.0], [0.0], [1.0]], 50)
    low, high = interval([seeds], mean, 500, _rng())
    assert low == 0 and high == 1  # all four draws alike: 1 in 16 each
    assert interval([seeds.mean(axis=0)], mean, 500, _rng()) == (0.5, 0.5)


@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize(("of", "n"), [(0, 3), (3, 3), (1, 48), (17, 48)])
def test_wilson_against_scipy(of: int, n: int, level: float) -> None:
    want = binomtest(of, n).proportion_ci(level, method="wilson")
    # the same formula in another order
    assert wilson(of / n, n, level=level) == pytest.approx((want.low, want.high), abs=1e-14)


@pytest.mark.parametrize(("share", "n", "level"), [(-0.1, 3, 0.95), (0.5, 0, 0.95), (0.5, 3, 1)])
def test_wilson_refuses(share: float, n: int, level: float) -> None:
    with pytest.raises(ValueError, match=f"share = {share}, n = {n}"):
        wilson(share, n, level=level)


@pytest.mark.parametrize("cells", [1, 7 * 30, 7 * 31 + 3])
def test_chunks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    values = _rng(3).random(7)
    for columns in ([values], [_rng(3).random((3, 7))]):
        for make in (_rng, lambda: np.random.Generator(np.random.Philox(key=5))):
            whole = interval(columns, mean, 101, make())
            with monkeypatch.context() as patch:
                patch.setattr(bootstrap, "CELLS", cells)
                assert interval(columns, mean, 101, make()) == whole


def test_coverage() -> None:
    """A 95 % interval holds the true mean in about 95 % of samples.

    With 60 prompts the percentile interval is a little too narrow (normal instead of Student, and
    n instead of n - 1): true coverage is about 0.94. Over 400 samples its standard deviation is
    sqrt(.94 * .06 / 400) = 0.012; the bounds lie about four of them away. The seed is fixed.
    """
    rng = _rng(4)
    hits = 0
    for _ in range(400):
        low, high = interval([rng.normal(2.0, 1.0, 60)], mean, 300, rng)
        hits += low <= 2.0 <= high
    assert 0.89 <= hits / 400 <= 0.985


def test_degenerate_samples() -> None:
    assert interval([np.array([0.25])], mean, 10, _rng()) == (0.25, 0.25)
    assert interval([np.full(5, 0.5)], mean, 10, _rng()) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "counts", "resamples", "message"),
    [
        ([0.1, float("nan")], [1, 1], 10, "value 1 is nan: leave out prompts without a value"),
        ([float("inf")], [1], 10, "value 0 is inf"),
        ([], [], 10, "need"),
        ([0.1, 0.2], [1], 10, r"columns \[\(1,\), \(2,\)\]"),
        ([0.0, 0.2], [0, 0], 10, "a statistic is not finite"),
        ([0.1], [1], 0, "resamples = 0"),
    ],
)
def test_refuses(values: list[float], counts: list[float], resamples: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval([np.array(values), np.array(counts)], np.divide, resamples, _rng())
    with pytest.raises(ValueError, match="level = 1"):
        interval([np.array([0.1])], mean, 10, _rng(), level=1)
