"""What a configuration will cost, estimated before anything runs (`quark plan`).

Layer 4: imports no torch. Counted are the matrix products: with N parameters in a model's layers
and H = width x vocabulary in its head, a token costs 2N forward and 2H where it is predicted;
backward twice as much for what learns, once for what only passes a gradient on. Every continuation
has its full length, prompts have `PROMPT` tokens unless they are cut, samples of a prompt share it,
and a classifier that scores is left out. The estimate is coarse; it shows what is large.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
from rich.table import Column, Table

from quark import settings
from quark.config import (
    Config,
    ConfigError,
    LoRA,
    Method,
    Optimisation,
    Sampling,
    TaskName,
    Training,
    for_task,
)
from quark.files import read_json

PROMPT = 15
"""Tokens of a prompt: half a sentence."""
TEXT = 5
"""Bytes of a token's text."""

RESOURCES = Path("resources")


@dataclass(frozen=True)
class Size:
    """A model's layers, width, and parameters in its layers and in its head."""

    layers: int
    width: int
    trunk: float
    head: float


# layers, width, vocabulary; a layer of GPT-2 has 12 width ** 2 parameters, biases aside
GPT2 = {
    "gpt2": (12, 768),
    "gpt2-medium": (24, 1024),
    "gpt2-large": (36, 1280),
    "gpt2-xl": (48, 1600),
}
KNOWN = {name: Size(n, d, 12 * n * d * d, 50257 * d) for name, (n, d) in GPT2.items()}
KNOWN["smollm2-135m"] = Size(30, 576, 106.2e6, 49152 * 576)


