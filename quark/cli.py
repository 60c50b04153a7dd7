"""The command line: one verb for each rule of the workflow; every verb works without Snakemake.

    quark VERB --help                         explains a verb
    snakemake -np TARGET                      prints the very commands that make a target

A verb takes what changes its result as `--settings JSON` (see `quark.settings`), files by name, and
threads and memory as options of their own: those change the speed, not the result.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from quark import config as configuration
from quark import settings as needs
from quark.shards import Shard

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
S = TypeVar("S", bound=BaseModel)

Settings = Annotated[str, typer.Option(help="JSON of what changes the result")]
Model = Annotated[Path, typer.Option(help="directory of the base model")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="the policy's checkpoint; without it, the base model itself")
]
Threads = Annotated[int, typer.Option(min=1, help="threads to use")]
Memory = Annotated[int, typer.Option(min=1, help="MB this job may use")]
Out = Annotated[Path, typer.Option(help="appears whole or not at all")]
ClassifierFolder = Annotated[
    Path | None, typer.Option("--classifier", help="directory of the scorer, if it is one")
]
CacheFile = Annotated[
    Path | None, typer.Option("--cache", help="file that keeps scores, if the scorer is a service")
]
Folder = Annotated[Path, typer.Option(help="directory, made whole or not at all")]
ShardOption = Annotated[str, typer.Option("--shard", help="which part of the work, as 2-of-8")]


def main() -> None:
    """Run a verb; a fault that has an explanation is printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        app()
    except (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
        explained = isinstance(error, (MemoryError, OSError))
        if not explained and not type(error).__module__.startswith("quark."):
            raise
        sys.exit(f"quark: {type(error).__name__}: {error}")


def _settings(model: type[S], text: str) -> S:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise configuration.ConfigError(f"--settings {text}: {error}") from None


def _use(threads: int) -> None:
    """Keep to the threads that were granted."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers.utils import logging as transformers_logging

    from quark.memory import keep_freed_memory

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()  # a log wants lines
    torch.set_num_threads(min(threads, os.cpu_count() or 1))
    keep_freed_memory()


# ------------------------------------------------------------------------------------ resources
@app.command()
def fetch_model(
    name: Annotated[str, typer.Option(help="its name in the configuration")],
    settings: Settings,
    out: Folder,
    threads: Threads = 1,
) -> None:
    """Fetch a pretrained model once and store it as safetensors."""
    from quark.resources import fetch_model as fetch

    _use(threads)
    fetch(name, _settings(configuration.ModelSource, settings), out)


@app.command()
def fetch_classifier(
    name: Annotated[str, typer.Option(help="its name in the configuration")],
    settings: Settings,
    out: Folder,
) -> None:
    """Fetch a text-classification model once and store it as safetensors."""
    from quark.resources.classifiers import fetch_classifier as fetch

    _use(1)
    fetch(name, _settings(configuration.Source, settings), out)


@app.command()
def finetune_model(
    settings: Settings,
    model: Annotated[Path, typer.Option(help="directory of the model it starts from")],
    texts: Annotated[Path, typer.Option(help="Parquet file of plain texts")],
    out: Folder,
    summary: Annotated[Path, typer.Option(help="JSON of costs and steps")],
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Train a model further on plain texts and store it as another."""
    from quark.finetuning import finetune_stage

    _use(threads)
    wanted = _settings(needs.FinetuneSettings, settings)
    finetune_stage(wanted, model, texts, out, summary, memory_mb)


@app.command()
def fetch_prompts(
    name: Annotated[str, typer.Option(help="their name in the configuration")],
    settings: Settings,
    out: Folder,
) -> None:
    """Fetch prompts once, remove duplicates and cut them into splits."""
    from quark.resources import fetch_prompts as fetch

    fetch(name, _settings(configuration.Prompts, settings), out)


@app.command()
def sort_prompts(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="directory of the fetched prompts")],
    samples: Annotated[Path, typer.Option(help="Parquet file; of their candidates")],
    scores: Annotated[Path, typer.Option(help="theirs")],
    out: Folder,
) -> None:
    """Sort prompts into splits by what the base model makes of them."""
    from quark.resources.sorting import sort_prompts as run

    run(_settings(needs.SortSettings, settings), prompts, samples, scores, out)


