"""The common options of the verbs, and the functions that read settings and configuration."""

import logging
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from quark.config import Config, ConfigError, TaskName, load
from quark.config.precision import resolve
from quark.core.pipeline import PIPELINE
from quark.scorers import check_scorers

DEFAULT = Path("config/config.yaml")
log = logging.getLogger(__name__)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
S = TypeVar("S", bound=BaseModel)

Settings = Annotated[str, typer.Option(help="JSON of the settings that change the result")]
Model = Annotated[Path, typer.Option(help="directory of the base model")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="the policy's checkpoint; without it, the base model itself")
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint",
        help="checkpoint of the policy, or of a baseline's parts; without it, the base model",
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="threads to use")]
Memory = Annotated[int, typer.Option(min=1, help="MB of memory that this job may use")]
Out = Annotated[Path, typer.Option(help="output file, written completely or not at all")]
ClassifierFolder = Annotated[
    Path | None, typer.Option("--classifier", help="the scorer's directory, if it is a classifier")
]
CacheFile = Annotated[
    Path | None, typer.Option("--cache", help="file that stores scores, if the scorer is a service")
]
Folder = Annotated[Path, typer.Option(help="directory, written completely or not at all")]
ShardOption = Annotated[str, typer.Option("--shard", help="part of the work, such as 2-of-8")]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        help="file that overrides config/config.yaml and the files before it; as in the run",
    ),
]
Results = Annotated[Path, typer.Option(help="directory of the results")]
Resources = Annotated[Path, typer.Option(help="directory of fetched models and prompts")]


def parse(model: type[S], text: str) -> S:
    """Return the settings of a verb from its JSON.

    Raises:
        ConfigError: the JSON does not hold the verb's settings.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"--settings {text}: {error}") from None


def laid_over(files: list[Path] | None) -> list[Path]:
    """Return the files that override the default configuration."""
    return [file for file in files or [] if file != DEFAULT]


def configured(files: list[Path] | None, results: Path) -> Config:
    """Return the checked configuration: the default, overridden by files, as in Snakemake.

    In a directory without a default, it is the package's.
    `precision: auto` becomes the precision that the directory of results has stored, or that this
    machine would choose.

    Raises:
        ConfigError: the configuration cannot be run.
        ScorerError: the configuration names a scorer that does not exist.
    """
    default = DEFAULT if DEFAULT.exists() else PIPELINE / DEFAULT
    if default != DEFAULT:
        log.info("%s does not exist here: the package's is used", DEFAULT)
    config = load([default, *laid_over(files)])
    check_scorers(config)
    return resolve(config, results)


def task_of(config: Config, name: str) -> TaskName:
    """Return the name of a task of the configuration.

    Raises:
        ConfigError: there is no such task.
    """
    if name not in config.tasks:
        raise ConfigError(f"no task {name!r}, there are {', '.join(config.tasks)}")
    return name
