"""Measure time, memory and arithmetic of variants of the same work in one process."""

import gc
import logging
import os
import statistics
import time
import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from quark.config.precision import processor

log = logging.getLogger(__name__)


class Variant(NamedTuple):
    """One way to do a stage's work.

    `run` does the work once; its result is not used.
    """

    name: str
    precision: str
    run: Callable[[], Any]


def compare(
    stage: str, variants: Sequence[Variant], *, rows: int, tokens: int, rounds: int
) -> list[dict[str, Any]]:
    """Run all variants in turn, `rounds` times after a warm-up; the first is the plain one.

    The variants alternate, so other load on the machine affects all of them. The ratios are more
    reliable than the seconds.

    Returns:
        For each variant its median seconds, tokens/s, ratio to the first, peak memory above the
        memory before (MB), GFLOP/s of its matrix products, and their share of the machine's peak.
    """
    found = [_arithmetic_and_memory(variant.run) for variant in variants]  # also the warm-up
    gigaflops, memory = zip(*found, strict=True)
    seconds: list[list[float]] = [[] for _ in variants]
    for _ in range(rounds):
        for variant, taken in zip(variants, seconds, strict=True):
            begun = time.perf_counter()
            variant.run()
            _finish()
            taken.append(time.perf_counter() - begun)
    medians = [statistics.median(taken) for taken in seconds]
    for variant, median in zip(variants, medians, strict=True):
        log.info("%s, %s, %s: %.2f s", stage, variant.name, variant.precision, median)
    return [
        {
            "stage": stage,
            "variant": variant.name,
            "precision": variant.precision,
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "rows": rows,
            "seconds": median,
            "tokens_per_second": tokens / median,
            "ratio": medians[0] / median,
            "peak_memory_mb": peak,
            "memory_ratio": peak / memory[0] if memory[0] else None,
            "gflops": work / median,
            "share_of_peak": work / median / matrix_peak(variant.precision) if work else None,
        }
        for variant, median, peak, work in zip(variants, medians, memory, gigaflops, strict=True)
    ]


_PEAKS: dict[tuple[str, int], float] = {}


def matrix_peak(precision: str, size: int = 2048) -> float:
    """Return the GFLOP/s of a product of two square matrices, the best of six; cached."""
    key = precision, torch.get_num_threads()
    if key not in _PEAKS:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        device = "cuda" if torch.cuda.is_available() else "cpu"
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best = float("inf")
        for _ in range(6):
            begun = time.perf_counter()
            one @ other
            _finish()
            best = min(best, time.perf_counter() - begun)
        _PEAKS[key] = float(2e-9 * size**3 / best)
    return _PEAKS[key]


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _arithmetic_and_memory(run: Callable[[], Any]) -> tuple[float, float]:
    """Return the GFLOP of a run's matrix products, and its peak MB above the memory before."""
    gc.collect()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    tracemalloc.start()
    try:
        with _LiveTensors() as tensors, FlopCounterMode(display=False) as counter:
            run()
        objects = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = torch.cuda.max_memory_allocated() - before if cuda else tensors.peak + objects
    return float(counter.get_total_flops()) / 1e9, float(held) / 2**20


class _LiveTensors(TorchDispatchMode):
    """Count the bytes of tensors that operators make; the C library cannot measure them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._see((args, kwargs), made=False)
        found = func(*args, **(kwargs or {}))
        self._see(found, made=True)
        return found

    def _see(self, tree: Any, made: bool) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known.add(key)
                    size = storage.nbytes() if made else 0
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _processor() -> str:
    """Return the processor's class, and its libraries' limit, if any (docs/performance.md)."""
    name, _ = processor()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"{name} limited to {limit}" if limit else name