# ---------------------------------------------------------------------------------------- Quark
@app.command()
def sample(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="Parquet file of prompts")],
    model: Model,
    out: Out,
    memory_mb: Memory,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="of the policy, or of a baseline's parts; without it, the base model"),
    ] = None,
    memo: Annotated[
        Path | None, typer.Option(help="file for the hidden states that predicted the samples")
    ] = None,
    shard: ShardOption = "1-of-1",
    threads: Threads = 1,
) -> None:
    """Continue prompts under the best reward token, or as a baseline decodes."""
    from quark.stages import sample_stage

    _use(threads)
    wanted, part = _settings(needs.SampleSettings, settings), Shard.parse(shard)
    sample_stage(wanted, prompts, model, checkpoint or [], out, memory_mb, memo, part)


@app.command()
def score(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of samples")],
    out: Out,
    classifier: ClassifierFolder = None,
    cache: CacheFile = None,
    threads: Threads = 1,
) -> None:
    """Score each response; a failed score is null and counted."""
    from quark.scoring import score_stage

    wanted = _settings(needs.ScoreSettings, settings)
    if wanted.classifier is not None:
        _use(threads)
    score_stage(wanted, samples, out, classifier, cache)


@app.command()
def calibrate(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="directory of prompts with published scores")],
    out: Out,
    classifier: ClassifierFolder = None,
    cache: CacheFile = None,
    threads: Threads = 1,
) -> None:
    """Compare a scorer with the published scores of prompts."""
    from quark.calibration import calibrate as run

    wanted = _settings(needs.CalibrateSettings, settings)
    if wanted.score.classifier is not None:
        _use(threads)
    run(wanted, prompts, out, classifier, cache)


@app.command()
def quantize(
    settings: Settings,
    samples: Annotated[list[Path], typer.Option(help="of iterations 0 to i, in this order")],
    scores: Annotated[list[Path], typer.Option(help="theirs")],
    out: Out,
) -> None:
    """Gather all samples so far into a pool and sort it into quantiles, 0 = best."""
    from quark.pool import quantize as run
    from quark.tasks import TASKS

    wanted = _settings(needs.QuantizeSettings, settings)
    run(
        samples,
        scores,
        out,
        reward=TASKS[wanted.task].reward,
        k=wanted.quantiles,
        max_failed=wanted.max_failed_scores,
        seed_name=wanted.stream,
        shuffle=wanted.shuffle,
    )


@app.command()
def train(
    settings: Settings,
    pool: Annotated[Path, typer.Option(help="Parquet file of the pool")],
    model: Model,
    out: Folder,
    memory_mb: Memory,
    checkpoint: Checkpoint = None,
    memo: Annotated[
        list[Path] | None, typer.Option(help="hidden states of the base model, as far as known")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="one for each GPU")] = 1,
    threads: Threads = 1,
) -> None:
    """Train on each quantile under its reward token, kept near the base model by the KL penalty."""
    from quark.distributed import launch
    from quark.stages import train_stage

    launch(processes)
    _use(threads)
    wanted = _settings(needs.TrainSettings, settings)
    train_stage(wanted, pool, model, checkpoint, memo or [], out, memory_mb)


# ------------------------------------------------------------------------------------ baselines
@app.command()
def corpus(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="Parquet file of training prompts")],
    samples: Annotated[Path, typer.Option(help="Parquet file; of the base model")],
    scores: Annotated[Path, typer.Option(help="theirs")],
    model: Model,
    out: Out,
    texts: Annotated[Path | None, typer.Option(help="Parquet file of plain texts")] = None,
    classifier: ClassifierFolder = None,
    cache: CacheFile = None,
    threads: Threads = 1,
) -> None:
    """Gather wanted and unwanted text for the baselines."""
    from quark.corpus import make_corpus
    from quark.tasks import TASKS

    wanted = _settings(needs.CorpusSettings, settings)
    if wanted.score.classifier is not None:
        _use(threads)
    reward = TASKS[wanted.task].reward
    files = (prompts, texts, samples, scores, model, out)
    make_corpus(wanted, *files, reward=reward, classifier=classifier, cache=cache)


