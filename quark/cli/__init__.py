"""The command line: one verb for each rule of the workflow, and verbs for people.

    quark VERB --help                         explains a verb
    snakemake -np TARGET                      prints the very commands that make a target

Every verb works without Snakemake. One of a rule takes what changes its result as `--settings JSON`
(see `quark.stages.settings`), files by name, and threads and memory as options of their own: those
change the speed, not the result.

    options      what the verbs share
    resources, methods, evaluation, tables      verbs of rules
    people       verbs for people
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
        bool, typer.Option("--version", callback=_print_version, help="print it and stop")
    ] = False,
) -> None:
    """Quark: reinforced unlearning of what a language model does."""


def main() -> None:
    """Run a verb; a fault that has an explanation is printed without a traceback."""
    debug = DEBUG in sys.argv  # wherever it stands
    words = [word for word in sys.argv[1:] if word != DEBUG]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for client in ("httpx", "httpx2"):  # they write a line for each request
        logging.getLogger(client).setLevel(logging.WARNING)
    gc.set_threshold(10_000)  # imports make some hundred thousand objects, none of them garbage
    try:
        app(words)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError, OSError) as error:
        explained = isinstance(error, (MemoryError, OSError))
        if debug or (not explained and not type(error).__module__.startswith("quark.")):
            raise
        sys.exit(f"quark: {type(error).__name__}: {error}")
    finally:
        gc.freeze()  # nor need they be searched at the end
