"""Tasks, evaluation, and the configuration as a whole."""

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from quark.config.baselines import Baselines
from quark.config.method import Place, Quark, Sampling
from quark.config.registry import BUILT_IN, METHODS, TASKS, spec
from quark.config.resources import Classifier, ModelSource, Perspective, Prompts
from quark.config.types import (
    AskedPrecision,
    Count,
    Distinct,
    Name,
    Positive,
    Precision,
    Probability,
    Section,
    WithoutNull,
    nearest,
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
    """MAUVE (Pillutla et al. 2021), of tasks whose prompts really go on."""

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
        min_length=1, description="how they are drawn, rows of their own in the table; null: none"
    )
    threshold: Probability = Field(description="a generation is toxic strictly above")
    bootstrap: Count = Field(description="resamples of the prompts for the 95 % intervals")
    mauve: Mauve | None = Field(None, description="null: not computed")


class Benchmark(Section):
    """How much the benchmarks measure."""

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
    """What is unlearned: the model, its prompts, its scorer and its judge."""

    model: Name = Field(description="the policy starts as this model and is kept near it")
    models: dict[Method, Name] = Field(
        {},
        description="the model of method NAME, if it is another: what `ctrl`, `unlikelihood` "
        "and `simctg` are, and `quark_unlikelihood` starts from",
    )
    judge: Name = Field(description="its perplexity measures fluency")
    prompts: Name = Field(description="training and test prompts")
    scorer: Name = Field(description="gives the reward in training and the toxicity in the table")
    second_scorer: Name | None = Field(
        None,
        description="scores the evaluation's generations once more, for a column of its own; no "
        "method learns from it; null: none does",
    )
    prefix: Count | None = Field(
        None,
        description="tokens of a text that are its prompt; the rest is what a method is asked "
        "to predict; null: the whole text is the prompt",
    )
    splits: Distinct[Name] = Field(min_length=1, description="test splits in the table")
    methods: Distinct[Method] = Field(min_length=1, description="rows of the table")
    override: Override = Field(
        {},
        description="settings of this task alone, laid over `quark`, `quark_guided`, "
        "`baselines`, `plugins` or `evaluation` key by key",
    )


class Ablation(Section):
    """Variants of Quark on one task."""

    task: TaskName = Field(description="whose `quark` and base model stand beside the variants")
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
        """What each try lays over the configuration, by a name such as gedi.weight.30."""
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
    """The method that a key is a setting of."""
    return path[1] if path[0] in ("baselines", "plugins") else path[0]


