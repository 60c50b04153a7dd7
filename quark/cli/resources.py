"""Verbs that fetch or make models and prompts."""

from pathlib import Path
from typing import Annotated

import typer

from quark import config as configuration
from quark.cli.options import (
    Folder,
    Memory,
    Settings,
    Threads,
    app,
    parse,
)
from quark.stages import settings as needs
from quark.stages.threads import use_threads


@app.command()
def fetch_model(
    name: Annotated[str, typer.Option(help="the model's name in the configuration")],
    settings: Settings,
    out: Folder,
    threads: Threads = 1,
) -> None:
    """Fetch a pretrained model once and store it as safetensors."""
    from quark.data import fetch_model as fetch

    use_threads(threads, gpu=False)
    fetch(name, parse(configuration.ModelSource, settings), out)


@app.command()
def fetch_classifier(
    name: Annotated[str, typer.Option(help="the model's name in the configuration")],
    settings: Settings,
    out: Folder,
) -> None:
    """Fetch a text-classification model once and store it as safetensors."""
    from quark.data.classifiers import fetch_classifier as fetch

    use_threads(1, gpu=False)
    fetch(name, parse(configuration.Source, settings), out)


@app.command()
def finetune_model(
    settings: Settings,
    model: Annotated[Path, typer.Option(help="directory of the model that training starts from")],
    texts: Annotated[Path, typer.Option(help="Parquet file of plain texts")],
    out: Folder,
    summary: Annotated[Path, typer.Option(help="JSON file of costs and steps")],
    memory_mb: Memory,
    threads: Threads = 1,
) -> None:
    """Fine-tune a model on plain texts and store it as a new model."""
    from quark.stages.finetune_model import finetune_stage

    use_threads(threads)
    wanted = parse(needs.FinetuneSettings, settings)
    finetune_stage(wanted, model, texts, out, summary, memory_mb)


@app.command()
def fetch_prompts(
    name: Annotated[str, typer.Option(help="the prompts' name in the configuration")],
    settings: Settings,
    out: Folder,
) -> None:
    """Fetch prompts once, remove duplicates and cut them into splits."""
    from quark.data import fetch_prompts as fetch

    fetch(name, parse(configuration.Prompts, settings), out)


@app.command()
def sort_prompts(
    settings: Settings,
    prompts: Annotated[Path, typer.Option(help="directory of the fetched prompts")],
    samples: Annotated[Path, typer.Option(help="Parquet file of the candidates' samples")],
    scores: Annotated[Path, typer.Option(help="Parquet file of these samples' scores")],
    out: Folder,
) -> None:
    """Sort prompts into splits by the base model's output on them."""
    from quark.stages.sort_prompts import sort_prompts_stage as run

    run(parse(needs.SortSettings, settings), prompts, samples, scores, out)
