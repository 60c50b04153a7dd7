"""Measure the speed of sampling, judging, training and quantizing against the plain loops."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quark.benchmarks import plain
from quark.benchmarks.measure import Variant
from quark.benchmarks.work import RESPONSE_TOKENS, Work, as_others, prepare, random_pool
from quark.config import Precision, RewardTokens, Training
from quark.core.seeds import ranks, stream
from quark.generation.decoding import Plain
from quark.generation.logprobs import response_logprobs
from quark.generation.sampler import sample
from quark.maths.quantiles import quantiles
from quark.methods.quark import learn
from quark.models.lm import Policy, pad
from quark.models.reference_cache import ReferenceCache
from quark.models.reward_tokens import new_reward_tokens
from quark.stages.settings import SpeedSettings
from quark.training.trainer import Rows


def speed(
    settings: SpeedSettings, model: Path, threads: int, memory_mb: int
) -> list[dict[str, Any]]:
    """Measure all stages, with one thread and with `threads`.

    Args:
        settings: the sizes; K, reward tokens and training are the configured ones.
        model: directory of the model.
        threads: the largest number of threads.
        memory_mb: memory in MB; limits our own batches.
    """
    work = prepare(settings, model, memory_mb)
    results = []
    for n in sorted({1, threads}):
        torch.set_num_threads(n)
        for stage in (_sampling, _judging, _training, _quantizing):
            results += stage(work)
    return results


def _sampling(work: Work) -> list[dict[str, Any]]:
    samples = work.settings.benchmark.samples
    how = work.sampling(RESPONSE_TOKENS)

    def plainly() -> None:
        plain.sample(work.plain["fp32"], work.prompts, samples, RESPONSE_TOKENS, how.top_p)

    def generate(precision: Precision) -> Callable[[], Any]:
        ids, real = pad(work.prompts, "left")
        lm: Any = work.plain[precision]  # transformers does not type `generate`
        return lambda: lm.generate(
            ids,
            attention_mask=real.long(),
            do_sample=True,
            num_return_sequences=samples,
            pad_token_id=0,
            **how.model_dump(),
        )

    def ours(policy: Policy) -> Callable[[], Any]:
        fixed: dict[str, Any] = {"seed_name": "benchmark", "memory_mb": work.memory_mb}
        return lambda: list(sample(Plain(policy), work.prompts, work.names, samples, how, **fixed))

    variants = [
        Variant("plain loop", "fp32", as_others(plainly)),
        Variant("transformers.generate", "bf16", as_others(generate("bf16"))),
        Variant("ours", "fp32", ours(work.fp32)),
        Variant("ours", "bf16", ours(work.bf16)),
    ]
    return work.compare("sampling", variants, work.rows, work.rows * RESPONSE_TOKENS)


def _judging(work: Work) -> list[dict[str, Any]]:
    shape = len(work.prompts), work.settings.benchmark.samples, RESPONSE_TOKENS
    drawn = stream("benchmark", "responses").integers(work.fp32.vocabulary, size=shape)
    responses: list[list[list[int]]] = drawn.tolist()

    def plainly() -> None:
        for prompt, several in zip(work.prompts, responses, strict=True):
            for response in several:
                plain.logprob(work.plain["fp32"], prompt, response)

    def ours(policy: Policy) -> Callable[[], Any]:
        fixed: dict[str, Any] = {"names": work.names, "memory_mb": work.memory_mb}
        return lambda: response_logprobs(policy, work.prompts, responses, **fixed)

    variants = [
        Variant("plain loop", "fp32", as_others(plainly)),
        Variant("ours", "fp32", ours(work.fp32)),
        Variant("ours", "bf16", ours(work.bf16)),
    ]
    return work.compare("judging", variants, work.rows, work.rows * RESPONSE_TOKENS)


def _training(work: Work) -> list[dict[str, Any]]:
    quark, count = work.settings.quark, work.settings.benchmark.training_rows
    drawn = stream("benchmark", "rows").integers(
        work.fp32.vocabulary, size=(count, RESPONSE_TOKENS)
    )
    rows = Rows(
        list(map(str, range(count))),
        [work.prompts[i % len(work.prompts)] for i in range(count)],
        drawn.tolist(),
        (np.arange(count) % quark.quantiles).astype(np.int32),
    )
    one_step = {"sequences": count, "batch": count, "warmup_steps": 0, "quantile_shares": None}
    configured = quark.training.model_copy(update=one_step)
    everything = configured.model_copy(update={"trained_layers": None})
    frugal = everything.model_copy(update={"gradient_checkpointing": True})
    embedding = RewardTokens(form="embedding")

    def plainly() -> Callable[[], Any]:
        policy = copy.deepcopy(work.plain["fp32"])
        optimizer = torch.optim.Adam(policy.parameters(), lr=configured.learning_rate)
        prompts = [[int(k), *ids] for k, ids in zip(rows.label, rows.prompts, strict=True)]
        weights = configured.kl_coef, configured.entropy_coef
        return lambda: plain.train_step(
            policy, work.plain["fp32"], optimizer, prompts, rows.responses, *weights
        )

    def ours(
        form: RewardTokens,
        training: Training,
        precision: Precision,
        cache: ReferenceCache | None = None,
    ) -> Callable[[], Any]:
        base = work.bf16 if precision == "bf16" else work.fp32
        lm = base.lm if training.trained_layers == 0 else copy.deepcopy(work.fp32.lm)
        policy = Policy(lm, new_reward_tokens(lm, quark.quantiles, form, seed=0))
        return lambda: learn(
            policy,
            base,
            rows,
            training,
            iteration=0,
            iterations=1,
            precision=precision,
            seed_name="benchmark",
            memory_mb=work.memory_mb,
            cache=cache,
            resume=None,
        )

    def remembering(form: RewardTokens, training: Training) -> Callable[[], Any]:
        run = ours(form, training, "bf16", ReferenceCache())
        run()  # the base model reads all rows once
        return run

    variants = [
        Variant("plain loop", "fp32", as_others(plainly())),
        Variant("ours, all parameters", "fp32", ours(embedding, everything, "fp32")),
        Variant("ours, all parameters", "bf16", ours(embedding, everything, "bf16")),
        Variant("ours, all parameters, cache", "bf16", remembering(embedding, everything)),
        Variant("ours, all parameters, checkpointing", "bf16", ours(embedding, frugal, "bf16")),
        Variant("ours, as configured", "bf16", ours(quark.reward_tokens, configured, "bf16")),
        Variant("ours, as configured, cache", "bf16", remembering(quark.reward_tokens, configured)),
    ]
    return work.compare("training", variants, count, count * RESPONSE_TOKENS)


def _quantizing(work: Work) -> list[dict[str, Any]]:
    count, k = work.settings.benchmark.pool_rows, work.settings.quark.quantiles
    rewards, names = random_pool(count)
    listed, texts = rewards.tolist(), [{"prompt": name, "response": name} for name in names]
    variants = [
        Variant("plain loop", "fp64", lambda: plain.quantiles(listed, texts, k)),
        Variant("ours", "fp64", lambda: quantiles(rewards, ranks("benchmark", names), k)),
    ]
    return work.compare("quantizing", variants, count, 0)
