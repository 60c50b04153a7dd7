"""The settings of each verb: the types of `--settings`. `quark.stages.derive` makes them.

A verb's settings hold everything that changes its result and nothing else: no path, no number of
threads, no memory. The workflow passes them to the verb as JSON. It also puts the same JSON into
the rule's `params:`, so a rule runs again exactly when its settings change.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationInfo

from quark.config import (
    Benchmark,
    Corpus,
    Count,
    Label,
    Mauve,
    ModelSource,
    Name,
    Optimisation,
    Perspective,
    Precision,
    Probability,
    Quark,
    RewardTokens,
    Sampling,
    Section,
    SortedSplit,
    TaskName,
    Training,
)
from quark.config.registry import parts, spec


def _typed_by(
    key: str, type_of: Callable[[str], type[Section] | None], lacks: str
) -> BeforeValidator:
    """Validate settings with the type that the method or part named by the field `key` has.

    Args:
        key: the field, which stands before the settings.
        type_of: the type for its value; None: it has none.
        lacks: what it has not, for the error.
    """

    def validate(value: Any, info: ValidationInfo) -> Any:
        name = info.data.get(key)  # missing if the name itself is not valid
        if name is None or not isinstance(value, Mapping):
            return value
        settings = type_of(name)
        if settings is None:
            raise ValueError(f"{name} has no {lacks}")
        return settings.model_validate(value)

    return BeforeValidator(validate)


def _of_learner(method: str) -> type[Optimisation] | None:
    rounds = spec(method).rounds
    return rounds.settings if rounds else None


Steering = Annotated[
    SerializeAsAny[Section],
    _typed_by("method", lambda method: spec(method).settings, "settings for decoding"),
]


class SampleSettings(Section):
    """`quark sample`."""

    version: int = Field(description="version of the method, or of the evaluation")
    method: Name = Field(description="the method that decodes, or for which the policy samples")
    stream: str = Field(description="name of the random stream; begins with the seed")
    iteration: Annotated[int, Field(ge=0)]
    prompts: Count | None
    prefix: Count | None = Field(description="a text's first tokens that are its prompt; null: all")
    samples: Count
    sampling: Sampling
    precision: Precision
    cache: bool = Field(description="store the hidden states that predicted the samples")
    place: float = Field(default=1.0, description="place of linear reward tokens; 1: the best")
    judged: bool = Field(
        default=False, description="store log p of each sample under the base model"
    )
    steering: Steering | None = Field(description="settings of a method that decodes")
    engine: Literal["local", "vllm"] = Field(
        default="local",
        description="the sampler: `quark.generation.sampler` or `quark.generation.vllm`; local is "
        "not written, so that the settings of most runs are as before",
        exclude_if=lambda value: value == "local",
    )


class PredictSettings(Section):
    """`quark predict`."""

    version: int = Field(description="version of the evaluation")
    method: Name
    prompts: Count | None
    prefix: Count = Field(description="a text's first tokens that are its prompt")
    tokens: Count = Field(description="most tokens that are predicted after the prompt")
    precision: Precision
    steering: Steering | None


class Function(Section):
    """A scorer that is a function of the user (see `quark.scorers.function`)."""

    place: str = Field(description="FILE.py:FUNCTION")
    version: str = Field(description="first digits of the file's SHA-256")


class ScoreSettings(Section):
    """`quark score`."""

    scorer: Name
    function: Function | None = Field(
        None,
        description="if the scorer is a function; not written if it is none, so that the settings "
        "of other scorers are as before",
        exclude_if=lambda value: value is None,
    )
    classifier: Label | None = Field(None, description="if the scorer is a classifier")
    perspective: Perspective | None = Field(None, description="if the scorer is this service")


class CalibrateSettings(Section):
    """`quark calibrate`."""

    score: ScoreSettings
    threshold: Probability = Field(description="a text is toxic strictly above this score")
    resamples: Count


class FinetuneSettings(Section):
    """`quark finetune-model`."""

    version: int = Field(description="version of the baselines")
    name: Name = Field(description="the new model's name in the configuration")
    source: ModelSource
    precision: Precision


class SortSettings(Section):
    """`quark sort-prompts`."""

    name: Name = Field(description="the prompts' name in the configuration")
    threshold: Probability
    splits: dict[Name, SortedSplit]


class QuantizeSettings(Section):
    """`quark quantize`."""

    version: int
    task: TaskName
    stream: str
    quantiles: Count
    within: Literal["pool", "iteration"] = Field(description="rows that are sorted together")
    shuffle: str | None = Field(
        description="name of the stream that assigns rows to quantiles; null: their reward does"
    )
    max_failed_scores: Probability


class TrainSettings(Section):
    """`quark train`."""

    version: int
    stream: str
    seed: int
    iteration: Annotated[int, Field(ge=0)]
    iterations: Count
    quantiles: Count
    reward_tokens: RewardTokens
    training: Training
    precision: Precision


class CorpusSettings(Section):
    """`quark corpus`."""

    version: int = Field(description="version of the baselines")
    task: TaskName
    stream: str
    score: ScoreSettings = Field(description="the scorer of texts without a score")
    corpus: Corpus


def _is_part(name: str) -> str:
    if name not in parts():
        raise ValueError(f"{name!r} is no part of a method; there are {', '.join(parts())}")
    return name


class FitSettings(Section):
    """`quark fit`."""

    version: int = Field(description="version of the method's code")
    stream: str
    part: Annotated[str, AfterValidator(_is_part)]
    training: Annotated[
        SerializeAsAny[Section] | None,
        _typed_by("part", lambda part: parts()[part].settings, "settings"),
    ] = Field(description="null: the part has no settings")
    reward_tokens: RewardTokens | None = Field(description="null: the part has no reward tokens")
    precision: Precision


class LearnSettings(Section):
    """`quark learn`."""

    version: int = Field(description="version of the method's code")
    task: TaskName
    method: Name
    stream: str
    seed: int
    iteration: Annotated[int, Field(ge=0)]
    reward_tokens: RewardTokens
    max_failed_scores: Probability
    min_new_tokens: Annotated[int, Field(ge=0)] = Field(description="of each sample")
    share: Probability = Field(description="this iteration's share of all iterations' samples")
    training: Annotated[
        SerializeAsAny[Optimisation], _typed_by("method", _of_learner, "learner of its own")
    ]
    precision: Precision


class JudgeSettings(Section):
    """`quark judge`."""

    version: int = Field(description="version of the evaluation")
    precision: Precision


class MauveSettings(Section):
    """`quark mauve`."""

    version: int = Field(description="version of the evaluation")
    mauve: Mauve
    precision: Precision


class EvaluateSettings(Section):
    """`quark evaluate`; its `settings.json` holds all of these settings."""

    version: int = Field(description="version of the evaluation")
    metrics: int = Field(description="version of the metrics' code")
    task: TaskName
    method: str
    form: str | None = Field(
        default=None, description="form of the method's reward tokens, if it has any"
    )
    place: float | None = Field(default=None, description="place of linear reward tokens")
    passes: Count = Field(description="model passes for each generated token")
    draws: Count = Field(
        1,
        description="generations for each one that is kept, the best; not written if it is 1, so "
        "that the settings of other methods are as before",
        exclude_if=lambda value: value == 1,
    )
    split: Name
    note: str | None = Field(default=None, description="description of the split's prompts")
    decoding: Name
    seed: int
    model: Name
    judge: Name
    prompts: Count | None = Field(description="the first n of the split; null: all")
    samples: Count
    sampling: Sampling
    precision: Precision
    threshold: Probability
    bootstrap: Count


class SpeedSettings(Section):
    """`quark benchmark`."""

    benchmark: Benchmark
    quark: Quark