@dataclass(frozen=True)
class Cost:
    """What jobs of one kind need together.

    Attributes:
        task: or "models" and "prompts", which several tasks may share.
        method: or the model's or the prompts' name.
        stage: the verb.
        jobs: how many.
        calls: texts that a scorer is asked for.
        sequences: that are trained on.
        tokens: sampled, read or trained on.
        flop: of matrix products.
        disk: bytes written.
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


def plan(
    config: Config, tasks: list[TaskName] | None = None, resources: Path = RESOURCES
) -> list[Cost]:
    """The cost of each kind of job that the tables of some tasks need, all seeds together.

    Args:
        config: the whole configuration.
        tasks: None: all of them.
        resources: where models and prompts lie if they were fetched; else their sizes are those of
            `KNOWN` and `prompts.NAME.roughly`.

    Raises:
        ConfigError: a size is not known; the text says how to make it known.
    """
    found: list[Cost] = []
    for task in tasks or list(config.tasks):
        found += _Task(for_task(config, task), task, resources).costs()
    shared = {cost: None for cost in found if cost.task in ("models", "prompts")}
    return [*shared, *(cost for cost in found if cost not in shared)]


class _Task:
    """The costs of one task."""

    def __init__(self, config: Config, task: TaskName, resources: Path) -> None:
        self.config, self.task, self.resources = config, task, resources
        self.own = config.tasks[task]
        self.seeds = len(config.seeds)
        self.prompt = self.own.prefix or PROMPT
        self.prompts = self.own.prompts

    def costs(self) -> Iterator[Cost]:
        starts = {settings.model(self.config, self.task, method) for method in self.own.methods}
        lines = [settings.lineage(self.config, name) for name in sorted(starts)]
        for name in dict.fromkeys(name for line in lines for name in reversed(line)):
            if self.config.models[name].finetuned is not None:
                yield self._finetune(name)
        yield from self._sorting()
        if any(method in settings.PARTS for method in self.own.methods):
            if "quark" not in self.own.methods:  # the corpus takes the samples of its iteration 0
                yield from self._explore("quark", 0)
            parts = {part for m in self.own.methods for part in settings.PARTS.get(m, ())}
            yield from (self._fit(part) for part in sorted(parts))
        for method in self.own.methods:
            yield from self._iterations(method)
            yield from self._evaluation(method)

    # --------------------------------------------------------------------------------- training
    def _iterations(self, method: Method) -> Iterator[Cost]:
        if method in settings.QUARKS:
            for iteration in range(self.config.quark.iterations):
                yield from self._explore(method, iteration)
                yield self._train(method)
        elif method == "ppo":
            for iteration in range(self.config.baselines.ppo.iterations):
                yield from self._explore(method, iteration)
                yield self._ppo()

    def _explore(self, method: Method, iteration: int) -> Iterator[Cost]:
        how = settings.explore(self.config, self.task, method, 1, iteration)
        prompts = self._count(self.prompts, "train", how.prompts)
        model = self._size(settings.model(self.config, self.task, method))
        sample = self._sampled(method, "sample", prompts, how.samples, how.sampling, model)
        memo = 2 * model.width * sample.tokens if how.memo else 0
        yield replace(sample, disk=sample.disk + memo)
        yield self._scored(method, prompts * how.samples)

    def _train(self, method: Method) -> Cost:
        quark, how = self.config.quark, self.config.quark.training
        model = self._size(settings.model(self.config, self.task, method))
        new = quark.sampling.max_new_tokens
        reference = _forward(model, 0 if how.base_memo else self.prompt + new, new)
        flop = _learning(model, self.prompt + new, new, how) + reference
        return Cost(
            *(self.task, method, "train", self.seeds),
            sequences=self.seeds * how.sequences,
            tokens=self.seeds * how.sequences * new,
            flop=self.seeds * how.sequences * flop,
            disk=self.seeds * 12 * _trained(model, how),  # float32, and both moments of Adam
        )

    def _ppo(self) -> Cost:
        how = self.config.baselines.ppo
        model = self._size(self.own.model)
        rows = self._count(self.prompts, "train", self.config.quark.prompts) * how.samples
        new = self.config.quark.sampling.max_new_tokens
        once = 2 * _forward(model, self.prompt + new, new)  # the rollout under policy and base
        flop = once + how.epochs * _learning(model, self.prompt + new, new, how)
        return Cost(
            *(self.task, "ppo", "train-ppo", self.seeds),
            sequences=self.seeds * how.epochs * rows,
            tokens=self.seeds * how.epochs * rows * new,
            flop=self.seeds * rows * flop,
            disk=self.seeds * 12 * _trained(model, how),
        )

    def _fit(self, part: settings.Part) -> Cost:
        baselines, corpus = self.config.baselines, self.config.baselines.corpus
        prompts = self._count(self.prompts, "train", self.config.quark.prompts)
        explored = prompts * self.config.quark.first_samples
        rows = _least(prompts, corpus.rows.prompts)
        rows += _least(explored, None if corpus.rows.samples is None else 2 * corpus.rows.samples)
        if corpus.texts is not None:
            rows += self._count(corpus.texts, "train", corpus.rows.texts)
        if part in ("expert", "anti-expert"):
            rows //= 2  # of one class
        model = self._size(self.own.model)
        how = baselines.gedi.training if part == "gedi" else baselines.dapt
        flop = how.epochs * _learning(model, corpus.tokens, corpus.tokens, how)
        if part == "gedi":
            flop *= 2  # each text under both classes
        if part == "classifier":
            flop = _forward(model, corpus.tokens, 0)
        return Cost(
            *(self.task, part, "fit", self.seeds),
            sequences=self.seeds * rows,
            tokens=self.seeds * rows * corpus.tokens,
            flop=self.seeds * rows * flop,
            disk=self.seeds * 4 * _trained(model, how),
        )

    def _finetune(self, name: str) -> Cost:
        source = self.config.models[name].finetuned
        assert source is not None  # the caller asks for no other
        model = self._size(source.model)
        rows = self._count(source.texts, "train", source.rows) * source.training.epochs
        flop = _learning(model, source.tokens, source.tokens, source.training)
        written = 4 * (model.trunk + model.head)
        tokens = rows * source.tokens
        return Cost(
            *("models", name, "finetune-model", 1, 0, rows, tokens), flop=rows * flop, disk=written
        )

    def _sorting(self) -> Iterator[Cost]:
        sorting = self.config.prompts[self.prompts].sorted
        if sorting is not None:
            how = settings.candidates(self.config, self.prompts, sorting)
            prompts = self._count(self.prompts, "candidates", None)
            model = self._size(sorting.model)
            cost = _sampling(prompts, how.samples, PROMPT, how.sampling, model)
            calls = prompts * how.samples
            yield Cost("prompts", self.prompts, "sort-prompts", 1, calls, 0, *cost)

    # ------------------------------------------------------------------------------- evaluation
    def _evaluation(self, method: Method) -> Iterator[Cost]:
        model = self._size(settings.model(self.config, self.task, method))
        judge = self._size(self.own.judge)
        for split in self.own.splits:
            first = settings.evaluated_prompts(self.config, self.task, method, split)
            prompts = self._count(self.prompts, split, first)
            for decoding in settings.decodings(self.config, method):
                how = self.config.evaluation.decoding[decoding]
                samples = self.config.evaluation.samples
                made = self._sampled(method, "generate", prompts, samples, how, model)
                yield replace(made, flop=made.flop * self._passes(method))
                yield self._scored(method, prompts * samples)
                if self.own.second_scorer is not None:
                    yield self._scored(method, prompts * samples)
                _, read, _ = _sampling(prompts, samples, self.prompt, how, judge)
                judged = Cost(self.task, method, "judge", self.seeds, tokens=made.tokens)
                yield replace(judged, flop=self.seeds * read)
            predicted = settings.predict(self.config, self.task, method, split)
            if predicted is not None:
                read = _forward(model, self.prompt + predicted.tokens, predicted.tokens)
                tokens = self.seeds * prompts * predicted.tokens
                flop = self.seeds * prompts * read
                yield Cost(self.task, method, "predict", self.seeds, tokens=tokens, flop=flop)

    def _passes(self, method: Method) -> int:
        """How often a method reads each token, beside the base model's once."""
        steps = self.config.baselines.pplm.iterations
        several = {"dexperts": 3, "gedi": 3, "quark_guided": 3, "pplm": 2 + 3 * steps}
        return several.get(method, 1)

    def _sampled(
        self, method: str, stage: str, prompts: int, samples: int, how: Sampling, model: Size
    ) -> Cost:
        tokens, flop, disk = _sampling(prompts, samples, self.prompt, how, model)
        each = (self.seeds * tokens, self.seeds * flop, self.seeds * disk)
        return Cost(self.task, method, stage, self.seeds, 0, 0, *each)

    def _scored(self, method: str, texts: int) -> Cost:
        return Cost(self.task, method, "score", self.seeds, calls=self.seeds * texts)

    # ------------------------------------------------------------------------------------ sizes
    def _size(self, name: str) -> Size:
        """How large a model is: as it was fetched, as it is made, or as it is known."""
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
        """How many prompts a split has: as they were cut, as configured, or roughly."""
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


