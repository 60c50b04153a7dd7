import numpy as np
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
    assert len(held) == 1 + 2  # arithmetic and memory, rounds
    assert plain["ratio"] == 1 and none["ratio"] > 1
    assert plain["tokens_per_second"] == pytest.approx(60 / plain["seconds"])
    assert plain["gflops"] * plain["seconds"] * 1e9 == pytest.approx(2 * 300**3)
    assert none["gflops"] == 0 and none["share_of_peak"] is None
    assert plain["share_of_peak"] > 0
    assert plain["processor"].split()[0] in ("AMX", "AVX512-bf16", "AVX512", "AVX2", "Arm", "CUDA")


def test_a_limit_of_the_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    (found,) = compare("s", [Variant("v", "fp32", lambda: None)], rows=1, tokens=1, rounds=1)
    assert found["processor"].endswith(" limited to AVX2")


def test_memory() -> None:
    kept = torch.ones(30 * 2**20, dtype=torch.uint8)

    def much() -> None:
        for _ in range(3):  # one after another: they do not add up
            torch.ones(50 * 2**20, dtype=torch.uint8).max()
        kept.view(-1, 2).max()  # was there before

    def objects() -> None:
        np.ones(10 * 2**20, dtype=np.uint8).max()

    variants = [Variant("tensors", "fp32", much), Variant("arrays", "fp32", objects)]
    tensors, arrays = compare("s", variants, rows=1, tokens=1, rounds=1)
    assert tensors["peak_memory_mb"] == pytest.approx(50, abs=0.5)  # and Python's own objects
    assert arrays["peak_memory_mb"] == pytest.approx(10, abs=0.5)
    assert arrays["memory_ratio"] == pytest.approx(0.2, abs=0.02)


def test_memory_of_a_backward_pass() -> None:
    weight = torch.randn(1000, 1000, requires_grad=True)

    def run() -> None:
        weight.grad = None
        (weight.exp().sin().sum()).backward()

    (found,) = compare("s", [Variant("v", "fp32", run)], rows=1, tokens=1, rounds=1)
    # 3.8 MB each: exp, kept for its gradient, and two or three of sin and gradients at a time
    assert 3 * 3.8 < found["peak_memory_mb"] < 4.2 * 3.8
