"""Verbs that evaluate a method."""

from pathlib import Path
from typing import Annotated

import typer

from quark.cli.options import (
    Checkpoints,
    Memory,
    Model,
    Out,
    Settings,
    ShardOption,
    Threads,
    app,
    parse,
)
from quark.core.shards import Shard
from quark.stages import settings as needs
from quark.stages.threads import use_threads


@app.command()
def predict(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="Parquet file of whole texts")],
    model: Model,
    out: Out,
    memory_mb: Memory,
    checkpoint: Checkpoints = None,
    threads: Threads = 1,
) -> None:
    """Predict the real continuations of texts, token by token."""
    from quark.stages.predict import predict_stage

    use_threads(threads)
    wanted = parse(needs.PredictSettings, settings)
    predict_stage(wanted, prompts, model, checkpoint or [], out, memory_mb)


@app.command()
def judge(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of generations")],
    model: Annotated[Path, typer.Option(help="directory of the model that sampled them")],
    judge: Annotated[Path, typer.Option(help="directory of the judging model")],
    out: Out,
    memory_mb: Memory,
    shard: ShardOption = "1-of-1",
    threads: Threads = 1,
) -> None:
    """Measure the likelihood of each response under a judge, given its prompt."""
    from quark.stages.judge import judge_stage

    wanted, part = parse(needs.JudgeSettings, settings), Shard.parse(shard)
    judge_stage(wanted, samples, model, judge, out, memory_mb, part, threads)


@app.command()
def gather(
    parts: Annotated[list[Path], typer.Option(help="Parquet files of all shards")],
    order: Annotated[Path, typer.Option(help="Parquet file whose rows give the order")],
    out: Out,
    hidden_parts: Annotated[
        list[Path] | None, typer.Option(help="files of the shards' hidden states")
    ] = None,
    hidden: Annotated[Path | None, typer.Option(help="file for all hidden states")] = None,
) -> None:
    """Merge the shards of a stage."""
    from quark.stages.merge_shards import merge_shards as run

    run(parts, order, out, hidden_parts or [], hidden)


@app.command()
def mauve(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="Parquet file of generations")],
    predictions: Annotated[
        Path, typer.Option(help="Parquet file that holds the real continuations")
    ],
    model: Annotated[Path, typer.Option(help="directory of the model that sampled them")],
    features: Annotated[
        Path, typer.Option(help="directory of the model whose states are features")
    ],
    out: Out,
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Measure how close generations are to real texts (needs the extra `mauve`)."""
    from quark.stages.mauve import mauve_stage

    use_threads(threads)
    wanted = parse(needs.MauveSettings, settings)
    mauve_stage(wanted, samples, predictions, model, features, out, memory_mb)


@app.command()
def evaluate(
    settings: Settings,
    generations: Annotated[Path, typer.Option(help="Parquet file of generations")],
    scores: Annotated[Path, typer.Option(help="Parquet file of their scores")],
    likelihoods: Annotated[Path, typer.Option(help="Parquet file of their likelihoods")],
    out: Annotated[
        Path,
        typer.Option(help="metrics.json; prompts.parquet and settings.json are written beside it"),
    ],
    predictions: Annotated[
        Path | None, typer.Option(help="Parquet file of predictions of the real continuations")
    ] = None,
    second_scores: Annotated[
        Path | None, typer.Option(help="Parquet file of another scorer's scores")
    ] = None,
    mauve: Annotated[Path | None, typer.Option(help="JSON that `quark mauve` wrote")] = None,
    costs: Annotated[
        list[Path] | None, typer.Option(help="JSON files of the earlier stages' costs")
    ] = None,
) -> None:
    """Compute the metrics of one method on one split, for each prompt and over all prompts."""
    from quark.reporting.evaluation import evaluate_stage

    evaluate_stage(
        parse(needs.EvaluateSettings, settings),
        generations,
        scores,
        likelihoods,
        out,
        costs=costs or [],
        predictions=predictions,
        second=second_scores,
        mauve=mauve,
    )
