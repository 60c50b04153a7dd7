"""The files that each target of the workflow needs: iterations, their order, and shared files.

A *variant* is a method with other settings, for an ablation or a tuning; it is named
`METHOD.SWEEP.VALUE`. If a variant would sample or train exactly as its method does, it uses the
method's files. Paths are strings relative to the project's folder, as in Snakemake.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from quark.config import Config, ConfigError, Section, Task, for_task, variants
from quark.config.registry import in_rounds, iterations, spec
from quark.core import paths
from quark.scorers import SERVICE
from quark.stages import derive
from quark.tasks import TASKS

RESULTS = "results"
EXPLORED = ("samples", "scores")
"""The stages of an iteration before its training."""


def family(method: str) -> str:
    """Return the method of a variant; any other method is returned unchanged."""
    return method.split(".")[0]


def _path(pattern: str, name: str, **wildcards: Any) -> str:
    return f"{RESULTS}/{pattern.format(**wildcards)}/{name}"


class Graph:
    """The files of one configuration's workflow.

    Args:
        config: the whole configuration.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.tasks = {task: for_task(config, task) for task in config.tasks}
        self.variants = variants(config)
        self.iterated = list(in_rounds())

    def config_of(self, task: str, method: str) -> Config:
        """Return the configuration of a task's method, or of a variant of a method."""
        return self.variants.get((task, method), self.tasks[task])

    def task(self, name: str) -> Task:
        """Return one task's section."""
        return self.config.tasks[name]

    def configs(self) -> list[Config]:
        """Return the configurations of all tasks and variants."""
        return [*self.tasks.values(), *self.variants.values()]

    @cached_property
    def finetuned(self) -> list[str]:
        """Names of the models that are fine-tuned from another model."""
        return [name for name, source in self.config.models.items() if source.finetuned]

    def with_variants(self, methods: Sequence[str]) -> list[str]:
        """Return these methods and all of their variants."""
        return [*methods, *(name for _, name in self.variants if family(name) in methods)]

    # ---------------------------------------------------------------------------- iterations
    def iterations(self, task: str, method: str) -> int:
        """Return how many rounds of sampling and training a method has."""
        return iterations(self.config_of(task, method), family(method))

    def last_iterations(self) -> dict[tuple[str, str], int]:
        """Return the last iteration of each task's methods and variants: they decode with it."""
        named = [(task, m) for task in self.tasks for m in self.iterated]
        varied = [key for key in self.variants if family(key[1]) in self.iterated]
        return {key: self.iterations(*key) - 1 for key in named + varied}

    def trained_as(self, task: str, method: str) -> str:
        """Return the method whose checkpoints a method or variant decodes with: mostly itself."""
        own = spec(family(method)).trained_as or family(method)
        return own if self._trains_alike(task, method, own) else method

    def _trains_alike(self, task: str, method: str, own: str) -> bool:
        """Whether a variant's training has the same settings as that of method `own`."""
        here, there = self.tasks[task], self.config_of(task, method)
        rounds = spec(own).rounds
        if rounds is None:
            parts = spec(own).parts
            return all(
                derive.fit(here, task, part, 0) == derive.fit(there, task, part, 0)
                for part in parts
            )
        count = iterations(here, own)
        return count == iterations(there, own) and all(
            stage(here, task, own, 0, i) == stage(there, task, own, 0, i)
            for i in range(count)
            for stage in derive.round_of(own).values()
        )

    def _explores_alike(self, task: str, method: str, seed: int) -> bool:
        """Whether a variant's iteration 0 draws the same samples as its method's iteration 0."""
        own, one, other = family(method), self.tasks[task], self.config_of(task, method)
        first = derive.explore(one, task, own, seed, 0)
        return first == derive.explore(other, task, own, seed, 0)

    def of_iteration(self, task: str, method: str, seed: int, iteration: int, name: str) -> str:
        """Return file `name` of one iteration; methods with equal first samples share them."""
        if iteration == 0 and name.split(".")[0] in EXPLORED:
            other = derive.explorer(family(method), 0)
            if other != family(method) or self._explores_alike(task, method, seed):
                method = other
        return _path(
            paths.ITERATION, name, task=task, method=method, seed=seed, iteration=iteration
        )

    def of_iterations(
        self, task: str, method: str, seed: int, names: Iterable[str], count: int | None = None
    ) -> list[str]:
        """Return the files `names` of the first `count` iterations; None: of all iterations."""
        numbers = range(self.iterations(task, method) if count is None else count)
        return [self.of_iteration(task, method, seed, i, name) for i in numbers for name in names]

    def reference_caches(self, task: str, method: str, seed: int, iteration: int) -> list[str]:
        """Return the files of the base model's hidden states, from sampling and past training."""
        sampled = [(i, "samples") for i in range(iteration + 1)]
        trained = [(i, "training") for i in range(iteration)]
        return [
            self.of_iteration(task, method, seed, i, f"{stage}.hidden.safetensors")
            for i, stage in sampled + trained
        ]

    # ---------------------------------------------------------------------------- trained files
    def checkpoints(self, task: str, method: str, seed: int) -> list[str]:
        """Return the checkpoints with which a method is evaluated; the base model has none."""
        method = self.trained_as(task, method)
        if family(method) in self.iterated:
            last = self.iterations(task, method) - 1
            return [self.of_iteration(task, method, seed, last, "checkpoint")]
        return self.parts(task, method, seed, "checkpoint")

    def parts(self, task: str, method: str, seed: int, name: str) -> list[str]:
        """Return file `name` of each part that a method trains on the corpus."""
        pattern = paths.PART if method == family(method) else paths.VARIED_PART
        return [
            _path(pattern, name, task=task, method=method, part=part, seed=seed)
            for part in spec(family(method)).parts
        ]

    # ------------------------------------------------------------------------------ evaluations
    def evaluated(
        self,
        task: str,
        name: str,
        methods: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Return file `name` of all evaluations, ordered by split, decoding, method and seed."""
        decoded = {
            method: derive.decodings(self.config_of(task, method), family(method))
            for method in methods or self.task(task).methods
        }
        return [
            _path(
                paths.EVALUATION,
                name,
                task=task,
                method=method,
                seed=seed,
                split=split,
                decoding=decoding,
            )
            for split in splits or self.task(task).splits
            for decoding in dict.fromkeys(n for names in decoded.values() for n in names)
            for method in decoded
            for seed in seeds or self.config.seeds
            if decoding in decoded[method]
        ]

    def measured(
        self, task: str, methods: Sequence[str] | None = None, splits: Sequence[str] | None = None
    ) -> list[str]:
        """Return the files that a table reads besides the metrics of all evaluations."""
        return [
            file
            for name in ("settings.json", "prompts.parquet")
            for file in self.evaluated(task, name, methods, splits)
        ]

    def predictions(self, task: str, method: str, seed: int, split: str) -> list[str]:
        """Return the file of a method's predictions on a split, if prompts have continuations."""
        if self.task(task).prefix is None:
            return []
        place = {"task": task, "method": method, "seed": seed, "split": split}
        return [_path(paths.PREDICTED, "predictions.parquet", **place)]

    def wants(self, task: str, method: str, name: str) -> bool:
        """Whether file `name` is made for the evaluations of a method."""
        if Path(name).stem == "second_scores":
            return self.task(task).second_scorer is not None
        config = self.config_of(task, method)
        keeps_all = spec(family(method)).draws(config) == 1  # MAUVE reads all generations
        return (
            self.task(task).prefix is not None and config.evaluation.mauve is not None and keeps_all
        )

    # ------------------------------------------------------------------------ settings of verbs
    def settings(self, task: str) -> Iterator[tuple[str, str, Section]]:
        """Yield the settings of a task's verbs for seed 1 as (verb, method or part, settings)."""
        own, here = self.task(task), self.tasks[task]
        yield "score", "", derive.score(self.config, own.scorer)
        yield "corpus", "", derive.corpus(here, task, 1)
        yield "judge", "", derive.judge(here)
        if (mauve := derive.mauve(here)) is not None:
            yield "mauve", "", mauve
        for method in (*own.methods, *(name for t, name in self.variants if t == task)):
            config, kind = self.config_of(task, method), family(method)
            for i in range(self.iterations(task, method)):
                for verb, derived in derive.round_of(kind).items():
                    yield verb, method, derived(config, task, kind, 1, i)
            for part in spec(kind).parts:
                yield "fit", part, derive.fit(config, task, part, 1)
            for split in own.splits:
                if (predict := derive.predict(config, task, kind, split)) is not None:
                    yield "predict", method, predict
                for name in derive.decodings(config, kind):
                    yield "generate", method, derive.generate(config, task, kind, 1, split, name)
                    yield "evaluate", method, derive.evaluate(config, task, method, 1, split, name)

    # ------------------------------------------------------------------------------------ costs
    def training_costs(self, task: str, method: str, seed: int) -> list[str]:
        """Return the cost files of all stages before a method's evaluation."""
        method = self.trained_as(task, method)
        start = derive.model(self.config, task, family(method))
        models = [n for n in derive.lineage(self.config, start) if n in self.finetuned]
        found = [f"{RESULTS}/models/{name}/training.json" for name in models]
        if family(method) in self.iterated:
            names = [f"{stage}.json" for stage in (*EXPLORED, "training")]
            return found + self.of_iterations(task, method, seed, names)
        if not spec(family(method)).parts:
            return found
        first = {"task": task, "method": "quark", "seed": seed, "iteration": 0}
        found += [_path(paths.ITERATION, f"{stage}.json", **first) for stage in EXPLORED]
        found.append(_path(paths.CORPUS, "corpus.json", task=task, seed=seed))
        return found + self.parts(task, method, seed, "training.json")

    def costs(self, task: str) -> list[str]:
        """Return the cost files of all stages of a task."""
        own = self.task(task)
        runs = [(method, seed) for method in own.methods for seed in self.config.seeds]
        trained = [cost for run in runs for cost in self.training_costs(task, *run)]
        predicted = [
            cost.replace("predictions.parquet", "predictions.json")
            for run in runs
            for split in own.splits
            for cost in self.predictions(task, *run, split)
        ]
        asked = [
            file
            for name in ("second_scores.json", "mauve.json")
            for method in own.methods
            if self.wants(task, method, name)
            for file in self.evaluated(task, name, [method])
        ]
        stages = ("generations.json", "scores.json", "likelihoods.json")
        evaluated = [file for stage in stages for file in self.evaluated(task, stage)]
        return [*dict.fromkeys(trained), *predicted, *asked, *evaluated]

    # ------------------------------------------------------------------- tables, pages, tracking
    def sweep(self, name: str) -> list[str]:
        """Return the methods of an ablation's table: the base model, Quark and its variants."""
        values = self.config.ablations[name].variants
        return ["base", "quark", *(f"quark.{name}.{value}" for value in values)]

    def tried(self, task: str) -> list[str]:
        """Return the methods of a tuning's table: the base model and the tries.

        Raises:
            ConfigError: the configuration names no tries for the task.
        """
        if task not in self.config.tuning:
            raise ConfigError(f"tuning.{task} is missing: it lists the settings to try")
        tries = self.config.tuning[task].variants
        return ["base", *(name for name in tries if (task, name) in self.variants)]

    def logged(self, task: str, method: str, seed: int) -> list[str]:
        """Return the files that MLflow logs besides the table: metrics, iterations, checkpoints."""
        found = self.evaluated(task, "metrics.json", [method], seeds=[seed])
        rounds = spec(method).rounds
        if rounds is not None:
            names = [f"{stage}.json" for stage in rounds.stages]
            found += self.of_iterations(task, method, seed, names)
        return found + (self.checkpoints(task, method, seed) if method in derive.QUARKS else [])

    def compared(self, task: str) -> list[str]:
        """Return the methods whose samples a task's page compares: the base model and Quark."""
        return [m for m in self.task(task).methods if m == "base" or m in derive.QUARKS]

    def shown(self, task: str, name: str) -> list[str]:
        """Return file `name` of the samples on a task's page: first split, decoding and seed."""
        first = next(iter(self.tasks[task].evaluation.decoding))
        return [
            _path(
                paths.EVALUATION,
                name,
                task=task,
                method=method,
                seed=self.config.seeds[0],
                split=self.task(task).splits[0],
                decoding=first,
            )
            for method in self.compared(task)
        ]

    def drawn(self, task: str, method: str, seed: int) -> list[str]:
        """Return the files of all iterations that a method's curves show."""
        names = ["samples.parquet", "likelihoods.parquet", "pool.json", "training.json"]
        if self.task(task).second_scorer not in (None, SERVICE):  # a service is slow, or costs
            names.append("second_scores.parquet")
        return self.of_iterations(task, method, seed, names)

    def figures(self, task: str) -> list[str]:
        """Return the figures of a task's page."""
        folder = f"{RESULTS}/figures/{task}"
        drawn = [f"{folder}/tradeoff.svg"]
        if self._has_counterparts(task):
            drawn.append(f"{folder}/published.svg")
        for method in self.task(task).methods:
            if method in derive.QUARKS:
                seeds = (f"seed-{seed}/rewards.svg" for seed in self.config.seeds)
                drawn += [f"{folder}/{method}/{name}" for name in ("curves.svg", *seeds)]
        return drawn

    def _has_counterparts(self, task: str) -> bool:
        """Whether the paper has numbers of the base model and of another method on our splits."""
        given, own = TASKS[task].published, self.task(task)
        return (
            "base" in own.methods
            and given.decoding in self.tasks[task].evaluation.decoding
            and any(split in given.splits for split in own.splits)
            and any(m in given.methods for m in own.methods if m != "base")
        )
