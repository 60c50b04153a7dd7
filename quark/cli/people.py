"""Verbs for users: a run's cost, progress and results, and the use of the unlearned model."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from quark import config as configuration
from quark.cli.options import (
    Files,
    Out,
    Resources,
    Results,
    app,
    configured,
    laid_over,
    task_of,
)
from quark.stages.threads import use_threads

Task = Annotated[str, typer.Option(help="a task of the configuration")]
Seed = Annotated[int, typer.Option(help="seed of the run")]
Method = Annotated[str, typer.Option(help="quark, or quark_unlikelihood")]
RESULTS, RESOURCES = Path("results"), Path("resources")


# ------------------------------------------------------------------------------------ before a run
@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="a new directory")],
) -> None:
    """Make a directory with the workflow and its configuration, to run Snakemake in."""
    from quark.core.pipeline import init as run

    run(folder)
    typer.echo(
        f"cd {folder}\n"
        "snakemake --cores all results/tables/toxicity.csv --configfile config/scale/test.yaml\n"
        "The first run takes a minute, with tiny models. Without --configfile and what follows "
        "it is the real experiment; `quark plan` says how long it takes."
    )


@app.command()
def show(
    part: Annotated[str, typer.Argument(help="such as quark.training; without it, all")] = "",
    config: Files = None,
    results: Results = RESULTS,
) -> None:
    """Check the configuration and print it, or a part of it, as JSON."""
    found: Any = configured(config, results).model_dump(mode="json")
    for key in filter(None, part.split(".")):
        if not isinstance(found, dict) or key not in found:
            raise configuration.ConfigError(f"{part}: no such part; there is no {key!r}")
        found = found[key]
    typer.echo(json.dumps(found, indent=2))


@app.command()
def plan(
    tasks: Annotated[list[str] | None, typer.Argument(help="tasks; without it, all")] = None,
    config: Files = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="speed of another machine in bfloat16 (A100: 312); without it, this machine is "
            "measured for some seconds",
        ),
    ] = None,
    utilisation: Annotated[
        float,
        typer.Option(
            min=0.001, max=1, help="the share that is reached, of --tflops or of a GPU's speed"
        ),
    ] = 0.3,
    gpus: Annotated[
        bool,
        typer.Option(help="list the hours on known GPUs in bf16, and what does not fit on them"),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="threads of a job here; without it, all")
    ] = None,
    results: Results = RESULTS,
    resources: Resources = RESOURCES,
) -> None:
    """Estimate what a configuration will cost, before anything runs."""
    from rich import print as show_table

    from quark.tools import planning

    whole = configured(config, results)
    if gpus:
        whole = whole.model_copy(update={"precision": "bf16"})
    chosen = [task_of(whole, task) for task in tasks or whole.tasks]
    costs = planning.plan(whole, [task for task in whole.tasks if task in chosen], resources)
    if gpus:
        show_table(planning.on_gpus(costs, utilisation))
        typer.echo(
            f"Time at {utilisation:.0%} of each GPU's TFLOP/s, without a classifier's scoring"
        )
        return
    if tflops is None:
        cores = threads or os.cpu_count() or 1
        here = planning.this_machine(whole.precision, cores)
        show_table(planning.table(costs, here))
        typer.echo(
            f"Time on this machine, measured just now: {here.gflops:.0f} GFLOP/s in "
            f"{whole.precision} with {cores} threads. Other programs make it longer."
        )
        return
    show_table(planning.table(costs, planning.Machine(tflops * 1000 * utilisation)))
    typer.echo(f"Time at {tflops:g} TFLOP/s of which {utilisation:.0%} are reached")


@app.command()
def doctor(results: Results = RESULTS) -> None:
    """Look at this machine before a run; the exit status is 1 if the default cannot run here."""
    from rich.console import Console

    from quark.tools.doctor import doctor as run
    from quark.tools.doctor import shown

    checks = run(results if results.exists() else Path())
    Console().print(shown(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def schema(out: Out) -> None:
    """Write the JSON schema of the configuration, as JSON, or as YAML if the file is named so."""
    import yaml

    from quark.core.files import write_text

    content = configuration.WrittenConfig.model_json_schema()
    if out.suffix in (".yaml", ".yml"):
        write_text(out, yaml.safe_dump(content, allow_unicode=True, width=100))
    else:
        write_text(out, json.dumps(content, indent=2, sort_keys=True) + "\n")


# ------------------------------------------------------------------------------ during and after it
@app.command()
def status(
    config: Files = None,
    results: Results = RESULTS,
    resources: Resources = RESOURCES,
    logs: Annotated[Path, typer.Option(help="directory of the logs")] = Path("logs"),
) -> None:
    """Show each run's progress, the stages that stopped, and the command that continues."""
    from rich import print as show_text

    from quark.tools.status import status as find

    whole = configured(config, results)
    show_text(find(whole, results, resources, logs, laid_over=laid_over(config)))


@app.command()
def table(
    task: Annotated[str, typer.Argument(help="such as toxicity")],
    results: Results = RESULTS,
) -> None:
    """Print the table of a task; it may be wider than the terminal, so that no number is cut."""
    from rich.console import Console

    from quark.reporting.tables import shown_table

    Console().print(shown_table(results / "tables" / f"{task}.csv"), crop=False)


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(help="such as results/toxicity/quark/seed-1")],
    other: Annotated[Path, typer.Argument(help="a run of another method, seed or clone")],
) -> None:
    """Compare two runs: settings that differ, and metrics on the prompts that both have."""
    from rich import print as show_text

    from quark.reporting.compare_runs import compare as run

    show_text(run(one, other))


