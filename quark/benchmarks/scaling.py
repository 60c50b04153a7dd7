"""Measure how time and memory grow with the sizes of an experiment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quark.benchmarks.measure import Variant, compare
from quark.benchmarks.work import RESPONSE_TOKENS, Work, prepare, random_pool, random_prompts
from quark.core.seeds import ranks
from quark.generation.decoding import Plain
from quark.generation.sampler import sample
from quark.maths.quantiles import quantiles
from quark.stages.settings import SpeedSettings


def scaling(
    settings: SpeedSettings, model: Path, threads: int, memory_mb: int
) -> list[dict[str, Any]]:
    """Measure seconds and peak memory for one size at a time; the others are as configured.

    Args:
        settings: the configured sizes. Each is halved, kept and doubled; the pool is divided by
            100, 10 and 1.
        model: directory of the model.
        threads: threads to use.
        memory_mb: memory in MB; limits our own batches.
    """
    torch.set_num_threads(threads)
    work = prepare(settings, model, memory_mb)
    sizes = settings.benchmark
    results = []
    for part in (100, 10, 1):
        rows = max(settings.quark.quantiles, sizes.pool_rows // part)
        results.append(_measure(work, "pool rows", rows, rows, _quantizing(work, rows)))
    for factor in (0.5, 1, 2):
        for what, prompts, samples, tokens in (
            ("prompts", int(sizes.prompts * factor), sizes.samples, RESPONSE_TOKENS),
            ("samples of a prompt", sizes.prompts, int(sizes.samples * factor), RESPONSE_TOKENS),
            ("response tokens", sizes.prompts, sizes.samples, int(RESPONSE_TOKENS * factor)),
        ):
            size = {"prompts": prompts, "response tokens": tokens}.get(what, samples)
            run = _sampling(work, prompts, samples, tokens)
            results.append(_measure(work, what, size, prompts * samples, run))
    return sorted(results, key=lambda row: (row["what"], row["size"]))


def _measure(work: Work, what: str, size: int, rows: int, run: Callable[[], Any]) -> dict[str, Any]:
    variant = Variant("ours", "bf16", run)
    rounds = work.settings.benchmark.rounds
    (found,) = compare(what, [variant], rows=rows, tokens=rows, rounds=rounds)
    kept = ("threads", "rows", "seconds", "peak_memory_mb", "gflops")
    return {"what": what, "size": size, **{key: found[key] for key in kept}}


def _quantizing(work: Work, count: int) -> Callable[[], Any]:
    rewards, names = random_pool(count)
    k = work.settings.quark.quantiles
    return lambda: quantiles(rewards, ranks("benchmark", names), k)


def _sampling(work: Work, prompts: int, samples: int, tokens: int) -> Callable[[], Any]:
    how = work.sampling(tokens)
    texts = random_prompts(work.bf16.vocabulary, prompts)
    names = list(map(str, range(prompts)))
    fixed: dict[str, Any] = {"seed_name": "benchmark", "memory_mb": work.memory_mb}
    return lambda: list(sample(Plain(work.bf16), texts, names, samples, how, **fixed))
