"""Quark on one's own model, reward and prompts, from one command: `quark unlearn`.

It writes a configuration into a new directory, runs the workflow there, and exports the model. The
same command given again continues a run that stopped.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from quark.config import Config, ConfigError, load
from quark.config.precision import resolve
from quark.core import files
from quark.core.pipeline import PIPELINE
from quark.scorers import check_scorers, split, version_of
from quark.scorers.function import Function
from quark.tools.export import export
from quark.tools.measure import model_source

DEFAULT = PIPELINE / "config/config.yaml"
TASK = "reward"
CONFIG = "unlearn.yaml"
NAME = "own"
"""The name of the model, the prompts and the reward in the configuration."""
FEWEST = 20
"""Of prompts; with fewer there is nothing to test on."""


def unlearn(
    model: str,
    reward: str,
    prompts: Path,
    out: Path,
    *,
    cores: int,
    laid_over: tuple[Path, ...] = (),
    place: float | None = None,
) -> Path:
    """Run Quark and export the model that it learns.

    Args:
        model: a directory of safetensors, a model's name under `models` in the configuration, or a
            repository of the Hugging Face hub (see `quark.tools.measure`).
        reward: `FILE.py:FUNCTION`, which gives a reward in [0, 1] to each response.
        prompts: text file with a prompt on each line. A fifth of them, 128 at most, become test
            prompts, as many become validation prompts; Quark learns from the others.
        out: directory of the run.
        cores: of Snakemake.
        laid_over: configuration files, laid over the one that is written; paths in them are whole.
        place: where the exported model is on the axis of linear reward tokens; None: 1.

    Returns:
        The directory of the exported model.

    Raises:
        ConfigError: the prompts are too few, or `out` has another run.
        ScorerError: the reward's file is missing, or has no such function.
    """
    file, function = split(reward)
    reward, prompts = f"{os.path.abspath(file)}:{function}", prompts.absolute()
    asked = f"# quark unlearn {model} --reward {reward} --prompts {prompts}"
    config = out / CONFIG
    if config.exists():
        text = config.read_text()
        if not text.startswith(f"{asked}\n"):
            raise ConfigError(f"{config} is of another model, reward or prompts: change --out")
    else:
        text = f"{asked}\n{_written(model, reward, prompts, laid_over)}"
    _check(text, reward, laid_over)
    if not config.exists():
        if out.exists() and any(out.iterdir()):
            raise ConfigError(f"{out} exists and has no {CONFIG}: name another directory")
        out.mkdir(parents=True, exist_ok=True)
        for part in ("config", "profiles"):
            (out / part).symlink_to(PIPELINE / part)
        files.write_text(config, text)
    layers = [CONFIG, *(str(file.resolve()) for file in laid_over)]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PIPELINE / "Snakefile")]
    command += ["--cores", str(cores), "--configfile", *layers, "--", f"results/tables/{TASK}.csv"]
    if subprocess.run(command, cwd=out, check=False).returncode:
        raise ConfigError(f"the run stopped: see {out}/logs; the same command continues it")
    places = out / "results", out / "resources", out / "model"
    export(_config(out, layers), TASK, "quark", 1, *places, place)
    return out / "model"


def _check(text: str, reward: str, laid_over: tuple[Path, ...]) -> None:
    """Check configuration and reward before anything is written.

    Raises:
        ConfigError: it cannot be run, or has a path that is relative.
        ScorerError: the reward cannot be loaded.
    """
    Function(NAME, reward, version_of(reward))
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / CONFIG
        written.write_text(text)
        config = load([DEFAULT, written, *laid_over])
    check_scorers(config)
    sources = [*config.models.values(), *config.classifiers.values()]
    sources += [source for prompts in config.prompts.values() for source in prompts.sources]
    named = [source.local for source in sources if source.local]
    for path in (*named, *config.functions.values()):
        if not os.path.isabs(path):
            raise ConfigError(f"{path}: write the whole path: the run is in another directory")


def _config(out: Path, layers: list[str]) -> Config:
    given = [DEFAULT, *(out / layer for layer in layers)]
    return resolve(load(given), out / "results")


def _written(model: str, reward: str, prompts: Path, laid_over: tuple[Path, ...]) -> str:
    """Return the configuration of the run.

    Raises:
        ConfigError: the file of prompts is missing, or too short; or there is no such model.
    """
    try:
        lines = {line.strip() for line in prompts.read_text().splitlines()} - {""}
    except OSError as error:
        raise ConfigError(f"--prompts {prompts}: {error.strerror}") from None
    if len(lines) < FEWEST:
        raise ConfigError(f"--prompts {prompts}: {len(lines)} prompts; {FEWEST} are needed")
    tested = min(128, len(lines) // 5)
    source: dict[str, Any] = {"name": NAME, "format": "lines", "licence": NAME}
    source["local"] = str(prompts)
    models: dict[str, Any] = {}
    name = model
    if model not in load([DEFAULT, *laid_over]).models:
        name, models = NAME, {NAME: model_source(model).model_dump(exclude_none=True)}
        if "local" in models[NAME]:
            models[NAME]["local"] = os.path.abspath(models[NAME]["local"])
    content = {
        "seeds": [1],
        "models": models,
        "prompts": {
            NAME: {
                "sources": [source],
                "scorer": "profanity-check",
                "toxic_from": 0.5,
                "seed": 0,
                "splits": {split: {"prompts": tested} for split in ("test", "validation")},
            }
        },
        "functions": {NAME: reward},
        "tasks": {
            TASK: {
                "model": name,
                "judge": name,
                "prompts": NAME,
                "scorer": NAME,
                "splits": ["test"],
                "methods": ["base", "quark", "quark_guided"],
            }
        },
        "quark": {"training": {"held_out_prompts": min(48, len(lines) // 10)}},
        "evaluation": {"prompts": None},
    }
    return yaml.safe_dump(content, sort_keys=False)
