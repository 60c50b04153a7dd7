"""The configuration as a whole, and what its parts demand of each other."""

from typing import Annotated, Any, Self

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

from quark.config.baselines import Baselines
from quark.config.experiment import (
    Ablation,
    Benchmark,
    Evaluation,
    Method,
    Task,
    TaskName,
    Tuning,
)
from quark.config.quark import Optimisation, Place, Quark
from quark.config.registry import (
    METHODS,
    in_rounds,
    learners,
    plugin_section,
    sampled_for,
    spec,
)
from quark.config.resources import Classifier, ModelSource, Perspective, Prompts
from quark.config.spec import GroupedTraining, Rounds
from quark.config.types import (
    AskedPrecision,
    Distinct,
    Name,
    Precision,
    Section,
    WithoutNull,
    nearest,
)

LEAST_TEMPERATURE = 0.01
"""vLLM raises a lower one to this (`vllm.sampling_params`, version 0.32)."""


class WrittenConfig(Section):
    """The whole configuration as the user wrote it: its precision may be `auto`."""

    seeds: Distinct[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="one whole experiment for each; the table averages over them"
    )
    precision: AskedPrecision = Field(
        description="of the weights in sampling and judging, and of the frozen weights in "
        "training; trained weights are float32, with matrix products in this type; auto: bf16 "
        "if it is fast, else fp32"
    )
    models: dict[Name, ModelSource]
    prompts: dict[Name, Prompts]
    classifiers: dict[Name, Classifier] = Field({}, description="scorers that are models")
    functions: dict[Name, Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")]] = Field(
        {},
        description="scorers that are Python functions, as FILE.py:FUNCTION; each gets the prompts "
        "and the responses, and returns a score in [0, 1] for each response",
    )
    perspective: Perspective
    tasks: dict[TaskName, Task] = Field(min_length=1)
    quark: Quark
    quark_guided: Place = Field(description="Quark, decoded at a place beyond its best token")
    baselines: Baselines
    plugins: dict[Name, dict[str, Any]] = Field(
        {},
        description="settings of methods whose own file has their type, such as those that other "
        "packages add, by the method's name",
    )
    evaluation: Evaluation
    ablations: Annotated[dict[Name, Ablation], WithoutNull] = Field(
        {}, description="sweeps of Quark's settings, a table each; null: none"
    )
    tuning: Annotated[dict[TaskName, Tuning], WithoutNull] = Field(
        {}, description="tries on validation prompts, a table for each task; null: none"
    )
    benchmark: Benchmark

    def plugin(self, name: str) -> Section:
        """The settings of a method under `plugins`."""
        settings = plugin_section(name)
        if settings is None:
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
        """The methods of all tasks."""
        return {method for task in self.tasks.values() for method in task.methods}

    @model_validator(mode="after")
    def _plugins_have_their_settings(self) -> Self:
        needy = {name for name in self.methods if plugin_section(name)}
        for name in sorted(self.plugins.keys() | needy):
            self.plugin(name)
        return self

    @model_validator(mode="after")
    def _checkpointing_has_no_cache(self) -> Self:
        if self.quark.reward_tokens.form != "sink":
            return self
        learning: dict[str, Optimisation] = {
            "quark.training": self.quark.training,
            "baselines.gedi.training": self.baselines.gedi.training,
        }
        for name in sorted(self.methods & set(learners())):
            rounds = in_rounds()[name]
            assert rounds.training is not None  # as all learners have it
            learning[rounds.section] = rounds.training(self)
        for key, how in learning.items():
            if how.gradient_checkpointing:
                raise ValueError(
                    f"{key}.gradient_checkpointing needs quark.reward_tokens.form: embedding, "
                    "since a sink is shifted in the cache that checkpointing does without"
                )
        return self

    @model_validator(mode="after")
    def _the_nucleus_of_the_base_model_has_no_top_k(self) -> Self:
        within_base = {n for n in self.methods if spec(n).within_base and spec(n).steering(self)}
        for method in sorted(within_base):
            for name, sampling in self.evaluation.decoding.items():
                if sampling.top_k and not sampling.penalty_alpha:
                    raise ValueError(
                        f"evaluation.decoding.{name}.top_k must be 0 for {method}: use top_p"
                    )
        return self

    @model_validator(mode="after")
    def _vllm_can_express_its_methods(self) -> Self:
        for task, about in self.tasks.items():
            if about.override:
                continue  # `for_task` checks it with its own settings
            needed = set[str]().union(*map(sampled_for, about.methods))
            for name in about.vllm:
                own = spec(name)
                steering = own.steering(self)
                if name not in needed:
                    why = f"no method of tasks.{task}.methods needs samples of {name}"
                elif isinstance(steering, Place):
                    why = (
                        f"vLLM cannot sample for {name}, which draws at place {steering.place:g} "
                        "within the base model's nucleus"
                    )
                elif steering:
                    why = f"vLLM cannot sample for {name}, whose decoder changes each step"
                elif own.form(self) == "sink":
                    why = f"vLLM cannot sample for {name} with reward tokens of the form sink"
                else:
                    continue
                raise ValueError(f"tasks.{task}.vllm: {why}: remove it there")
            drawn = [self.quark.sampling, *self.evaluation.decoding.values()]
            if about.vllm and min(each.temperature for each in drawn) < LEAST_TEMPERATURE:
                raise ValueError(
                    f"tasks.{task}.vllm: vLLM has no temperature below {LEAST_TEMPERATURE}"
                )
        return self

    def _check_learner(self, name: str, rounds: Rounds) -> None:
        """Refuse what a method that learns from its own samples cannot learn from."""
        form, drawn = self.quark.reward_tokens.form, self.quark.sampling
        is_whole = (drawn.temperature, drawn.top_k, drawn.top_p) == (1, 0, 1)
        if rounds.whole_distribution and not is_whole:
            raise ValueError(
                f"quark.sampling must have temperature 1, top_k 0 and top_p 1 for {name}, whose "
                "loss is about the whole distribution: change it, or leave "
                f"{name} out of tasks.TASK.methods"
            )
        assert rounds.training is not None  # as all learners have it
        how = rounds.training(self)
        if isinstance(how, GroupedTraining) and self.quark.first_samples < 2:
            raise ValueError(f"quark.first_samples must be at least 2 for {name}: it compares them")
        layers = how.trained_layers
        if layers == 0 and form not in ("linear", "sink"):
            raise ValueError(
                f"{rounds.section}.trained_layers = 0 leaves nothing to learn: only linear tokens "
                f"or a sink are {name}'s to learn beside the model"
            )
        if layers != 0 and form == "linear":
            raise ValueError(
                f"{rounds.section}.trained_layers must be 0 with quark.reward_tokens.form = "
                "linear, where a map of the frozen model learns"
            )

    @model_validator(mode="after")
    def _methods_have_what_they_need(self) -> Self:
        form = self.quark.reward_tokens.form
        if form == "none" and (needy := sorted(m for m in self.methods if METHODS[m].needs_tokens)):
            raise ValueError(f"quark.reward_tokens.form is none, but {needy[0]} needs the tokens")
        for name in sorted(self.methods & set(learners())):
            self._check_learner(name, in_rounds()[name])
        gedi = self.baselines.gedi.training
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
    """The whole configuration of a run: its precision is decided (see `quark.config.precision`)."""

    precision: Precision
