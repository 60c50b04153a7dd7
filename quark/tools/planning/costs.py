"""Estimate the work of each task's stages from the configuration: tokens, FLOP, bytes.

`quark.tools.planning.speed` estimates how long a machine takes for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from quark.config import (
    Config,
    ConfigError,
    GeDi,
    Method,
    Optimisation,
    Place,
    Sampling,
    TaskName,
    for_task,
)
from quark.config.registry import METHODS, in_rounds, iterations, parts
from quark.config.spec import is_linear
from quark.core.files import read_json
from quark.stages import derive
from quark.tools.planning.flop import (
    KNOWN,
    Size,
    forward,
    learning,
    learning_map,
    sampling,
    trained,
)

PROMPT = 15
"""Assumed number of tokens of a prompt: half a sentence."""
RESOURCES = Path("resources")


@dataclass(frozen=True)
class Cost:
    """The total cost of all jobs of one kind.

    Attributes:
        task: the task, or "models" or "prompts", which several tasks may share.
        method: the method, or the name of the model or of the prompts.
        stage: the verb.
        place: which of the method's jobs, such as iteration-1 or nontoxic/nucleus; often empty.
        jobs: number of jobs.
        calls: number of texts that are scored.
        sequences: number of sequences in training.
        tokens: number of tokens that are sampled, read or trained on.
        flop: floating-point operations of matrix products.
        disk: bytes written.
        memory: bytes of the weights, gradients and moments that one job must hold.
        classifier: whether the scorer is a classifier.
    """

    task: str
    method: str
    stage: str
    jobs: int = 1
    calls: int = 0
    sequences: int = 0
    tokens: int = 0
    flop: float = 0.0
    disk: float = 0.0
    memory: float = 0.0
    classifier: bool = False
    place: str = ""

    def times(self, count: int) -> "Cost":
        """Return the cost of `count` times as many jobs."""
        names = ("jobs", "calls", "sequences", "tokens", "flop", "disk")
        counts = {name: count * getattr(self, name) for name in names}
        return replace(self, **counts)


def plan(
    config: Config, tasks: list[TaskName] | None = None, resources: Path = RESOURCES
) -> list[Cost]:
    """Return the cost of each kind of job for the tables of some tasks, all seeds together.

    Args:
        config: the whole configuration.
        tasks: the tasks; None: all tasks.
        resources: directory of the fetched models and prompts. The sizes of those that are not
            fetched come from `KNOWN` and `prompts.NAME.roughly`.

    Raises:
        ConfigError: a size is not known; the message says how to make it known.
    """
    shared: dict[Cost, None] = {}
    own: list[Cost] = []
    for task in list(config.tasks) if tasks is None else tasks:
        for cost in _Task(for_task(config, task), task, resources).costs():
            if cost.task == task:
                own.append(cost.times(len(config.seeds)))
            else:
                shared[cost] = None
    return [*shared, *own]


class _Task:
    """The costs of one task."""

    def __init__(self, config: Config, task: TaskName, resources: Path) -> None:
        self.config, self.task, self.resources = config, task, resources
        self.own = config.tasks[task]
        self.prompt = self.own.prefix or PROMPT
        self.prompts = self.own.prompts
        self.linear = is_linear(config)

    def costs(self) -> Iterator[Cost]:
        """Yield the costs of one seed, and the costs that all seeds share."""
        starts = {derive.model(self.config, self.task, method) for method in self.own.methods}
        lines = [derive.lineage(self.config, name) for name in sorted(starts)]
        for name in dict.fromkeys(name for line in lines for name in reversed(line)):
            if self.config.models[name].finetuned is not None:
                yield self._finetune(name)
        yield from self._sorting()
        parts = sorted({part for m in self.own.methods for part in METHODS[m].parts})
        explorers = {derive.explorer(m, 0) for m in self.own.methods}
        if (parts or "quark" in explorers) and "quark" not in self.own.methods:
            yield from self._explore("quark", 0)  # others train on its first samples
        if parts:
            yield Cost(self.task, "corpus", "corpus")
            yield from (self._fit(part) for part in parts)
        for method in self.own.methods:
            yield from self._iterations(method)
            yield from self._evaluation(method)

    # --------------------------------------------------------------------------------- training
    def _iterations(self, method: Method) -> Iterator[Cost]:
        for iteration in range(iterations(self.config, method)):
            explorer = derive.explorer(method, iteration)
            if explorer == method:
                yield from self._explore(method, iteration)
            if method in derive.QUARKS:
                yield Cost(self.task, method, "quantize")
                trained = self._train(method)
            else:
                how = derive.explore(self.config, self.task, explorer, 1, iteration)
                trained = self._learn(method, how.samples, iteration)
            yield replace(trained, place=f"iteration-{iteration}")

    def _explore(self, method: Method, iteration: int) -> Iterator[Cost]:
        how = derive.explore(self.config, self.task, method, 1, iteration)
        prompts = self._count(self.prompts, "train", how.prompts)
        model = self._size(derive.model(self.config, self.task, method))
        sample = self._sampled(method, "sample", prompts, how.samples, how.sampling, model)
        cache = 2 * model.width * sample.tokens if how.cache else 0
        place = f"iteration-{iteration}"
        yield replace(sample, disk=sample.disk + cache, place=place)
        yield replace(self._scored(method, prompts * how.samples), place=place)

    def _train(self, method: Method) -> Cost:
        quark, how = self.config.quark, self.config.quark.training
        model = self._size(derive.model(self.config, self.task, method))
        new = quark.sampling.max_new_tokens
        reference = forward(model, 0 if how.reference_cache else self.prompt + new, new)
        learnt = trained(model, how)
        if self.linear:
            flop, learnt = learning_map(model, new) + reference, model.width**2
        else:
            flop = learning(model, self.prompt + new, new, how) + reference
        return Cost(
            self.task,
            method,
            "train",
            sequences=how.sequences,
            tokens=how.sequences * new,
            flop=how.sequences * flop,
            disk=12 * learnt,  # float32, and both moments of Adam
            memory=self._training(model, learnt, reference=not how.reference_cache),
        )

    def _learn(self, method: Method, samples: int, iteration: int) -> Cost:
        rounds = in_rounds()[method]
        assert rounds.training is not None, f"{method} is Quark"
        how = rounds.training(self.config)
        passes = getattr(how, "epochs", 1) * rounds.trains_on(self.config)
        model = self._size(derive.model(self.config, self.task, method))
        rows = self._count(self.prompts, "train", self.config.quark.prompts) * samples
        new = self.config.quark.sampling.max_new_tokens
        read = 0 if self.linear else self.prompt + new
        once = forward(model, read, new)  # the rollout under the base model
        if iteration or not self.linear:  # and under the policy, if its map differs
            once *= 2
        learn = learning_map(model, new) if self.linear else learning(model, read, new, how)
        flop = once + passes * learn
        learnt = model.width**2 if self.linear else trained(model, how)
        return Cost(
            self.task,
            method,
            "learn",
            sequences=round(passes * rows),
            tokens=round(passes * rows * new),
            flop=rows * flop,
            disk=12 * learnt,
            memory=self._training(model, learnt, reference=True),
        )

    def _fit(self, part: str) -> Cost:
        corpus = self.config.baselines.corpus
        prompts = self._count(self.prompts, "train", self.config.quark.prompts)
        explored = prompts * self.config.quark.first_samples
        rows = _least(prompts, corpus.rows.prompts)
        rows += _least(explored, None if corpus.rows.samples is None else 2 * corpus.rows.samples)
        if corpus.texts is not None:
            rows += self._count(corpus.texts, "train", corpus.rows.texts)
        model = self._size(self.own.model)
        about, tokens = parts()[part], corpus.tokens
        how = about.training(self.config)
        if about.label is not None:
            rows //= 2  # texts of one class only
        passes = getattr(how, "epochs", 1)
        read: float = forward(model, tokens, 0)
        if not isinstance(how, Optimisation):  # a classifier of the hidden states
            learnt, flop = 2.0 * (model.width + 1), read
        elif how.trained_layers == 0 and (self.linear or not about.has_tokens):
            learnt = model.width**2
            flop = read + about.readings * learning_map(model, tokens)
        else:
            learnt = trained(model, how)
            flop = about.readings * learning(model, tokens, tokens, how)
        return Cost(
            self.task,
            part,
            "fit",
            sequences=passes * rows,
            tokens=passes * rows * corpus.tokens,
            flop=passes * rows * flop,
            disk=4 * learnt,
            memory=self._training(model, learnt),
        )

    def _finetune(self, name: str) -> Cost:
        source = self.config.models[name].finetuned
        assert source is not None  # the caller passes only fine-tuned models
        model = self._size(source.model)
        rows = self._count(source.texts, "train", source.rows) * source.training.epochs
        flop = learning(model, source.tokens, source.tokens, source.training)
        return Cost(
            "models",
            name,
            "finetune-model",
            sequences=rows,
            tokens=rows * source.tokens,
            flop=rows * flop,
            disk=4 * (model.trunk + model.head),
            memory=self._training(model, model.trunk + model.head),
        )

    def _sorting(self) -> Iterator[Cost]:
        sorting = self.config.prompts[self.prompts].sorted
        if sorting is not None:
            how = derive.candidates(self.config, self.prompts, sorting)
            prompts = self._count(self.prompts, "candidates", None)
            model = self._size(sorting.model)
            tokens, flop, disk = sampling(prompts, how.samples, PROMPT, how.sampling, model)
            yield Cost(
                "prompts",
                self.prompts,
                "sort-prompts",
                jobs=3,  # samples and scores are separate stages
                calls=prompts * how.samples,
                tokens=tokens,
                flop=flop,
                disk=disk,
            )

    def _weights(self, model: Size) -> float:
        """Return the bytes of a frozen model."""
        return (4 if self.config.precision == "fp32" else 2) * (model.trunk + model.head)

    def _training(self, model: Size, learnt: float, reference: bool = False) -> float:
        """Return the bytes to train some parameters in float32, with gradients and moments.

        A whole trained model needs the base model beside it as `reference`; else that is the
        trained model without what it learnt.
        """
        beside = reference and learnt > model.width**2
        frozen = self._weights(model) * (2 if beside else 1)
        every = model.trunk + model.head
        return frozen - self._weights(model) * min(1, learnt / every) + 16 * learnt

    # ------------------------------------------------------------------------------- evaluation
    def _evaluation(self, method: Method) -> Iterator[Cost]:
        start = derive.model(self.config, self.task, method)
        model, judge = self._size(start), self._size(self.own.judge)
        for split in self.own.splits:
            first = derive.evaluated_prompts(self.config, self.task, method, split)
            prompts = self._count(self.prompts, split, first)
            for decoding in derive.decodings(self.config, method):
                for cost in self._evaluated(method, split, decoding, prompts, model, judge):
                    yield replace(cost, place=cost.place or f"{split}/{decoding}")
            predicted = derive.predict(self.config, self.task, method, split)
            if predicted is not None:
                read = forward(model, self.prompt + predicted.tokens, predicted.tokens)
                tokens = prompts * predicted.tokens
                flop = prompts * read
                yield Cost(self.task, method, "predict", tokens=tokens, flop=flop, place=split)

    def _evaluated(
        self, method: Method, split: str, decoding: str, prompts: int, model: Size, judge: Size
    ) -> Iterator[Cost]:
        """Yield the costs of one split under one decoding."""
        how = self.config.evaluation.decoding[decoding]
        generated = derive.generate(self.config, self.task, method, 1, split, decoding)
        samples, draws = generated.samples, METHODS[method].draws(self.config)
        made = self._sampled(method, "generate", prompts, samples, how, model)
        flop = made.flop * self._passes(method) / draws
        if self.linear and isinstance(generated.steering, GeDi | Place):
            # products of a map with the output embeddings, besides a token's own
            more = 2 if isinstance(generated.steering, GeDi) else 1
            flop += more * 2 * model.head * made.tokens
        yield replace(made, flop=flop, memory=self._weights(model) * self._models(method))
        yield self._scored(method, prompts * samples)
        second = self.own.second_scorer
        if second is not None:
            scored = self._scored(method, prompts * samples, second)
            yield replace(scored, place=f"{split}/{decoding}/second")
        _, read, _ = sampling(prompts, samples, self.prompt, how, judge)
        start = derive.model(self.config, self.task, method)
        if generated.judged and self.own.judge == start:
            read = 2 * judge.head * made.tokens  # computed during sampling
        held = self._weights(judge) if read else 0.0
        yield Cost(self.task, method, "judge", tokens=made.tokens, flop=read, memory=held)
        yield Cost(self.task, method, "evaluate")

    def _models(self, method: Method) -> int:
        """Return how many models a method decodes with; a map or a classifier is none."""
        if METHODS[method].is_plain:  # what it trains is the model that decodes
            return 1
        how = (parts()[part].training(self.config) for part in METHODS[method].parts)
        return 1 + sum(isinstance(one, Optimisation) and one.trained_layers != 0 for one in how)

    def _passes(self, method: Method) -> int:
        """Return how many models read each token of a method, including its own."""
        return METHODS[method].passes(self.config)

    def _sampled(
        self, method: str, stage: str, prompts: int, samples: int, how: Sampling, model: Size
    ) -> Cost:
        tokens, flop, disk = sampling(prompts, samples, self.prompt, how, model)
        memory = self._weights(model)
        return Cost(self.task, method, stage, tokens=tokens, flop=flop, disk=disk, memory=memory)

    def _scored(self, method: str, texts: int, scorer: str | None = None) -> Cost:
        model = (scorer or self.own.scorer) in self.config.classifiers
        return Cost(self.task, method, "score", calls=texts, classifier=model)

    # ------------------------------------------------------------------------------------ sizes
    def _size(self, name: str) -> Size:
        """Return a model's size: of the fetched model, as configured, or from `KNOWN`."""
        source = self.config.models[name]
        if source.finetuned is not None:
            return self._size(source.finetuned.model)
        folder = self.resources / "models" / name
        if (folder / "manifest.json").exists():
            found, about = read_json(folder / "config.json"), read_json(folder / "manifest.json")
            width = found.get("hidden_size") or found["n_embd"]
            layers = found.get("num_hidden_layers") or found["n_layer"]
            head = width * about["vocabulary"]
            tied = found.get("tie_word_embeddings", True)
            return Size(layers, width, about["parameters"] - head * (1 if tied else 2), head)
        if source.random is not None:
            n, d = source.random.layers, source.random.width
            return Size(n, d, 12 * n * d * d, 257 * d)
        repository = source.hub.repository.split("/")[-1] if source.hub else name
        if repository not in KNOWN:
            raise ConfigError(
                f"models.{name}: its size is not known before it is fetched: "
                f"snakemake --cores all {folder}"
            )
        return KNOWN[repository]

    def _count(self, name: str, split: str, first: int | None) -> int:
        """Return the number of a split's prompts: of the made file, as configured, or roughly."""
        prompts = self.config.prompts[name]
        file = self.resources / "prompts" / name / f"{split}.parquet"
        sizes = {key: part.prompts for key, part in prompts.splits.items()}
        if prompts.sorted is not None:
            sizes |= {key: part.prompts for key, part in prompts.sorted.splits.items()}
        if file.exists():
            count = pq.read_metadata(file).num_rows
        elif split in sizes:
            count = sizes[split]
        elif prompts.roughly is not None:
            taken = (part.prompts for part in prompts.splits.values() if part.source is None)
            count = prompts.roughly - sum(taken)
        elif first is not None:
            count = first
        else:
            raise ConfigError(
                f"prompts.{name}: how many there are is not known before they are fetched: "
                f"snakemake --cores all {file.parent}, or set prompts.{name}.roughly"
            )
        return _least(count, first)


def _least(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)
