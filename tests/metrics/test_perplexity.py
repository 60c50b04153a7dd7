import math

import numpy as np

from quark.metrics import perplexity as p

# Perplexities 2, 8, none (empty), 20 000 (dropped) and an overflow of exp (dropped).
TOKENS = np.array([3, 1, 0, 2, 1])
NLL = np.array([3 * math.log(2), math.log(8), 0.0, 2 * math.log(20_000), 800.0])


def test_per_generation_and_counted() -> None:
    ppl = p.per_generation(NLL, TOKENS)
    # log and exp each round to within one ulp of a number below 10, hence 1e-14 relative
    np.testing.assert_allclose(ppl[:4], [2, 8, np.nan, 20_000], rtol=1e-14)
    assert ppl[4] == math.inf
    assert p.counted(ppl).tolist() == [True, True, False, False, False]


def test_ceiling_itself_is_dropped() -> None:
    assert p.counted(np.array([np.nextafter(1e4, 0), 1e4])).tolist() == [True, False]


def test_three_definitions() -> None:
    ppl = p.per_generation(NLL, TOKENS)
    assert p.output_ppl(np.array([2.0, 8.0, 0.0]), np.array([1, 1, 0])) == 5
    assert math.isclose(p.median_ppl(ppl) or 0, (8 + 20_000) / 2, rel_tol=1e-14)
    # four tokens: (3 log 2 + log 8) / 4 = 1.5 log 2
    assert math.isclose(p.exp_mean_nll(NLL[:3], TOKENS[:3]) or 0, 2**1.5, rel_tol=1e-14)


def test_nothing_to_count_is_none() -> None:
    zero = np.zeros(2)
    none = zero.astype(int)
    assert p.output_ppl(zero, none) is None
    assert p.median_ppl(p.per_generation(zero, none)) is None
    assert p.exp_mean_nll(zero, none) is None