# --------------------------------------------------------------------------------------- formulas
def _forward(model: Size, read: int, predicted: int) -> float:
    """FLOP of reading tokens and predicting some of them."""
    return 2 * model.trunk * read + 2 * model.head * predicted


def _learning(model: Size, read: int, predicted: int, how: Optimisation) -> float:
    """FLOP of learning from a sequence."""
    gradient = 2 * model.trunk * read + 2 * model.head * predicted  # of what was read
    weights = 2 * _trained(model, how) * read  # of the head fewer: it predicts less than is read
    weights -= 2 * model.head * (read - predicted) if _whole(how) else 0
    passed = 1.0 if how.trained_layers is None else max(_share(model, how), 0.5)
    once = _forward(model, read, predicted)
    again = once if how.gradient_checkpointing else 0
    return once + passed * gradient + weights + again


def _share(model: Size, how: Optimisation) -> float:
    """What share of the layers learns."""
    return 1.0 if how.trained_layers is None else min(1.0, how.trained_layers / model.layers)


def _whole(how: Optimisation) -> bool:
    """Whether all parameters learn."""
    return how.trained_layers is None and _adapters(how) is None


def _adapters(how: Optimisation) -> LoRA | None:
    return how.lora if isinstance(how, Training) else None


def _trained(model: Size, how: Optimisation) -> float:
    """How many parameters learn."""
    adapters = _adapters(how)
    if adapters is not None:  # the maps of a layer have 18 d rows and columns, as in GPT-2
        return _share(model, how) * model.layers * 18 * model.width * adapters.rank
    return _share(model, how) * model.trunk + (model.head if _whole(how) else 0)


def _sampling(
    prompts: int, samples: int, prompt: int, how: Sampling, model: Size
) -> tuple[int, float, float]:
    """Tokens, FLOP and bytes of continuing prompts."""
    new = how.max_new_tokens
    tokens = prompts * samples * new
    flop = prompts * _forward(model, prompt, 0) + prompts * samples * _forward(model, new, new)
    return tokens, flop, prompts * samples * (prompt + new) * (4 + TEXT)


def _least(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)


# ------------------------------------------------------------------------------------------- text
def table(costs: Sequence[Cost], tflops: float, utilisation: float) -> Table:
    """The costs by task and method, and their sum, for a terminal.

    Args:
        costs: what `plan` returned.
        tflops: of the machine at its best, 10 ** 12 operations a second.
        utilisation: the share of that which is reached.
    """
    shown = Table(Column("", no_wrap=True), title="What it will cost, roughly")
    for column in ("jobs", "scores", "sequences", "tokens", "PFLOP", "hours", "GB"):
        shown.add_column(column, justify="right", no_wrap=True)
    groups: dict[str, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    for cost in costs:
        groups[cost.task][cost.method].append(cost)
    for task, methods in groups.items():
        shown.add_row(f"[bold]{task}")
        for method, group in methods.items():
            shown.add_row(f"  {method}", *_cells(group, tflops * utilisation))
        shown.add_section()
    shown.add_row("[bold]total", *_cells(costs, tflops * utilisation))
    return shown


def _cells(costs: Sequence[Cost], tflops: float) -> list[str]:
    def total(name: str) -> float:
        return float(sum(getattr(cost, name) for cost in costs))

    counts = [_short(total(name)) for name in ("jobs", "calls", "sequences", "tokens")]
    hours = total("flop") / (tflops * 1e12) / 3600
    measures = (total("flop") / 1e15, hours, total("disk") / 1e9)
    return [*counts, *(f"{x:.2f}" if x < 10 else f"{x:.0f}" for x in measures)]


def _short(count: float) -> str:
    """A count in at most five characters."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
