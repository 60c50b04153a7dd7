"""The command line: one verb for each rule of the workflow, and verbs for users.

    quark VERB --help                         explains a verb
    snakemake -np TARGET                      prints the commands that make a target

Every verb works without Snakemake. A rule's verb takes everything that changes its result as
`--settings JSON` (see `quark.stages.settings`). It takes files by name. Threads and memory are
separate options: they change the speed, not the result.

    options      options of several verbs
    resources, methods, evaluation, tables      verbs of rules
    people       verbs for users
"""

import gc
import logging
import sys
from typing import Annotated

import typer

from quark import __version__
from quark.cli import evaluation, methods, people, resources, tables  # their verbs
from quark.cli.options import app

__all__ = ["app", "evaluation", "main", "methods", "people", "resources", "tables"]

DEBUG = "--debug"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"quark {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option(DEBUG, help="show the trace of an error")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="print the version and stop")
    ] = False,
) -> None:
    """Quark: reinforced unlearning of a language model's behaviour."""


def main() -> None:
    """Run a verb; print an error that has an explanation without a traceback."""
    debug = DEBUG in sys.argv  # at any position
    words = [word for word in sys.argv[1:] if word != DEBUG]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for client in ("httpx", "httpx2"):  # they log a line for each request
        logging.getLogger(client).setLevel(logging.WARNING)
    gc.set_threshold(10_000)  # imports create some hundred thousand objects; none is garbage
    try:
        app(words)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
        explained = isinstance(error, (MemoryError, OSError))
        if debug or (not explained and not type(error).__module__.startswith("quark.")):
            raise
        sys.exit(f"quark: {type(error).__name__}: {error}")
    finally:
        gc.freeze()  # do not search these objects at exit either