def _leaves(nested: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What stands under keys within keys, each with its path; null: there is none."""
    if nested is None:
        return
    if not isinstance(nested, dict):
        yield path, nested
        return
    for key, value in nested.items():
        yield from _leaves(value, (*path, str(key)))


class WrittenConfig(Section):
    """The whole configuration as it is written: its precision may be `auto`."""

    seeds: Distinct[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="one whole experiment for each; the table averages over them"
    )
    precision: AskedPrecision = Field(
        description="of the weights in sampling and judging, and of what does not learn in "
        "training; what learns is float32, with matrix products in this type; auto: bf16 "
        "where it is fast, else fp32"
    )
    models: dict[Name, ModelSource]
    prompts: dict[Name, Prompts]
    classifiers: dict[Name, Classifier] = Field({}, description="scorers that are models")
    perspective: Perspective
    tasks: dict[TaskName, Task] = Field(min_length=1)
    quark: Quark
    quark_guided: Place = Field(description="Quark, decoded further out than its best token")
    baselines: Baselines
    plugins: dict[Name, dict[str, Any]] = Field({}, description="a setting of this method")
    evaluation: Evaluation
    ablations: Annotated[dict[Name, Ablation], WithoutNull] = Field(
        {}, description="sweeps of Quark's settings, a table each; null: it is none"
    )
    tuning: Annotated[dict[TaskName, Tuning], WithoutNull] = Field(
        {}, description="tries on validation prompts, a table for each task; null: none"
    )
    benchmark: Benchmark

    def plugin(self, name: str) -> Section:
        """The settings of a method that another package adds."""
        settings = spec(name).settings
        if settings is None or name in BUILT_IN:
            raise ValueError(f"plugins.{name}: this method has no settings there")
        try:
            return settings.model_validate(self.plugins.get(name, {}))
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, ('plugins', name, *fault['loc'])))}: {fault['msg']}"
                for fault in error.errors()
            ]
            raise ValueError("; ".join(faults)) from None

    @property
    def methods(self) -> set[Method]:
        """Of all tasks."""
        return {method for task in self.tasks.values() for method in task.methods}

    @model_validator(mode="after")
    def _plugins_have_their_settings(self) -> Self:
        needy = {n for n in self.methods - BUILT_IN.keys() if spec(n).settings is not None}
        for name in sorted(self.plugins.keys() | needy):
            self.plugin(name)
        return self

    @model_validator(mode="after")
    def _checkpointing_has_no_cache(self) -> Self:
        sink = self.quark.reward_tokens.form == "sink"
        for key, how in (
            ("quark.training", self.quark.training),
            ("baselines.ppo", self.baselines.ppo),
            ("baselines.gedi.training", self.baselines.gedi.training),
        ):
            if how.gradient_checkpointing and sink:
                raise ValueError(
                    f"{key}.gradient_checkpointing needs quark.reward_tokens.form: embedding, "
                    "since a sink is shifted in the cache that checkpointing does without"
                )
        return self

    @model_validator(mode="after")
    def _the_nucleus_of_the_base_model_has_no_top_k(self) -> Self:
        within_base = {n for n, s in METHODS.items() if s.within_base and s.steering(self)}
        for method in sorted(self.methods & within_base):
            for name, sampling in self.evaluation.decoding.items():
                if sampling.top_k and not sampling.penalty_alpha:
                    raise ValueError(
                        f"evaluation.decoding.{name}.top_k must be 0 for {method}: use top_p"
                    )
        return self

    @model_validator(mode="after")
    def _methods_have_what_they_need(self) -> Self:
        form = self.quark.reward_tokens.form
        if form == "none" and (needy := sorted(m for m in self.methods if METHODS[m].needs_tokens)):
            raise ValueError(f"quark.reward_tokens.form is none, but {needy[0]} needs the tokens")
        ppo, gedi = self.baselines.ppo, self.baselines.gedi.training
        drawn = self.quark.sampling
        if "ppo" in self.methods and (drawn.temperature, drawn.top_k, drawn.top_p) != (1, 0, 1):
            raise ValueError(
                "quark.sampling must have temperature 1, top_k 0 and top_p 1 for ppo, whose "
                "probability ratios are of the whole distribution: change it, or leave ppo out of "
                "tasks.TASK.methods"
            )
        if "ppo" in self.methods and ppo.trained_layers == 0 and form not in ("linear", "sink"):
            raise ValueError(
                "baselines.ppo.trained_layers = 0 leaves nothing to learn: only linear tokens or a "
                "sink are PPO's to learn beside the model"
            )
        if "ppo" in self.methods and ppo.trained_layers != 0 and form == "linear":
            raise ValueError(
                "baselines.ppo.trained_layers must be 0 with quark.reward_tokens.form = linear, "
                "where a map of the frozen model learns"
            )
        if "gedi" in self.methods and gedi.trained_layers != 0 and form == "linear":
            raise ValueError(
                "baselines.gedi.training.trained_layers must be 0 with quark.reward_tokens.form = "
                "linear, where a map of the frozen model learns"
            )
        of_models = [name for name, method in METHODS.items() if method.has_own_model]
        for name, task in self.tasks.items():
            for method in task.methods:
                if method in of_models and method not in task.models:
                    raise ValueError(
                        f"tasks.{name}.models.{method} is missing: the model that the method "
                        "is, or starts from"
                    )
            if others := sorted(set(task.models) - set(of_models)):
                raise ValueError(
                    f"tasks.{name}.models.{others[0]}: only {', '.join(of_models)} have a model of "
                    f"their own; the others start from tasks.{name}.model"
                )
            if name == "repetition" and task.prefix is None:
                raise ValueError("tasks.repetition.prefix is missing: texts are cut into two")
            if task.prefix and "gedi" in task.methods:
                raise ValueError(
                    f"tasks.{name}.methods: gedi filters tokens out, so that a real text has no "
                    "likelihood under it, which tasks with a prefix measure"
                )
            if task.second_scorer and name == "repetition":
                raise ValueError(f"tasks.{name}.second_scorer: this task has no metric for it")
        return self

    @model_validator(mode="after")
    def _names_are_declared(self) -> Self:
        used = [("benchmark.model", self.benchmark.model, list(self.models))]
        if self.evaluation.mauve is not None:
            used.append(("evaluation.mauve.model", self.evaluation.mauve.model, list(self.models)))
        for name, task in self.tasks.items():
            used += [
                (f"tasks.{name}.model", task.model, list(self.models)),
                *(
                    (f"tasks.{name}.models.{k}", v, list(self.models))
                    for k, v in task.models.items()
                ),
                (f"tasks.{name}.judge", task.judge, list(self.models)),
                (f"tasks.{name}.prompts", task.prompts, list(self.prompts)),
            ]
        if self.baselines.corpus.texts is not None:
            used.append(("baselines.corpus.texts", self.baselines.corpus.texts, list(self.prompts)))
        for resource, model in self.models.items():
            if model.finetuned is not None:
                key = f"models.{resource}.finetuned"
                others = [name for name in self.models if name != resource]
                used.append((f"{key}.model", model.finetuned.model, others))
                used.append((f"{key}.texts", model.finetuned.texts, list(self.prompts)))
        for resource, prompts in self.prompts.items():
            if prompts.sorted is not None:
                key = f"prompts.{resource}.sorted.model"
                used.append((key, prompts.sorted.model, list(self.models)))
        used += [
            (f"ablations.{name}.task", sweep.task, list(self.tasks))
            for name, sweep in self.ablations.items()
        ]
        used += [(f"tuning.{name}", name, list(self.tasks)) for name in self.tuning]
        for key, value, declared in used:
            if value not in declared:
                raise ValueError(
                    f"{key} is {value!r}, declared are: {', '.join(declared)}"
                    + nearest(value, declared)
                )
        for resource in self.models:
            line = [resource]
            while (source := self.models[line[-1]].finetuned) and source.model not in line:
                line.append(source.model)
            if source:
                raise ValueError(
                    f"models.{resource}.finetuned.model: {' from '.join([*line, source.model])}: "
                    "one of them must come from elsewhere"
                )
        for name, task in self.tasks.items():
            missing = {"validation", *task.splits} - self.prompts[task.prompts].tested
            if missing:
                raise ValueError(
                    f"tasks.{name}.splits: {', '.join(sorted(missing))} not among the splits of "
                    f"prompts.{task.prompts}"
                )
        limits = self.evaluation.prompts
        splits = {split for source in self.prompts.values() for split in source.tested}
        if isinstance(limits, dict) and (unknown := sorted(set(limits) - splits)):
            raise ValueError(
                f"evaluation.prompts.{unknown[0]}: no prompts have such a split; there are "
                + ", ".join(sorted(splits))
                + nearest(unknown[0], splits)
            )
        if "repetition" in self.tuning:
            raise ValueError(
                "tuning.repetition: the rule bounds the perplexity of what was generated, and the "
                "base model's is low because it repeats itself: compare by ablations"
            )
        for name, tuning in self.tuning.items():
            used_by = self.tasks[name].prompts
            if tuning.split not in self.prompts[used_by].tested:
                raise ValueError(
                    f"tuning.{name}.split is {tuning.split!r}, not among the splits of "
                    f"prompts.{used_by}"
                )
        return self


class Config(WrittenConfig):
    """The whole configuration as it runs, its precision decided (see `quark.config.precision`)."""

    precision: Precision
