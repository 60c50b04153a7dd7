"""The settings of each verb: the types of `--settings`. `quark.stages.derive` fills them.

A verb's settings hold all that changes its result and nothing else: no path, no number of threads,
no memory. The workflow passes them to the verb as JSON and puts the
same JSON into the rule's `params:`, so a rule runs again exactly when they change.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, ValidationInfo

from quark.config import (
    Benchmark,
    Corpus,
    Count,
    Finetuning,
    GeDiTraining,
    Label,
    Mauve,
    ModelSource,
    Name,
    Perspective,
    PPOTraining,
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


def _of_its_method(value: Any, info: ValidationInfo) -> Any:
    """The settings of a decoder, whose type the method says."""
    method = info.data.get("method")  # missing if it is not valid itself
    if method is None or not isinstance(value, Mapping):
        return value
    settings = spec(method).settings
    if settings is None:
        raise ValueError(f"{method} has no settings to decode with")
    return settings.model_validate(value)


Steering = Annotated[SerializeAsAny[Section], BeforeValidator(_of_its_method)]


class SampleSettings(Section):
    """`quark sample`."""

    version: int = Field(description="of the method, or of the evaluation")
    method: Name = Field(description="who writes, or for whom the policy writes")
    stream: str = Field(description="name of the random stream, the seed first")
    iteration: Annotated[int, Field(ge=0)]
    prompts: Count | None
    prefix: Count | None = Field(description="the first tokens of a text, its prompt; null: all")
    samples: Count
    sampling: Sampling
    precision: Precision
    cache: bool = Field(description="keep the hidden states that predicted the samples")
    place: float = Field(default=1.0, description="of linear reward tokens; 1: the best one")
    judged: bool = Field(
        default=False, description="keep log p of each sample under the base model"
    )
    steering: Steering | None = Field(description="of a method that decodes")


class PredictSettings(Section):
    """`quark predict`."""

    version: int = Field(description="of the evaluation")
    method: Name
    prompts: Count | None
    prefix: Count = Field(description="tokens of a text that are its prompt")
    tokens: Count = Field(description="that are predicted after it, at most")
    precision: Precision
    steering: Steering | None


class ScoreSettings(Section):
    """`quark score`."""

    scorer: Name
    classifier: Label | None = Field(None, description="if the scorer is one")
    perspective: Perspective | None = Field(None, description="if it is the service")


class CalibrateSettings(Section):
    """`quark calibrate`."""

    score: ScoreSettings
    threshold: Probability = Field(description="a text is toxic strictly above this score")
    resamples: Count


class FinetuneSettings(Section):
    """`quark finetune-model`."""

    version: int = Field(description="of the baselines")
    name: Name = Field(description="of the new model in the configuration")
    source: ModelSource
    precision: Precision


class SortSettings(Section):
    """`quark sort-prompts`."""

    name: Name = Field(description="of the prompts in the configuration")
    threshold: Probability
    splits: dict[Name, SortedSplit]


class QuantizeSettings(Section):
    """`quark quantize`."""

    version: int
    task: TaskName
    stream: str
    quantiles: Count
    within: Literal["pool", "iteration"] = Field(description="what is sorted into quantiles")
    shuffle: str | None = Field(
        description="name of the stream that deals rows to quantiles; null: their reward does"
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

    version: int = Field(description="of the baselines")
    task: TaskName
    stream: str
    score: ScoreSettings = Field(description="of texts that come without a score")
    corpus: Corpus


def _is_part(name: str) -> str:
    if name not in parts():
        raise ValueError(f"{name!r} is no part of a method; there are {', '.join(parts())}")
    return name


class FitSettings(Section):
    """`quark fit`."""

    version: int = Field(description="of the baselines")
    stream: str
    part: Annotated[str, AfterValidator(_is_part)]
    training: GeDiTraining | Finetuning | None = Field(description="null: of the classifier")
    reward_tokens: RewardTokens | None = Field(description="of GeDi: they name the classes")
    precision: Precision


class PPOSettings(Section):
    """`quark train-ppo`."""

    version: int = Field(description="of the baselines")
    task: TaskName
    stream: str
    seed: int
    iteration: Annotated[int, Field(ge=0)]
    reward_tokens: RewardTokens
    max_failed_scores: Probability
    min_new_tokens: Annotated[int, Field(ge=0)] = Field(description="of the samples")
    ppo: PPOTraining
    share: Probability = Field(description="of all iterations' samples, what this one has")
    precision: Precision


class JudgeSettings(Section):
    """`quark judge`."""

    version: int = Field(description="of the evaluation")
    precision: Precision


class MauveSettings(Section):
    """`quark mauve`."""

    version: int = Field(description="of the evaluation")
    mauve: Mauve
    precision: Precision


class EvaluateSettings(Section):
    """`quark evaluate`; all but version and threshold is carried into the table as it stands."""

    version: int = Field(description="of the evaluation")
    task: TaskName
    method: str
    form: str | None = Field(
        default=None, description="of the method's reward tokens, if it has any"
    )
    place: float | None = Field(default=None, description="of linear reward tokens")
    split: Name
    note: str | None = Field(default=None, description="what the prompts of the split are")
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
