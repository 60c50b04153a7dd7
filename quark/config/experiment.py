"""Tasks, their evaluation, ablations and tuning, and the sizes of the benchmarks."""

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from quark.config.quark import Sampling
from quark.config.registry import BUILT_IN, METHODS, TASKS
from quark.config.types import (
    Count,
    Distinct,
    Name,
    Positive,
    Probability,
    Section,
    WithoutNull,
)

TaskName = Annotated[
    str,
    AfterValidator(TASKS.known),
    WithJsonSchema({"enum": list(TASKS.built_in), "type": "string"}),
]
"""The name of a task (see `quark.tasks`)."""

Method = Annotated[
    str,
    AfterValidator(METHODS.known),
    WithJsonSchema({"enum": list(BUILT_IN), "type": "string"}),
]
"""The name of a method (see `quark.config.registry`)."""


class Mauve(Section):
    """MAUVE (Pillutla et al. 2021), for tasks whose prompts have real continuations."""

    model: Name = Field(
        description="name under `models`; its last hidden states are a text's features"
    )
    tokens: Count = Field(description="longer texts are cut")
    buckets: Count | None = Field(description="clusters; null: a tenth of the texts")
    scaling: Positive = Field(
        description="the constant c of the divergence curve; 5 in the package"
    )
    seed: int = Field(description="of the clusters; 25 in the package")


def _kind_of_limit(value: Any) -> str:
    return "[each]" if isinstance(value, dict) else "[all]"


Limit = Annotated[
    Annotated[dict[Name, Count], WithoutNull, Tag("[each]")] | Annotated[Count, Tag("[all]")],
    Discriminator(_kind_of_limit),
]


class Evaluation(Section):
    """Generations of the final model and their metrics (protocol section 5)."""

    version: int = Field(
        description="raise it when the code of sampling, judging or metrics changes meaning"
    )
    prompts: Limit | None = Field(
        description="the first n prompts of a split, one n for all or for each split by its "
        "name; null, or a split without a name here: all"
    )
    samples: Count = Field(description="generations of each prompt")
    decoding: Annotated[dict[Name, Sampling], WithoutNull] = Field(
        min_length=1,
        description="ways to draw them, each with its own rows in the table; null: none",
    )
    threshold: Probability = Field(description="a generation is toxic strictly above")
    bootstrap: Count = Field(description="resamples of the prompts for the 95 % intervals")
    mauve: Mauve | None = Field(None, description="null: not computed")


class Benchmark(Section):
    """The sizes of the benchmarks."""

    model: Name = Field(description="name under `models`: the model that is timed")
    prompts: Count = Field(description="random prompts of 9 to 19 tokens")
    samples: Count = Field(description="samples of each prompt, of 20 tokens")
    training_rows: Count = Field(description="rows of the one training step")
    pool_rows: Count = Field(description="rows that are cut into quantiles")
    rounds: Count = Field(description="runs of each variant, in turn; the table shows medians")


Varied = Literal["quark", "evaluation"]
Overridable = Literal["quark", "quark_guided", "baselines", "plugins", "evaluation"]
Tunable = Literal["quark", "quark_guided", "baselines", "plugins"]
Override = dict[Overridable, dict[str, Any]]


class Task(Section):
    """A task: the model that unlearns, its prompts, its scorer and its judge."""

    model: Name = Field(description="the policy starts as this model and is kept near it")
    models: dict[Method, Name] = Field(
        {},
        description="the model of method NAME, if it is another: `ctrl`, `unlikelihood` and "
        "`simctg` are this model, `quark_unlikelihood` starts from it",
    )
    judge: Name = Field(description="its perplexity measures fluency")
    prompts: Name = Field(description="training and test prompts")
    scorer: Name = Field(description="gives the reward in training and the toxicity in the table")
    second_scorer: Name | None = Field(
        None,
        description="scores the evaluation's generations again, for a separate column, and the "
        "samples that the curves show, unless it is a service; no method learns from it; null: "
        "there is none",
    )
    prefix: Count | None = Field(
        None,
        description="number of a text's first tokens that are its prompt; methods predict the "
        "rest; null: the whole text is the prompt",
    )
    splits: Distinct[Name] = Field(min_length=1, description="test splits in the table")
    methods: Distinct[Method] = Field(min_length=1, description="rows of the table")
    vllm: Distinct[Method] = Field(
        (),
        description="the methods among them, or from which they start, whose samples vLLM draws; "
        "the other ones, and contrastive search, use this package's sampler",
    )
    override: Override = Field(
        {},
        description="settings of this task alone, laid over `quark`, `quark_guided`, "
        "`baselines`, `plugins` or `evaluation` key by key",
    )


class Ablation(Section):
    """Variants of Quark on one task."""

    task: TaskName = Field(description="its `quark` and base model are shown with the variants")
    variants: Annotated[dict[Name, dict[Varied, dict[str, Any]]], WithoutNull] = Field(
        min_length=1,
        description="settings of the variant, laid over `quark` or `evaluation` key by key; "
        "null: there is no such variant",
    )


class Tuning(Section):
    """Settings that are tried on validation prompts: one key, one value at a time."""

    split: Name = Field(default="validation", description="prompts that the tries are measured on")
    most_perplexity: Positive = Field(
        default=1.1,
        description="only a try with at most this times the base model's perplexity is chosen: "
        "among those, the one with the best main metric",
    )
    tries: Annotated[dict[Tunable, dict[str, Any]], WithoutNull] = Field(
        min_length=1,
        description="keys of `quark`, `quark_guided` or a method under `baselines`, as in the "
        "configuration, with a list of values in place of the value; null: none",
    )

    @model_validator(mode="after")
    def _every_key_has_values(self) -> Self:
        for path, values in self._keys():
            key = ".".join(path)
            if _method(path) not in METHODS:
                raise ValueError(f"{key}: only settings of a method can be tried")
            if not isinstance(values, list) or not values:
                raise ValueError(f"{key} = {values!r}: write a list of the values to try")
            for value in values:
                if not (isinstance(value, str) or _is_number(value)):
                    raise ValueError(f"{key}: {value!r} is neither a number nor a word")
        if len(self.variants) < sum(len(values) for _, values in self._keys()):
            raise ValueError("two tries have the same method, last part of the key and value")
        for name in self.variants:
            if not re.fullmatch(r"[a-z0-9][A-Za-z0-9_.+-]*", name):
                raise ValueError(f"{name}: this value cannot be tried, a folder is named after it")
        return self

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """The changes of each try to the configuration, by a name such as gedi.weight.30."""
        found = {}
        for path, values in self._keys():
            for value in values:
                changes: Any = value
                for key in reversed(path):
                    changes = {key: changes}
                text = value if isinstance(value, str) else f"{value:g}"
                found[f"{_method(path)}.{path[-1]}.{text}"] = changes
        return found

    def _keys(self) -> list[tuple[tuple[str, ...], Any]]:
        return list(_leaves(self.tries, ()))


def _is_number(value: Any) -> bool:
    """Whether a value is a number, and one that a float can hold."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and abs(value) <= sys.float_info.max


def _method(path: tuple[str, ...]) -> str:
    """The method whose setting a key is."""
    return path[1] if path[0] in ("baselines", "plugins") else path[0]


def _leaves(nested: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values in nested mappings, each with its path; a null is skipped."""
    if nested is None:
        return
    if not isinstance(nested, dict):
        yield path, nested
        return
    for key, value in nested.items():
        yield from _leaves(value, (*path, str(key)))
