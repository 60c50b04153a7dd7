"""Derive the settings of each verb from the configuration, with one function for each verb.

This module imports no torch, so that Snakemake can read the workflow quickly.
"""

from collections.abc import Callable
from typing import Literal

from quark.config import (
    Classifier,
    Config,
    Method,
    Prompts,
    Sampling,
    Section,
    Sorting,
    Source,
    TaskName,
)
from quark.config.registry import in_rounds, parts, spec
from quark.config.spec import is_linear
from quark.scorers import version_of
from quark.stages.settings import (
    CalibrateSettings,
    CorpusSettings,
    EvaluateSettings,
    FinetuneSettings,
    FitSettings,
    Function,
    JudgeSettings,
    LearnSettings,
    MauveSettings,
    PredictSettings,
    QuantizeSettings,
    SampleSettings,
    ScoreSettings,
    SortSettings,
    SpeedSettings,
    TrainSettings,
)

QUARKS = [name for name, rounds in in_rounds().items() if not rounds.learner]
"""Names of the methods that are Quark; they start from different models."""
METRICS = 2
"""Raise it when a metric is added or changes: metrics, but not generations, are then made anew."""


def model(config: Config, task: TaskName, method: Method) -> str:
    """Return the model that a method is, or from which its training starts (its KL reference)."""
    return config.tasks[task].models.get(method, config.tasks[task].model)


def explorer(method: str, iteration: int) -> str:
    """Return the method whose samples an iteration trains on: PPO's first are Quark's."""
    rounds = spec(method).rounds
    return rounds.begins_with or method if rounds and iteration == 0 else method


