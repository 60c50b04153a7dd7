"""What each verb depends on, cut from the configuration.

Layer 0: imports no torch. A verb's settings hold all that changes its result and nothing else: no
path, no number of threads, no memory. The workflow passes them to the verb as JSON and puts the
same JSON into the rule's `params:`, so a rule runs again exactly when they change.
"""

from typing import Annotated, Literal

from pydantic import Field

from quark.config import (
    PPLM,
    PPO,
    Benchmark,
    Config,
    Contrast,
    Corpus,
    Count,
    Finetuning,
    GeDi,
    GeDiTraining,
    Method,
    ModelSource,
    Name,
    Precision,
    Probability,
    Quark,
    RewardTokens,
    Sampling,
    Section,
    SortedSplit,
    Sorting,
    TaskName,
    Training,
)

Steering = Contrast | GeDi | PPLM


class SampleSettings(Section):
    """`quark sample`."""

    version: int = Field(description="of the method, or of the evaluation")
    method: Name = Field(description="who writes, or for whom the policy writes")
    stream: str = Field(description="name of the random stream, the seed first")
    iteration: Annotated[int, Field(ge=0)]
    prompts: Count | None
    samples: Count
    sampling: Sampling
    precision: Precision
    memo: bool = Field(description="keep the hidden states that predicted the samples")
    steering: Steering | None = Field(description="of a method that decodes")


class ScoreSettings(Section):
    """`quark score`."""

    scorer: Name


class FinetuneSettings(Section):
    """`quark finetune-model`."""

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
    scorer: Name
    corpus: Corpus


Part = Literal["expert", "anti-expert", "gedi", "classifier"]
"""What methods that decode, and DAPT, are trained from the corpus to have."""

PARTS: dict[str, tuple[Part, ...]] = {
    "dapt": ("expert",),
    "dexperts": ("expert", "anti-expert"),
    "gedi": ("gedi",),
    "pplm": ("classifier",),
}
"""The parts of each method that learns from the corpus, in the order its decoder takes them."""


class FitSettings(Section):
    """`quark fit`."""

    version: int = Field(description="of the baselines")
    stream: str
    part: Part
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
    ppo: PPO
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


def explore(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> SampleSettings:
    """What Quark, or PPO, samples in one iteration."""
    quark, ppo = config.quark, config.baselines.ppo
    by_quark = method == "quark"
    samples = quark.samples if iteration else quark.first_samples
    return SampleSettings(
        version=quark.version if by_quark else config.baselines.version,
        method=method,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/sample",
        iteration=iteration,
        prompts=quark.prompts,
        samples=samples if by_quark else ppo.samples,
        sampling=quark.sampling,
        precision=config.precision,
        # of the base model, and of PPO's policy, whose rollout needs them
        memo=quark.training.base_memo and (not by_quark or iteration == 0),
        steering=None,
    )


def corpus(config: Config, task: TaskName, seed: int) -> CorpusSettings:
    """What the baselines learn the classes from."""
    return CorpusSettings(
        version=config.baselines.version,
        task=task,
        stream=f"{seed}/{task}/corpus",
        scorer=config.tasks[task].scorer,
        corpus=config.baselines.corpus,
    )


def fit(config: Config, task: TaskName, part: Part, seed: int) -> FitSettings:
    """One part of a baseline, learnt from the corpus."""
    baselines = config.baselines
    training = {"gedi": baselines.gedi.training, "classifier": None}
    return FitSettings(
        version=baselines.version,
        stream=f"{seed}/{task}/{part}",
        part=part,
        training=training.get(part, baselines.dapt),
        reward_tokens=config.quark.reward_tokens if part == "gedi" else None,
        precision=config.precision,
    )


def ppo(config: Config, task: TaskName, seed: int, iteration: int) -> PPOSettings:
    """One iteration of PPO."""
    return PPOSettings(
        version=config.baselines.version,
        task=task,
        stream=f"{seed}/{task}/ppo/iteration-{iteration}/train",
        seed=seed,
        iteration=iteration,
        reward_tokens=config.quark.reward_tokens,
        max_failed_scores=config.quark.max_failed_scores,
        ppo=config.baselines.ppo,
        precision=config.precision,
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


def generate(
    config: Config, task: TaskName, method: Method, seed: int, split: str
) -> SampleSettings:
    """The generations that a method is evaluated on."""
    baselines = config.baselines
    steering: dict[str, Steering] = {
        "dexperts": baselines.dexperts,
        "gedi": baselines.gedi,
        "pplm": baselines.pplm,
        "quark_guided": config.quark_guided,
    }
    return SampleSettings(
        version=config.evaluation.version,
        method=method,
        stream=f"{seed}/{task}/{method}/evaluation/{split}/sample",
        iteration=0,
        prompts=evaluated_prompts(config, task, method, split),
        samples=config.evaluation.samples,
        sampling=config.evaluation.sampling,
        precision=config.precision,
        memo=False,
        steering=steering.get(method),
    )


def candidates(config: Config, name: str, sorting: Sorting) -> SampleSettings:
    """The samples that sort prompts."""
    return SampleSettings(
        version=config.evaluation.version,
        method="base",
        stream=f"prompts/{name}/sample",
        iteration=0,
        prompts=None,
        samples=sorting.samples,
        sampling=sorting.sampling,
        precision=config.precision,
        memo=False,
        steering=None,
    )


def finetune(config: Config, name: str) -> FinetuneSettings:
    """How a model is trained further."""
    return FinetuneSettings(name=name, source=config.models[name], precision=config.precision)


def sort(sorting: Sorting, name: str) -> SortSettings:
    """How the candidates are sorted."""
    return SortSettings(name=name, threshold=sorting.threshold, splits=sorting.splits)


def evaluated_prompts(config: Config, task: TaskName, method: Method, split: str) -> int | None:
    """How many of a split's prompts, the first ones; None: all. PPLM gets its share only."""
    if method != "pplm":
        return config.evaluation.prompts
    prompts = config.prompts[config.tasks[task].prompts]
    splits = prompts.splits | (prompts.sorted.splits if prompts.sorted else {})
    size = splits[split].prompts
    limit = min(size, config.evaluation.prompts or size)
    return max(1, round(config.baselines.pplm.share * limit))


def score(config: Config, task: TaskName) -> ScoreSettings:
    """The task's scorer."""
    return ScoreSettings(scorer=config.tasks[task].scorer)


def judge(config: Config) -> JudgeSettings:
    """How the judge reads."""
    return JudgeSettings(version=config.evaluation.version, precision=config.precision)


def evaluate(
    config: Config, task: TaskName, method: Method, seed: int, split: str
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
        prompts=evaluated_prompts(config, task, method, split),
        samples=config.evaluation.samples,
        sampling=config.evaluation.sampling,
        precision=config.precision,
        threshold=config.evaluation.threshold,
        bootstrap=config.evaluation.bootstrap,
    )


def speed(config: Config) -> SpeedSettings:
    """The benchmark of all stages."""
    return SpeedSettings(benchmark=config.benchmark, quark=config.quark)
