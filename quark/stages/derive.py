"""The settings of each verb, derived from the configuration; one function for each verb.

It imports no torch, so that Snakemake can read the workflow quickly.
"""

from quark.config import (
    Classifier,
    Config,
    Method,
    PPOTraining,
    Sorting,
    Source,
    TaskName,
)
from quark.config.registry import in_rounds, is_linear, parts, spec
from quark.stages.settings import (
    CalibrateSettings,
    CorpusSettings,
    EvaluateSettings,
    FinetuneSettings,
    FitSettings,
    JudgeSettings,
    MauveSettings,
    PPOSettings,
    PredictSettings,
    QuantizeSettings,
    SampleSettings,
    ScoreSettings,
    SortSettings,
    SpeedSettings,
    TrainSettings,
)

QUARKS = in_rounds("quark")
"""Methods that are Quark, on one model or another."""


def model(config: Config, task: TaskName, method: Method) -> str:
    """The model that a method is, or starts from and is kept near to."""
    return config.tasks[task].models.get(method, config.tasks[task].model)


def explorer(method: str, iteration: int) -> str:
    """The method whose samples an iteration learns from: PPO begins with Quark's."""
    rounds = spec(method).rounds
    return rounds.begins_with or method if rounds and iteration == 0 else method


def explore(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> SampleSettings:
    """What Quark, or PPO, samples in one iteration."""
    quark, ppo = config.quark, config.baselines.ppo
    by_quark = method in QUARKS
    samples = quark.samples if iteration else quark.first_samples
    return SampleSettings(
        version=quark.version if by_quark else config.baselines.version,
        method=method,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/sample",
        iteration=iteration,
        prompts=quark.prompts,
        prefix=config.tasks[task].prefix,
        samples=samples if by_quark else ppo.samples,
        sampling=quark.sampling,
        precision=config.precision,
        # of the base model, and of PPO's policy, whose rollout needs them
        cache=quark.training.reference_cache
        and (not by_quark or iteration == 0 or is_linear(config)),
        place=quark.explore_place if by_quark and iteration else 1.0,
        judged=_judged(config, method),
        steering=None,
    )


def corpus(config: Config, task: TaskName, seed: int) -> CorpusSettings:
    """What the baselines learn the classes from."""
    return CorpusSettings(
        version=config.baselines.version,
        task=task,
        stream=f"{seed}/{task}/corpus",
        score=score(config, config.tasks[task].scorer),
        corpus=config.baselines.corpus,
    )


def fit(config: Config, task: TaskName, part: str, seed: int) -> FitSettings:
    """One part of a baseline, learnt from the corpus."""
    return FitSettings(
        version=config.baselines.version,
        stream=f"{seed}/{task}/{part}",
        part=part,
        training=parts()[part](config),
        reward_tokens=config.quark.reward_tokens if part == "gedi" else None,
        precision=config.precision,
    )


def ppo(config: Config, task: TaskName, method: Method, seed: int, iteration: int) -> PPOSettings:
    """One iteration of PPO; its first has Quark's samples of the base model."""
    first, later = config.quark.first_samples, config.baselines.ppo.samples
    every = first + (config.baselines.ppo.iterations - 1) * later
    return PPOSettings(
        version=config.baselines.version,
        task=task,
        stream=f"{seed}/{task}/{method}/iteration-{iteration}/train",
        seed=seed,
        iteration=iteration,
        reward_tokens=config.quark.reward_tokens,
        max_failed_scores=config.quark.max_failed_scores,
        min_new_tokens=config.quark.sampling.min_new_tokens,
        share=(later if iteration else first) / every,
        ppo=PPOTraining.model_validate(config.baselines.ppo.model_dump(exclude={"place"})),
        precision=config.precision,
    )


def quantize(
    config: Config, task: TaskName, method: Method, seed: int, iteration: int
) -> QuantizeSettings:
    """The pool of one iteration."""
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
    """The learning step of one iteration."""
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


ROUNDS = {"quark": (explore, quantize, train), "ppo": (explore, ppo)}
"""The settings of a round's stages, by the kind of `quark.config.registry.Rounds`."""
VERBS = {explore: "sample", quantize: "quantize", train: "train", ppo: "train-ppo"}
"""The verbs that take them."""


def decodings(config: Config, method: str) -> list[str]:
    """How a method's generations are decoded: every way that it can be.

    Contrastive search can decode plain models alone.
    """
    return [
        name
        for name, sampling in config.evaluation.decoding.items()
        if spec(method).is_plain or not sampling.penalty_alpha
    ]


def generate(
    config: Config, task: TaskName, method: Method, seed: int, split: str, decoding: str
) -> SampleSettings:
    """The generations that a method is evaluated on; all decodings share a random stream."""
    return SampleSettings(
        version=config.evaluation.version,
        method=method,
        stream=f"{seed}/{task}/{method}/evaluation/{split}/sample",
        iteration=0,
        prompts=evaluated_prompts(config, task, method, split),
        prefix=config.tasks[task].prefix,
        samples=config.evaluation.samples,
        sampling=config.evaluation.decoding[decoding],
        precision=config.precision,
        cache=False,
        judged=_judged(config, method) and not config.evaluation.decoding[decoding].penalty_alpha,
        steering=spec(method).steering(config),
    )


def _form(config: Config, method: str) -> str | None:
    """The form of a method's reward tokens; None: it has none."""
    return config.quark.reward_tokens.form if spec(method).has_tokens(config) else None


def _place(config: Config, method: str) -> float | None:
    """Where a method decodes on the axis of linear reward tokens; None: it has no such place."""
    place = spec(method).place
    return place(config) if place and is_linear(config) else None


def _judged(config: Config, method: Method) -> bool:
    """Whether a method's decoder computes the base model's hidden states of what it samples.

    Then the likelihoods under the base model cost one product with its output embeddings, and a
    judge that is the base model need not read anything.
    """
    when = spec(method).reads_as_base
    return when == "always" or (when == "linear" and is_linear(config))


def predict(config: Config, task: TaskName, method: Method, split: str) -> PredictSettings | None:
    """What a method predicts of a split's real continuations; None: its prompts have none."""
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
    """The samples that sort prompts."""
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
    """How a model is trained further."""
    return FinetuneSettings(
        version=config.baselines.version,
        name=name,
        source=config.models[name],
        precision=config.precision,
    )


def lineage(config: Config, name: str) -> list[str]:
    """A model, and what it was trained further from, as far as there is such a one."""
    found = [name]
    while (source := config.models[found[-1]].finetuned) is not None:
        found.append(source.model)
    return found


def sort(sorting: Sorting, name: str) -> SortSettings:
    """How the candidates are sorted."""
    return SortSettings(name=name, threshold=sorting.threshold, splits=sorting.splits)


def evaluated_prompts(config: Config, task: TaskName, method: Method, split: str) -> int | None:
    """How many of a split's prompts, the first ones; None: all. Some get a share of them only."""
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
    """One scorer."""
    return ScoreSettings(
        scorer=scorer,
        classifier=config.classifiers[scorer].reads if scorer in config.classifiers else None,
        perspective=config.perspective if scorer == "perspective" else None,
    )


def calibrate(config: Config, scorer: str) -> CalibrateSettings:
    """How a scorer agrees with published scores."""
    return CalibrateSettings(
        score=score(config, scorer), threshold=config.evaluation.threshold, resamples=1000
    )


def source(classifier: Classifier) -> Source:
    """Where a classifier comes from; how it is read fetches nothing again."""
    return Source.model_validate(classifier.model_dump(include=set(Source.model_fields)))


def judge(config: Config) -> JudgeSettings:
    """How the judge reads."""
    return JudgeSettings(version=config.evaluation.version, precision=config.precision)


def mauve(config: Config) -> MauveSettings | None:
    """How MAUVE is computed; None: it is not."""
    how = config.evaluation.mauve
    if how is None:
        return None
    version = config.evaluation.version
    return MauveSettings(version=version, mauve=how, precision=config.precision)


def evaluate(
    config: Config, task: TaskName, method: str, seed: int, split: str, decoding: str
) -> EvaluateSettings:
    """The metrics of a method, or of a variant of one, on one split under one decoding."""
    family = method.split(".")[0]
    kept = config.prompts[config.tasks[task].prompts].splits.get(split)
    return EvaluateSettings(
        version=config.evaluation.version,
        task=task,
        method=method,
        form=_form(config, family),
        place=_place(config, family),
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
    """The benchmark of all stages."""
    return SpeedSettings(benchmark=config.benchmark, quark=config.quark)
