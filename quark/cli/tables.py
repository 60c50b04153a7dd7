"""Verbs that make tables, figures, logs and benchmarks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quark import config as configuration
from quark.cli.options import (
    Memory,
    Model,
    Out,
    Settings,
    Threads,
    app,
    parse,
    task_of,
)
from quark.stages.threads import use_threads

Evaluations = Annotated[
    list[Path], typer.Option(help="metrics.json files, or archives, in table order")
]


@app.command()
def make_table(
    evaluations: Evaluations,
    out: Annotated[Path, typer.Option(help="the CSV; .md and .tex are written beside it")],
    published: Annotated[Path | None, typer.Option(help="CSV of the paper's numbers")] = None,
) -> None:
    """Write the table of a task."""
    from quark.reporting import tables

    tables.make_table(evaluations, published, out)


@app.command()
def archive(evaluations: Evaluations, out: Out) -> None:
    """Put what a table needs of evaluations into one small file, from which tables can be made."""
    from quark.reporting import tables

    tables.pack(evaluations, out)


@app.command()
def ablations(
    tables: Annotated[list[Path], typer.Option(help="CSV files, each named after its ablation")],
    out: Out,
) -> None:
    """Gather the tables of all ablations into one."""
    from quark.reporting.tables import gather

    gather(tables, out)


@app.command()
def tuning(
    table: Annotated[Path, typer.Option(help="CSV of the tries' table")],
    most_perplexity: Annotated[
        float,
        typer.Option(help="largest perplexity of a choice, as a multiple of the base model's"),
    ],
    out: Annotated[Path, typer.Option(help="the CSV; .md is written beside it")],
) -> None:
    """Choose among the settings that were tried on validation prompts."""
    from quark.reporting.tables import make_tuning

    make_tuning(table, most_perplexity, out)


@app.command()
def figure(
    kind: Annotated[
        Literal["curves", "operating", "published", "rewards", "sweep", "tradeoff"], typer.Option()
    ],
    source: Annotated[
        list[Path], typer.Option(help="a table, a pool, or the folders of iterations")
    ],
    out: Annotated[Path, typer.Option(help="the SVG; PNG and Parquet are written beside it")],
) -> None:
    """Draw a figure."""
    from quark.reporting.figures import FIGURES

    FIGURES[kind](source, out)


@app.command()
def page(
    task: Annotated[str, typer.Option()],
    settings: Annotated[str, typer.Option(help="JSON of the whole configuration")],
    table: Annotated[Path, typer.Option(help="CSV of the task's table")],
    costs: Annotated[Path, typer.Option(help="CSV of the stages' costs")],
    figures: Annotated[list[Path], typer.Option(help="SVG files")],
    captions: Annotated[
        list[Path], typer.Option(help="text files of the figures' captions, in the same order")
    ],
    out: Out,
    methods: Annotated[
        list[str] | None, typer.Option(help="methods whose samples are shown")
    ] = None,
    generations: Annotated[
        list[Path] | None,
        typer.Option(help="Parquet files of the methods' generations, in the same order"),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="Parquet files of the generations' scores, in the same order"),
    ] = None,
) -> None:
    """Write the page of a task: tables, figures, samples side by side, costs and settings."""
    from quark.reporting.report import Written, make_page

    whole = parse(configuration.Config, settings)
    theirs = zip(methods or [], generations or [], scores or [], strict=True)
    written = [Written(*each) for each in theirs]
    make_page(
        whole,
        task_of(whole, task),
        table=table,
        costs=costs,
        written=written,
        figures=figures,
        captions=captions,
        out=out,
    )


@app.command()
def costs(
    stages: Annotated[
        Path, typer.Option(help="text file that names the JSON files of the stages, one per line")
    ],
    out: Out,
) -> None:
    """Write the cost of each stage in rows, tokens and seconds."""
    from quark.reporting.tables import cost_table

    cost_table([Path(line) for line in stages.read_text().splitlines()], out)


@app.command()
def track(
    task: Annotated[str, typer.Option()],
    method: Annotated[str, typer.Option()],
    seed: Annotated[int, typer.Option()],
    settings: Annotated[str, typer.Option(help="JSON of the whole configuration")],
    results: Annotated[Path, typer.Option(help="directory of the results")],
    table: Annotated[Path, typer.Option(help="CSV of the task's table")],
    prompts: Annotated[list[Path], typer.Option(help="Parquet files that the run used")],
    store: Annotated[Path, typer.Option(help="sqlite file of MLflow; created if missing")],
    out: Annotated[Path, typer.Option(help="JSON with the run's id")],
) -> None:
    """Log one method and seed to MLflow, in place of its earlier run."""
    from quark.core import files
    from quark.reporting import tracking

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
    """Compare the stages' speed with plain code, or measure how time and memory grow with sizes."""
    import pandas as pd

    from quark.benchmarks.scaling import scaling
    from quark.benchmarks.speed import speed
    from quark.core.files import whole
    from quark.stages.settings import SpeedSettings

    use_threads(threads)
    measure = {"speed": speed, "scaling": scaling}[what]
    found = measure(parse(SpeedSettings, settings), model, threads, memory_mb)
    with whole(out) as made:
        pd.DataFrame(found).to_csv(made, index=False, float_format="%.4g")
