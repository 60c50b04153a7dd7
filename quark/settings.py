"""What each verb depends on, cut from the configuration.

Layer 0: imports no torch. A verb's settings hold all that changes its result and nothing else: no
path, no number of threads, no memory. The workflow passes them to the verb as JSON and puts the
same JSON into the rule's `params:`, so a rule runs again exactly when they change.
"""

from typing import Annotated

from pydantic import Field

from quark.config import (
    Benchmark,
    Config,
    Count,
    Name,
    Precision,
    Probability,
    Quark,
    RewardTokens,
    Sampling,
    Section,
    TaskName,
    Training,
)


class SampleSettings(Section):
    """`quark sample`."""

    version: int = Field(description="of the method, or of the evaluation")
    stream: str = Field(description="name of the random stream, the seed first")
    iteration: Annotated[int, Field(ge=0)]
    prompts: Count | None
    samples: Count
    sampling: Sampling
    precision: Precision
    memo: bool = Field(description="keep the hidden states that predicted the samples")


class ScoreSettings(Section):
    """`quark score`."""

    scorer: Name


class QuantizeSettings(Section):
    """`quark quantize`."""

    version: int
    task: TaskName
    stream: str
    quantiles: Count
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


class JudgeSettings(Section):
    """`quark judge`."""

    version: int = Field(description="of the evaluation")
    precision: Precision


class EvaluateSettings(Section):
    """`quark evaluate`; all but version and threshold is carried into the table as it stands."""

    version: int = Field(description="of the evaluation")
    task: TaskName
    method: str
    split: Name
    seed: int
    model: Name
    judge: Name
    samples: Count
    sampling: Sampling
    precision: Precision
    toxicity_threshold: Probability
    bootstrap: Count


class SpeedSettings(Section):
    """`quark benchmark`."""

    benchmark: Benchmark
    quark: Quark


def explore(config: Config, task: TaskName, seed: int, iteration: int) -> SampleSettings:
    """Quark's own samples in one iteration."""
    quark = config.quark
    return SampleSettings(
        version=quark.version,
        stream=f"{seed}/{task}/quark/iteration-{iteration}/sample",
        iteration=iteration,
        prompts=quark.prompts,
        samples=quark.samples if iteration else quark.first_samples,
        sampling=quark.sampling,
        precision=config.precision,
        memo=quark.training.base_memo and iteration == 0,  # later samples are the policy's
    )


def quantize(config: Config, task: TaskName, seed: int, iteration: int) -> QuantizeSettings:
    """The pool of one iteration."""
    return QuantizeSettings(
        version=config.quark.version,
        task=task,
        stream=f"{seed}/{task}/quark/iteration-{iteration}/quantize",
        quantiles=config.quark.quantiles,
        max_failed_scores=config.quark.max_failed_scores,
    )


def train(config: Config, task: TaskName, seed: int, iteration: int) -> TrainSettings:
    """The learning step of one iteration."""
    quark = config.quark
    return TrainSettings(
        version=quark.version,
        stream=f"{seed}/{task}/quark/iteration-{iteration}/train",
        seed=seed,
        iteration=iteration,
        iterations=quark.iterations,
        quantiles=quark.quantiles,
        reward_tokens=quark.reward_tokens,
        training=quark.training,
        precision=config.precision,
    )


def generate(config: Config, task: TaskName, method: str, seed: int, split: str) -> SampleSettings:
    """The generations that a method is evaluated on."""
    return SampleSettings(
        version=config.evaluation.version,
        stream=f"{seed}/{task}/{method}/evaluation/{split}/sample",
        iteration=0,
        prompts=config.evaluation.prompts,
        samples=config.evaluation.samples,
        sampling=config.evaluation.sampling,
        precision=config.precision,
        memo=False,
    )


def score(config: Config, task: TaskName) -> ScoreSettings:
    """The task's scorer."""
    return ScoreSettings(scorer=config.tasks[task].scorer)


def judge(config: Config) -> JudgeSettings:
    """How the judge reads."""
    return JudgeSettings(version=config.evaluation.version, precision=config.precision)


def evaluate(
    config: Config, task: TaskName, method: str, seed: int, split: str
) -> EvaluateSettings:
    """The metrics of one split."""
    return EvaluateSettings(
        version=config.evaluation.version,
        task=task,
        method=method,
        split=split,
        seed=seed,
        model=config.tasks[task].model,
        judge=config.tasks[task].judge,
        samples=config.evaluation.samples,
        sampling=config.evaluation.sampling,
        precision=config.precision,
        toxicity_threshold=config.evaluation.toxicity_threshold,
        bootstrap=config.evaluation.bootstrap,
    )


def speed(config: Config) -> SpeedSettings:
    """The benchmark of all stages."""
    return SpeedSettings(benchmark=config.benchmark, quark=config.quark)