def explore(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> SampleSettings:
    """Return the settings for sampling in one iteration of a method in rounds.

    Hidden states are stored if they are the base model's, or if a learner needs them.
    """
    quark, rounds = config.quark, in_rounds()[method]
    kept = rounds.learner is not None or iteration == 0 or is_linear(config)
    return SampleSettings(
        version=rounds.version(config),
        method=method,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/sample",
        iteration=iteration,
        prompts=quark.prompts,
        prefix=config.tasks[task].prefix,
        samples=rounds.samples(config, iteration),
        sampling=quark.sampling,
        precision=config.precision,
        cache=quark.training.reference_cache and kept,
        place=rounds.place(config, iteration),
        judged=_judged(config, method),
        steering=None,
        engine=_engine(config, task, method, quark.sampling),
    )


def corpus(config: Config, task: TaskName, seed: int) -> CorpusSettings:
    """Return the settings of the corpus from which the baselines learn the two classes."""
    return CorpusSettings(
        version=config.baselines.version,
        task=task,
        stream=f"{seed}/{task}/corpus",
        score=score(config, config.tasks[task].scorer),
        corpus=config.baselines.corpus,
    )


def fit(config: Config, task: TaskName, part: str, seed: int) -> FitSettings:
    """Return the settings for training one part of a method on the corpus."""
    about = parts()[part]
    return FitSettings(
        version=about.version(config),
        stream=f"{seed}/{task}/{part}",
        part=part,
        training=about.training(config),
        reward_tokens=config.quark.reward_tokens if about.has_tokens else None,
        precision=config.precision,
    )


def learn(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> LearnSettings:
    """Return the settings for training in one iteration of a method with a learner of its own."""
    rounds = in_rounds()[method]
    assert rounds.training is not None, f"{method} is Quark, which quantizes and trains"
    drawn = [rounds.samples(config, i) for i in range(rounds.iterations(config))]
    return LearnSettings(
        version=rounds.version(config),
        task=task,
        method=method,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/train",
        seed=seed,
        iteration=iteration,
        reward_tokens=config.quark.reward_tokens,
        max_failed_scores=config.quark.max_failed_scores,
        min_new_tokens=config.quark.sampling.min_new_tokens,
        share=rounds.samples(config, iteration) / sum(drawn),
        training=rounds.training(config),
        precision=config.precision,
    )


def quantize(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> QuantizeSettings:
    """Return the settings of the pool of one iteration."""
    return QuantizeSettings(
        version=config.quark.version,
        task=task,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/quantize",
        quantiles=config.quark.quantiles,
        within=config.quark.quantize,
        shuffle=f"{seed}/{task}/{method}/shuffle" if config.quark.shuffle else None,
        max_failed_scores=config.quark.max_failed_scores,
    )


def train(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> TrainSettings:
    """Return the settings of the training step of one iteration."""
    quark = config.quark
    return TrainSettings(
        version=quark.version,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/train",
        seed=seed,
        iteration=iteration,
        iterations=quark.iterations,
        quantiles=quark.quantiles,
        reward_tokens=quark.reward_tokens,
        training=quark.training,
        precision=config.precision,
    )


def round_of(method: str) -> dict[str, Callable[..., Section]]:
    """Return the verbs of a method's round, each with the function that derives its settings."""
    if in_rounds()[method].learner:
        return {"sample": explore, "learn": learn}
    return {"sample": explore, "quantize": quantize, "train": train}


def decodings(config: Config, method: str) -> list[str]:
    """Return the names of all decodings that a method can use.

    Contrastive search works with plain models only.
    """
    return [
        name
        for name, sampling in config.evaluation.decoding.items()
        if spec(method).is_plain or not sampling.penalty_alpha
    ]


def generate(
    config: Config, task: TaskName, method: Method, seed: int, split: str, decoding: str
) -> SampleSettings:
    """Return the settings of the evaluated generations; all decodings share one random stream."""
    return SampleSettings(
        version=config.evaluation.version,
        method=method,
        stream=f"{seed}/{task}/{method}/evaluation/{split}/sample",
        iteration=0,
        prompts=evaluated_prompts(config, task, method, split),
        prefix=config.tasks[task].prefix,
        samples=config.evaluation.samples * spec(method).draws(config),
        sampling=config.evaluation.decoding[decoding],
        precision=config.precision,
        cache=False,
        judged=_judged(config, method) and not config.evaluation.decoding[decoding].penalty_alpha,
        steering=spec(method).steering(config),
        engine=_engine(config, task, method, config.evaluation.decoding[decoding]),
    )


def _engine(
    config: Config, task: TaskName, method: Method, sampling: Sampling
) -> Literal["local", "vllm"]:
    asked = method in config.tasks[task].vllm
    return "vllm" if asked and not sampling.penalty_alpha else "local"


def _place(config: Config, method: str) -> float | None:
    """Return a method's place on the axis of linear reward tokens; None: it has no place."""
    own = spec(method)
    return own.place(config) if own.place and own.form(config) == "linear" else None


def _judged(config: Config, method: Method) -> bool:
    """Whether a method's decoder computes the base model's hidden states of the sampled tokens.

    If so, the likelihoods under the base model cost one product with its output embeddings. Then a
    judge that is the base model reads no text.
    """
    when = spec(method).reads_as_base
    return when == "always" or (when == "linear" and is_linear(config))


def predict(config: Config, task: TaskName, method: Method, split: str) -> PredictSettings | None:
    """Return the settings to predict a split's real continuations; None: prompts have none."""
    prefix = config.tasks[task].prefix
    if prefix is None:
        return None
    return PredictSettings(
        version=config.evaluation.version,
        method=method,
        prompts=evaluated_prompts(config, task, method, split),
        prefix=prefix,
        tokens=max(how.max_new_tokens for how in config.evaluation.decoding.values()),
        precision=config.precision,
        steering=spec(method).steering(config),
    )


def candidates(config: Config, name: str, sorting: Sorting) -> SampleSettings:
    """Return the settings of the samples by which prompts are sorted."""
    return SampleSettings(
        version=config.evaluation.version,
        method="base",
        stream=f"prompts/{name}/sample",
        iteration=0,
        prompts=None,
        prefix=None,
        samples=sorting.samples,
        sampling=sorting.sampling,
        precision=config.precision,
        cache=False,
        judged=False,
        steering=None,
    )


def finetune(config: Config, name: str) -> FinetuneSettings:
    """Return the settings for fine-tuning a model."""
    return FinetuneSettings(
        version=config.baselines.version,
        name=name,
        source=config.models[name],
        precision=config.precision,
    )


def lineage(config: Config, name: str) -> list[str]:
    """Return a model, the model that it was fine-tuned from, and so on to the original model."""
    found = [name]
    while (source := config.models[found[-1]].finetuned) is not None:
        found.append(source.model)
    return found


def sort(sorting: Sorting, name: str) -> SortSettings:
    """Return the settings for sorting the candidates."""
    return SortSettings(name=name, threshold=sorting.threshold, splits=sorting.splits)


def evaluated_prompts(config: Config, task: TaskName, method: Method, split: str) -> int | None:
    """Return how many of a split's first prompts a method is evaluated on; None: all.

    Some methods are evaluated on a share of them only.
    """
    limit = config.evaluation.prompts
    if isinstance(limit, dict):
        limit = limit.get(split)
    share = spec(method).share(config)
    if share is None:
        return limit
    prompts = config.prompts[config.tasks[task].prompts]
    splits = prompts.splits | (prompts.sorted.splits if prompts.sorted else {})
    size = splits[split].prompts
    return max(1, round(share * min(size, limit or size)))


def score(config: Config, scorer: str) -> ScoreSettings:
    """Return the settings of one scorer.

    Raises:
        ScorerError: the scorer is a function whose file is missing.
    """
    place = config.functions.get(scorer)
    return ScoreSettings(
        scorer=scorer,
        function=Function(place=place, version=version_of(place)) if place else None,
        classifier=config.classifiers[scorer].reads if scorer in config.classifiers else None,
        perspective=config.perspective if scorer == "perspective" else None,
    )


def calibrate(config: Config, scorer: str) -> CalibrateSettings:
    """Return the settings for comparing a scorer with published scores."""
    return CalibrateSettings(
        score=score(config, scorer), threshold=config.evaluation.threshold, resamples=1000
    )


def unsorted(prompts: Prompts) -> Prompts:
    """Return the settings that change how prompts are fetched: all but `sorted` and `roughly`."""
    return prompts.model_copy(update={"sorted": None, "roughly": None})


def source(classifier: Classifier) -> Source:
    """Return only a classifier's source, so that a change of `reads` fetches nothing again."""
    return Source.model_validate(classifier.model_dump(include=set(Source.model_fields)))


def judge(config: Config) -> JudgeSettings:
    """Return the settings of the judge."""
    return JudgeSettings(version=config.evaluation.version, precision=config.precision)


def mauve(config: Config) -> MauveSettings | None:
    """Return the settings of MAUVE; None: MAUVE is not computed."""
    how = config.evaluation.mauve
    if how is None:
        return None
    version = config.evaluation.version
    return MauveSettings(version=version, mauve=how, precision=config.precision)


def evaluate(
    config: Config, task: TaskName, method: str, seed: int, split: str, decoding: str
) -> EvaluateSettings:
    """Return the settings to evaluate a method, or a variant, on one split under one decoding."""
    family = method.split(".")[0]
    kept = config.prompts[config.tasks[task].prompts].splits.get(split)
    return EvaluateSettings(
        version=config.evaluation.version,
        metrics=METRICS,
        task=task,
        method=method,
        form=spec(family).form(config),
        place=_place(config, family),
        passes=spec(family).passes(config),
        draws=spec(family).draws(config),
        split=split,
        note=None if kept is None else kept.note,
        decoding=decoding,
        seed=seed,
        model=model(config, task, family),
        judge=config.tasks[task].judge,
        prompts=evaluated_prompts(config, task, family, split),
        samples=config.evaluation.samples,
        sampling=config.evaluation.decoding[decoding],
        precision=config.precision,
        threshold=config.evaluation.threshold,
        bootstrap=config.evaluation.bootstrap,
    )


def speed(config: Config) -> SpeedSettings:
    """Return the settings of the benchmark of all stages."""
    return SpeedSettings(benchmark=config.benchmark, quark=config.quark)
