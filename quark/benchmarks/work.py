"""The input of the benchmarks: a model in both precisions and random prompts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from quark.benchmarks.measure import Variant, compare
from quark.config import Precision, Sampling
from quark.core.seeds import stream
from quark.models.lm import DTYPES, Policy, device, load_model
from quark.models.memory import keep_freed_memory
from quark.stages.settings import SpeedSettings

PROMPT_TOKENS = 9, 19
"""Tokens of the shortest and longest prompt; RealToxicityPrompts has 14 +- 5 tokens."""

RESPONSE_TOKENS = 20


class Work(NamedTuple):
    """The model and the prompts with which every stage is measured.

    `fp32`, `bf16`: the model as our stages load it. `plain`: as transformers itself loads it.
    """

    settings: SpeedSettings
    fp32: Policy
    bf16: Policy
    plain: dict[Precision, PreTrainedModel]
    prompts: list[list[int]]
    names: list[str]
    memory_mb: int

    @property
    def rows(self) -> int:
        """Number of responses to all prompts."""
        return len(self.prompts) * self.settings.benchmark.samples

    def sampling(self, tokens: int) -> Sampling:
        """Return the settings to sample exactly `tokens` tokens at top-p 0.9."""
        update = {"min_new_tokens": tokens, "max_new_tokens": tokens, "top_k": 0, "top_p": 0.9}
        return self.settings.quark.sampling.model_copy(update=update)

    def compare(
        self, stage: str, variants: Sequence[Variant], rows: int, tokens: int
    ) -> list[dict[str, Any]]:
        """Call `measure.compare` with the configured number of rounds."""
        rounds = self.settings.benchmark.rounds
        return compare(stage, variants, rows=rows, tokens=tokens, rounds=rounds)


def random_prompts(vocabulary: int, count: int) -> list[list[int]]:
    """Return prompts of random ids."""
    rng = stream("benchmark", "prompts")
    lengths = rng.integers(PROMPT_TOKENS[0], PROMPT_TOKENS[1] + 1, count)
    return [rng.integers(vocabulary, size=n).tolist() for n in lengths]


def random_pool(count: int) -> tuple[NDArray[np.float64], list[str]]:
    """Return the rewards and row ids of a pool."""
    return stream("benchmark", "pool").random(count), [f"0/{i:016x}/0" for i in range(count)]


def prepare(settings: SpeedSettings, model: Path, memory_mb: int) -> Work:
    """Load a model and draw prompts."""
    fp32, bf16 = load_model(model, "fp32"), load_model(model, "bf16")
    prompts = random_prompts(fp32.vocabulary, settings.benchmark.prompts)
    names = list(map(str, range(len(prompts))))
    return Work(settings, fp32, bf16, _plain(model), prompts, names, memory_mb)


def _plain(model: Path) -> dict[Precision, PreTrainedModel]:
    loaded: dict[Precision, PreTrainedModel] = {}
    for precision in get_args(Precision):
        lm: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=DTYPES[precision], trust_remote_code=False
        )
        loaded[precision] = lm.to(device()).eval()
    return loaded


def as_others(run: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap `run` so that the C library manages memory in its own way."""

    def wrapped() -> Any:
        keep_freed_memory(False)
        try:
            return run()
        finally:
            keep_freed_memory()

    return wrapped