@app.command()
def fit(
    settings: Settings,
    corpus: Annotated[Path, typer.Option(help="Parquet file of wanted and unwanted text")],
    model: Model,
    out: Folder,
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Train one part of a baseline on the corpus."""
    from quark.baselines import fit_stage

    _use(threads)
    fit_stage(_settings(needs.FitSettings, settings), corpus, model, out, memory_mb)


@app.command()
def train_ppo(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file; of the policy so far")],
    scores: Annotated[Path, typer.Option(help="theirs")],
    model: Model,
    out: Folder,
    memory_mb: Memory,
    checkpoint: Checkpoint = None,
    memo: Annotated[
        Path | None, typer.Option(help="hidden states with which the policy sampled")
    ] = None,
    threads: Threads = 1,
) -> None:
    """One iteration of PPO on scored samples."""
    from quark.baselines import ppo_stage

    _use(threads)
    wanted = _settings(needs.PPOSettings, settings)
    ppo_stage(wanted, samples, scores, model, checkpoint, out, memory_mb, memo)


# ----------------------------------------------------------------------------------- evaluation
@app.command()
def predict(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="Parquet file of whole texts")],
    model: Model,
    out: Out,
    memory_mb: Memory,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="of the policy, or of a baseline's parts; without it, the base model"),
    ] = None,
    threads: Threads = 1,
) -> None:
    """Predict how texts really go on, token by token."""
    from quark.stages import predict_stage

    _use(threads)
    wanted = _settings(needs.PredictSettings, settings)
    predict_stage(wanted, prompts, model, checkpoint or [], out, memory_mb)


@app.command()
def judge(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of generations")],
    model: Annotated[Path, typer.Option(help="directory of the model that wrote them")],
    judge: Annotated[Path, typer.Option(help="directory of the judging model")],
    out: Out,
    memory_mb: Memory,
    shard: ShardOption = "1-of-1",
    threads: Threads = 1,
) -> None:
    """Measure the likelihood of each response under a judge, given its prompt."""
    from quark.stages import judge_stage

    _use(threads)
    wanted, part = _settings(needs.JudgeSettings, settings), Shard.parse(shard)
    judge_stage(wanted, samples, model, judge, out, memory_mb, part)


@app.command()
def gather(
    parts: Annotated[list[Path], typer.Option(help="Parquet files of all shards")],
    order: Annotated[Path, typer.Option(help="Parquet file whose rows tell the order")],
    out: Out,
    memos: Annotated[
        list[Path] | None, typer.Option(help="hidden states of the same shards")
    ] = None,
    memo: Annotated[Path | None, typer.Option(help="file for all of them")] = None,
) -> None:
    """Put the shards of a stage together."""
    from quark.gathering import gather as run

    run(parts, order, out, memos or [], memo)


@app.command()
def mauve(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of generations")],
    predictions: Annotated[Path, typer.Option(help="Parquet file; of real continuations")],
    model: Annotated[Path, typer.Option(help="directory of the model that wrote them")],
    features: Annotated[
        Path, typer.Option(help="directory of the model whose states are features")
    ],
    out: Out,
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Measure how close generations are to real texts (needs the extra `mauve`)."""
    from quark.stages import mauve_stage

    _use(threads)
    wanted = _settings(needs.MauveSettings, settings)
    mauve_stage(wanted, samples, predictions, model, features, out, memory_mb)


@app.command()
def evaluate(
    settings: Settings,
    generations: Annotated[Path, typer.Option(help="Parquet file")],
    scores: Annotated[Path, typer.Option(help="Parquet file")],
    likelihoods: Annotated[Path, typer.Option(help="Parquet file")],
    out: Annotated[Path, typer.Option(help="metrics.json; prompts.parquet and settings.json too")],
    predictions: Annotated[
        Path | None, typer.Option(help="Parquet file; of the prompts' real continuations")
    ] = None,
    second_scores: Annotated[
        Path | None, typer.Option(help="Parquet file; of another scorer")
    ] = None,
    mauve: Annotated[Path | None, typer.Option(help="JSON that `quark mauve` wrote")] = None,
    costs: Annotated[
        list[Path] | None, typer.Option(help="JSON files of the stages that led here")
    ] = None,
) -> None:
    """Compute the metrics of one method on one split, for each prompt and together."""
    from quark import evaluation, files
    from quark.tasks import TASKS

    wanted = _settings(needs.EvaluateSettings, settings)
    evaluation.evaluate(
        generations,
        scores,
        likelihoods,
        out.with_name("prompts.parquet"),
        out,
        task=TASKS[wanted.task],
        threshold=wanted.threshold,
        predictions=predictions,
        second=second_scores,
        mauve=mauve,
    )
    facts = evaluation.facts(wanted, scores, costs or [], second_scores, mauve)
    files.write_json(out.with_name("settings.json"), facts)


@app.command()
def table(
    evaluations: Annotated[list[Path], typer.Option(help="metrics.json files, in table order")],
    published: Annotated[Path, typer.Option(help="CSV of the paper's numbers")],
    out: Annotated[Path, typer.Option(help="the CSV; .md and .tex appear beside it")],
) -> None:
    """Write the table of a task."""
    from quark.tables import make_table

    make_table([file.parent for file in evaluations], published, out)


@app.command()
def ablations(
    tables: Annotated[list[Path], typer.Option(help="CSV files, each named after its ablation")],
    out: Out,
) -> None:
    """Gather the tables of all ablations into one."""
    from quark.tables import gather

    gather(tables, out)


@app.command()
def figure(
    table: Annotated[Path, typer.Option(help="CSV of an ablation")],
    out: Annotated[Path, typer.Option(help="the SVG; a PNG appears beside it")],
) -> None:
    """Draw an ablation's main metric and fluency."""
    from quark.figures import draw_sweep

    draw_sweep(table, out)


@app.command()
def costs(
    stages: Annotated[list[Path], typer.Option(help="JSON files that the stages left")],
    out: Out,
) -> None:
    """Write what each stage cost in rows, tokens and seconds."""
    from quark.tables import cost_table

    cost_table(stages, out)


@app.command()
def track(
    task: Annotated[str, typer.Option()],
    method: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
    settings: Annotated[str, typer.Option(help="JSON of the whole configuration")],
    results: Annotated[Path, typer.Option(help="directory of the results")],
    table: Annotated[Path, typer.Option(help="CSV of the task's table")],
    prompts: Annotated[list[Path], typer.Option(help="Parquet files the run used")],
    store: Annotated[Path, typer.Option(help="sqlite file of MLflow; made if missing")],
    out: Annotated[Path, typer.Option(help="JSON with the run's id")],
) -> None:
    """Log one method and seed to MLflow, in place of its earlier run."""
    from quark import files, tracking

    run = tracking.track(
        results, task, method, seed, config=settings, table=table, prompts=prompts, store=store
    )
    files.write_json(out, {"run_id": run})


@app.command()
def benchmark(
    what: Annotated[Literal["speed", "scaling"], typer.Option()],
    settings: Settings,
    model: Model,
    out: Out,
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Measure how fast the stages are beside plain ones, or how they grow with their sizes."""
    import pandas as pd

    from quark.benchmarks.scaling import scaling
    from quark.benchmarks.speed import speed
    from quark.files import whole
    from quark.settings import SpeedSettings

    _use(threads)
    measure = {"speed": speed, "scaling": scaling}[what]
    found = measure(_settings(SpeedSettings, settings), model, threads, memory_mb)
    with whole(out) as made:
        pd.DataFrame(found).to_csv(made, index=False, float_format="%.4g")


# -------------------------------------------------------------------------------- configuration
@app.command()
def show(
    part: Annotated[str, typer.Argument(help="such as quark.training; all without it")] = "",
    config: Annotated[
        list[Path] | None, typer.Option(help="configuration files, later laid over earlier")
    ] = None,
) -> None:
    """Check the configuration and print it, or a part of it, as JSON."""
    found: Any = configuration.load(config or [Path("config/config.yaml")]).model_dump(mode="json")
    for key in filter(None, part.split(".")):
        if not isinstance(found, dict) or key not in found:
            raise configuration.ConfigError(f"{part}: no such part; there is no {key!r}")
        found = found[key]
    typer.echo(json.dumps(found, indent=2))


@app.command()
def plan(
    tasks: Annotated[list[str] | None, typer.Argument(help="all without it")] = None,
    config: Annotated[
        list[Path] | None, typer.Option(help="configuration files, later laid over earlier")
    ] = None,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="of the machine in bfloat16; an A100 has 312")
    ] = 312.0,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1, help="the share of them that is reached")
    ] = 0.3,
    resources: Annotated[Path, typer.Option(help="directory of what was fetched")] = Path(
        "resources"
    ),
) -> None:
    """Estimate what a configuration will cost, before anything runs."""
    from rich import print as show_table

    from quark import planning

    whole = configuration.load(config or [Path("config/config.yaml")])
    if unknown := sorted(set(tasks or ()) - set(whole.tasks)):
        raise configuration.ConfigError(
            f"no task {unknown[0]!r}, there are {', '.join(whole.tasks)}"
        )
    costs = planning.plan(
        whole, [task for task in whole.tasks if task in (tasks or whole.tasks)], resources
    )
    show_table(planning.table(costs, tflops, utilisation))
    typer.echo(f"Hours at {tflops:g} TFLOP/s of which {utilisation:.0%} are reached")


@app.command()
def schema(out: Out) -> None:
    """Write the JSON schema of the configuration, generated from its typed models."""
    from quark.files import write_text

    content = configuration.Config.model_json_schema()
    write_text(out, json.dumps(content, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
