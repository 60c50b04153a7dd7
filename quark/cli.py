"""The command line: one verb for each rule of the workflow; every verb works without Snakemake.

    quark VERB --help                  explains a verb
    quark show quark.training          prints a part of the configuration as JSON

A verb takes the part of the configuration that it depends on as `--settings JSON`. The workflow
puts the same JSON into the rule's `params:`, so what a verb can see is exactly what makes it run
again. Threads and memory come as options of their own: they change the speed, not the result.
"""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError

from quark import config as configuration

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Settings = Annotated[str, typer.Option(help="JSON, as `quark show` prints it")]
Model = Annotated[Path, typer.Option(help="directory of the base model")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="of the policy; without it, the base model itself")
]
Seed = Annotated[str, typer.Option(help="name of the random stream, the experiment's seed first")]
Threads = Annotated[int, typer.Option(min=1, help="threads to use")]
Memory = Annotated[int, typer.Option(min=1, help="MB that the job may use")]
Out = Annotated[Path, typer.Option(help="appears whole or not at all")]
Files = Annotated[
    list[Path], typer.Option("--config", help="configuration files, each laid over those before")
]
DEFAULT = [Path("config/config.yaml")]
