import pytest
import torch

from quark.benchmarks.measure import Variant, compare


def test_columns() -> None:
    big = torch.randn(300, 300)
    held = []

    def work() -> None:
        held.append(big @ big)

    variants = [Variant("plain", "fp32", work), Variant("none", "fp32", lambda: None)]
    plain, none = compare("stage", variants, rows=3, tokens=60, rounds=2)
    assert len(held) == 1 + 1 + 2  # arithmetic, memory, rounds
    assert plain["ratio"] == 1 and none["ratio"] > 1
    assert plain["tokens_per_second"] == pytest.approx(60 / plain["seconds"])
    assert plain["gflops"] * plain["seconds"] * 1e9 == pytest.approx(2 * 300**3)
    assert none["gflops"] == 0 and none["share_of_peak"] is None
    assert plain["share_of_peak"] > 0


def test_memory() -> None:
    def much() -> None:
        torch.ones(50 * 2**20, dtype=torch.uint8).max()

    (found,) = compare("s", [Variant("v", "fp32", much)], rows=1, tokens=1, rounds=1)
    assert 40 < found["peak_memory_mb"] < 400  # 50 MB, and what the library sets up