@app.command()
def measure(
    models: Annotated[
        list[str],
        typer.Argument(
            help="directories, names under `models` in the configuration, or repositories of the "
            "Hugging Face hub (OWNER/NAME or OWNER/NAME@COMMIT); all are compared with the first"
        ),
    ],
    out: Annotated[Path, typer.Option(help="new directory for the table and all files")],
    task: Task = "toxicity",
    prompts: Annotated[
        Path | None,
        typer.Option(help="text file, a prompt on each line; without it, the task's test prompts"),
    ] = None,
    memory_mb: Annotated[int, typer.Option(min=1, help="memory to use")] = 8000,
    config: Files = None,
    results: Results = RESULTS,
    resources: Resources = RESOURCES,
    threads: Annotated[int, typer.Option(min=1, help="threads to use")] = 2,
) -> None:
    """Evaluate models alone, without a run: continuations, both scorers, perplexity, intervals."""
    from rich.console import Console

    from quark.reporting.tables import shown_table
    from quark.tools.measure import measure as run

    use_threads(threads)
    whole = configured(config, results)
    run(
        whole,
        task_of(whole, task),
        models,
        out,
        resources=resources,
        prompts=prompts,
        memory_mb=memory_mb,
        threads=threads,
    )
    Console().print(shown_table(out / "table.csv"), crop=False)
    typer.echo(
        f"{out}/table.md also has the differences, with intervals; table.csv has all digits."
    )


# ------------------------------------------------------------------------------ the unlearned model
@app.command()
def export(
    out: Annotated[Path, typer.Option(help="directory, written completely or not at all")],
    task: Task = "toxicity",
    method: Method = "quark",
    seed: Seed = 1,
    config: Files = None,
    results: Results = RESULTS,
    resources: Resources = RESOURCES,
    place: Annotated[
        float | None, typer.Option(help="place of linear reward tokens; without it, 1: the best")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads to use")] = 1,
) -> None:
    """Write the unlearned model as a Hugging Face directory."""
    from quark.tools.export import export as run

    use_threads(threads)
    whole = configured(config, results)
    run(whole, task_of(whole, task), method, seed, results, resources, out, place)


@app.command()
def unlearn(
    model: Annotated[
        str,
        typer.Argument(
            help="directory, a name under `models` in the configuration, or a repository of the "
            "Hugging Face hub (OWNER/NAME or OWNER/NAME@COMMIT)"
        ),
    ],
    reward: Annotated[
        str,
        typer.Option(help="FILE.py:FUNCTION; from prompts and responses to rewards in [0, 1]"),
    ],
    prompts: Annotated[Path, typer.Option(help="text file, a prompt on each line")],
    out: Annotated[Path, typer.Option(help="directory of the run; the model is in OUT/model")],
    place: Annotated[
        float | None, typer.Option(help="place of the exported model; without it, 1: the best")
    ] = None,
    config: Files = None,
    cores: Annotated[
        int | None, typer.Option(min=1, help="cores to use; without it, all of the machine")
    ] = None,
) -> None:
    """Run Quark on your own model, reward and prompts, and export the model that it learns."""
    from rich.console import Console

    from quark.reporting.tables import shown_table
    from quark.tools.unlearn import TASK
    from quark.tools.unlearn import unlearn as run

    count = cores or os.cpu_count() or 1
    over = tuple(laid_over(config))
    made = run(model, reward, prompts, out, cores=count, laid_over=over, place=place)
    Console().print(shown_table(out / f"results/tables/{TASK}.csv"), crop=False)
    typer.echo(f"The unlearned model: {made}")


@app.command(name="try")
def try_(
    prompt: Annotated[
        str | None, typer.Argument(help="text; without it, the verb asks for prompts")
    ] = None,
    task: Task = "toxicity",
    method: Method = "quark",
    seed: Seed = 1,
    samples: Annotated[int, typer.Option(min=1, help="continuations of each model")] = 3,
    memory_mb: Annotated[int, typer.Option(min=1, help="memory to use")] = 8000,
    config: Files = None,
    results: Results = RESULTS,
    resources: Resources = RESOURCES,
    place: Annotated[
        float,
        typer.Option(help="place of the reward tokens; 1: the best; other places: guided Quark"),
    ] = 1.0,
    picture: Annotated[
        Path | None, typer.Option(help="SVG file; it shows the table of PROMPT as a terminal does")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="threads to use")] = 2,
) -> None:
    """Continue a prompt with the base model and Quark (before any run: the package's Quark)."""
    from rich import print as show_table

    from quark.core.files import write_text
    from quark.models.decode_state import PromptLengthError
    from quark.tools import demo
    from quark.tools.demo import TRAINED, Trial

    if picture is not None and prompt is None:
        raise typer.BadParameter("--picture needs a prompt")

    use_threads(threads)
    whole = configured(config, results)
    trial = Trial(whole, task_of(whole, task), method, seed, results, resources, memory_mb, place)
    if trial.checkpoint.is_relative_to(TRAINED):
        typer.echo(f"{task} was not run here: this Quark is part of the package; place {place:g}.")
    if prompt is not None:
        made = trial.table(prompt, samples)
        show_table(made)
        if picture is not None:
            command = f"quark try {shlex.quote(prompt)} --place {place:g} --samples {samples}"
            write_text(picture, demo.picture(made, command, 100))
        return
    typer.echo("Type a prompt, or an empty line to end.")
    while asked := typer.prompt("prompt", default="", show_default=False):
        try:
            show_table(trial.table(asked, samples))
        except PromptLengthError as error:
            typer.echo(error)
