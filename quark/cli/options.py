"""What the verbs share: their options, and what is done before each."""

from pathlib import Path
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from quark.config import Config, ConfigError, TaskName, load
from quark.config.precision import resolve
from quark.scorers import check_scorers

DEFAULT = Path("config/config.yaml")
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
S = TypeVar("S", bound=BaseModel)

Settings = Annotated[str, typer.Option(help="JSON of what changes the result")]
Model = Annotated[Path, typer.Option(help="directory of the base model")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="the policy's checkpoint; without it, the base model itself")
]
Checkpoints = Annotated[
    list[Path] | None,
    typer.Option(
        "--checkpoint", help="of the policy, or of a baseline's parts; without it, the base model"
    ),
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
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", help="laid over config/config.yaml, later ones over earlier ones; as of the run"
    ),
]
Results = Annotated[Path, typer.Option(help="directory of the results")]
Resources = Annotated[Path, typer.Option(help="directory of what was fetched")]


def parse(model: type[S], text: str) -> S:
    """The settings of a verb from its JSON.

    Raises:
        ConfigError: they are not what the verb takes.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"--settings {text}: {error}") from None


def laid_over(files: list[Path] | None) -> list[Path]:
    """The files that are laid over the default configuration."""
    return [file for file in files or [] if file != DEFAULT]


def configured(files: list[Path] | None, results: Path) -> Config:
    """The checked configuration: files laid over the default, as Snakemake lays them.

    `precision: auto` is what the directory of results knows, or what this machine would choose.

    Raises:
        ConfigError: it cannot be run.
        ScorerError: it names a scorer that does not exist.
    """
    config = load([DEFAULT, *laid_over(files)])
    check_scorers(config)
    return resolve(config, results)


def task_of(config: Config, name: str) -> TaskName:
    """A task by its name.

    Raises:
        ConfigError: there is none.
    """
    if name not in config.tasks:
        raise ConfigError(f"no task {name!r}, there are {', '.join(config.tasks)}")
    return name
