"""Log the files of the jobs to MLflow, so that runs can be browsed and compared.

This module imports no torch, and imports MLflow only when `track` runs. The store is derived from
the files, and no other stage reads it. It can be deleted and logged again without loss. Jobs never
log while they work, so a job that was killed or run again leaves no lock, no partial run and no
duplicate history.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quark.config import Config, TaskName, check, for_task, resolved
from quark.config.registry import spec
from quark.core import paths
from quark.core.files import read_json
from quark.core.schemas import PROMPTS, read
from quark.reporting.served import Served
from quark.reporting.store import (
    Point,
    Run,
    TrackingError,
    alone,
    create,
    forget,
    log_model,
    log_points,
    open_store,
)
from quark.stages.derive import QUARKS, decodings, explorer, lineage, model

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CHECKPOINT = ("policy.safetensors", "checkpoint.json")
"""The files of a checkpoint that a model needs; the optimiser's stays where it is."""


def track(
    results: Path,
    task: str,
    method: str,
    seed: int,
    *,
    config: Path | str,
    table: Path | None,
    prompts: Sequence[Path],
    store: Path,
) -> str:
    """Log one method and seed to MLflow, in place of its earlier run; return the run's id.

    The experiment is the task. The run holds the settings, the metrics of the task's test splits
    (`SPLIT/DECODING/NAME`), a summary of each iteration (step = iteration), prompt files, table and
    configuration. Each iteration is a nested run. The trained weights of a Quark run are a logged
    model with its metrics, each with the prompts it was measured on. It is registered as a version
    of the model `TASK-METHOD`; `mlflow.pyfunc.load_model` loads it (see `quark.reporting.served`).
    Everything is read before the store is changed, so an error does not change it. Earlier runs
    and models are marked as deleted; `mlflow gc` frees their space.

    Args:
        results: The folder that holds `TASK/METHOD/seed-SEED/`.
        method: The method. Its settings are in the section of that name, in the configuration or in
            its baselines, if there is one.
        config: The resolved configuration: a JSON file, or the JSON itself as a string.
        table: The task's table, a CSV with a Markdown file beside it; None: not made yet.
        prompts: Parquet files `.../NAME/SPLIT.parquet` that the run used.
        store: The sqlite file; created if missing. Artifacts are stored in `mlartifacts` beside it.

    Raises:
        TrackingError: a file is missing or not what its stage writes, or the store was moved.
        ConfigError: the configuration cannot be run.
        TableError: a prompt file is missing or not a table of prompts.
    """
    settings = _settings(config, task)
    folder = paths.run(results, task, method, seed)
    checked = resolved(check(settings), settings["precision"])
    rounds = spec(method).rounds
    count = rounds.iterations(checked) if rounds else 0
    stages = rounds.stages if rounds else ()
    iterations = [
        {stage: _Stage(_stage_file(folder, method, i, stage)) for stage in stages}
        for i in range(count)
    ]
    artifacts = {
        paths.evaluation(folder, split, name) / "metrics.json": f"evaluation/{split}/{name}"
        for split in settings["tasks"][task]["splits"]
        for name in decodings(checked, method)
    }
    points = [point for file in artifacts for point in _evaluated(file)]
    points += [
        point for i, stages in enumerate(iterations) for point in _summary(method, i, stages)
    ]
    if table:
        artifacts |= {table: "table", table.with_suffix(".md"): "table"}
    last = paths.iteration(folder, count - 1) / "checkpoint"
    learnt = [last / name for name in CHECKPOINT] if method in QUARKS else []
    _require([*artifacts, *learnt])
    run = Run(f"{method}/seed-{seed}", _params(settings, checked, task, method, seed), points)
    nested = [_nested(f"{run.key}/iteration-{i}", stages) for i, stages in enumerate(iterations)]

    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")  # before the import
    inputs = [_input(file) for file in prompts]
    with alone(store):
        client, experiment = open_store(store, task)
        forget(client, experiment, run.key)
        parent = create(client, experiment, run)
        made = None
        if learnt:
            served = _served(checked, task, method)
            name = f"{task}-{method}"
            made = log_model(client, experiment, name, parent, run, seed, learnt, served)
        log_points(client, parent, run.points, made, inputs)
        for iteration in nested:
            child = create(client, experiment, iteration, parent)
            log_points(client, child, iteration.points)
            client.set_terminated(child)
        client.log_inputs(parent, inputs)
        client.log_dict(parent, settings, "config.json")
        for file, place in artifacts.items():
            client.log_artifact(parent, str(file), place)
        client.set_terminated(parent)
    return parent


# -------------------------------------------------------------------------------- reading files
class _Stage(dict[str, Any]):
    """A stage's JSON file, whose missing keys are reported with the file's name."""

    def __init__(self, file: Path) -> None:
        _require([file])
        try:
            super().__init__(read_json(file))
        except (TypeError, ValueError) as error:
            raise TrackingError(f"{file}: not a JSON mapping of names to values: {error}") from None
        self.file = file

    def __missing__(self, key: str) -> Any:
        raise TrackingError(f"{self.file}: no key {key!r}; delete the file to have it made again")


def _stage_file(run: Path, method: str, iteration: int, stage: str) -> Path:
    """Return the JSON file of an iteration's stage; the samples may be another method's."""
    other = explorer(method, iteration)
    if stage in ("samples", "scores") and other != method:
        run = run.parents[1] / other / run.name
    return paths.iteration(run, iteration) / f"{stage}.json"


def _section(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return a method's own settings; empty for the base model."""
    rounds = spec(method).rounds
    found: Any = settings
    if rounds is None:
        found = settings.get(method) or settings["baselines"].get(method)
        found = found or settings["plugins"].get(method, {})
    else:
        for key in rounds.section.split("."):
            found = found.get(key, {})
    section: dict[str, Any] = found
    return section


def _shared(settings: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Return the settings that a baseline reads from other sections."""
    found: dict[str, Any] = {}
    for path in spec(method).also_reads:
        value: Any = settings
        for key in path.split("."):
            value = value[key]
        found[key] = value
    if spec(method).parts:
        found["corpus"] = settings["baselines"]["corpus"]
    return found


def _require(files: Iterable[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise TrackingError(f"{file}: no such file; run the rule that makes it, then log again")


def _settings(config: Path | str, task: str) -> dict[str, Any]:
    """Return the checked configuration as plain data, with the defaults of missing keys."""
    try:
        raw = _Stage(config) if isinstance(config, Path) else json.loads(config)
    except json.JSONDecodeError as error:
        raise TrackingError(f"configuration: not JSON: {error}; give a file as a Path") from None
    settings = check(raw).model_dump(mode="json")
    if task not in settings["tasks"]:
        raise TrackingError(f"{task}: no such task; configured are {', '.join(settings['tasks'])}")
    return settings


# --------------------------------------------------------------------- from files to MLflow's terms
def _flat(content: Mapping[str, Any], separator: str) -> Iterator[tuple[str, Any]]:
    """Yield nested keys, joined by `separator`, with their values; lists are not divided."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            for inner, leaf in _flat(value, separator):
                yield f"{key}{separator}{inner}", leaf
        else:
            yield key, value


def _points(values: Mapping[str, Any], source: Path, step: int = 0) -> Iterator[Point]:
    """Yield the values as points at `step`, without nulls such as an undefined mean."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise TrackingError(f"{source}: {name} = {value!r}: expected a number or null")
        if value is not None:
            yield name, float(value), step


def _evaluated(file: Path) -> Iterator[Point]:
    place = f"{file.parents[1].name}/{file.parent.name}"
    return _points({f"{place}/{name}": v for name, v in _Stage(file).items()}, file)


def _params(
    settings: Mapping[str, Any], config: Config, task: str, method: str, seed: int
) -> dict[str, str]:
    """Return the settings that this run's numbers depend on, without other methods' settings."""
    start = model(config, task, method)
    chosen: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "precision": settings["precision"],
        "task": settings["tasks"][task],
        method: _section(settings, method),
        **_shared(settings, method),
        "evaluation": settings["evaluation"],
        "models": {name: settings["models"][name] for name in lineage(config, start)},
    }
    leaves = _flat(chosen, ".")
    return {key: leaf if isinstance(leaf, str) else json.dumps(leaf) for key, leaf in leaves}


def _summary(method: str, number: int, stages: Mapping[str, _Stage]) -> Iterator[Point]:
    """Yield the values that are compared across iterations; time and speed are of a whole one."""
    samples, scores, training = (stages[name] for name in ("samples", "scores", "training"))
    tokens = samples["tokens"] + training["tokens"]
    seconds = samples["seconds"] + scores["seconds"] + training["seconds"]
    token_gap = (training["token_gap"] or {}) if method in QUARKS else {}
    rounds = spec(method).rounds
    compared = rounds.summary if rounds else {}
    values = {
        **{name: stages[stage][name] for stage, names in compared.items() for name in names},
        **{f"token_gap_{name}": token_gap.get(name) for name in ("best", "worst")},
        "tokens_per_second": tokens / seconds if seconds else None,
        "seconds": seconds,
    }
    return _points(values, training.file.parent, step=number)


def _nested(key: str, stages: Mapping[str, _Stage]) -> Run:
    """Return one iteration: `STAGE/NAME` at step 0, and `steps/NAME` at each optimiser step."""
    params: dict[str, str] = {}
    points: list[Point] = []
    for stage in stages.values():
        numbers = {name: value for name, value in stage.items() if name != "errors"}  # free text
        for name, leaf in _flat({stage.file.stem: numbers}, "/"):
            if isinstance(leaf, str):
                params[name] = leaf
            elif not isinstance(leaf, list):
                points += _points({name: leaf}, stage.file)
    if pool := stages.get("pool"):
        for name in ("quantile_edges", "quantile_mean_reward"):
            one = name.removesuffix("s")
            numbered = {f"{one}/{k}": value for k, value in enumerate(pool[name])}
            points += _points(numbered, pool.file)
    training = stages["training"]
    for row in training["steps"]:
        curves = {f"steps/{name}": value for name, value in row.items() if name != "step"}
        points += _points(curves, training.file, step=row["step"])
    return Run(key, params, points)


def _input(file: Path) -> "DatasetInput":
    """Describe a prompt file: path, schema, and the first 16 digits of its sha256 as digest."""
    from mlflow.data import sources
    from mlflow.data.pandas_dataset import PandasDataset
    from mlflow.entities import Dataset, DatasetInput, InputTag

    prompts = read(file, PROMPTS).to_pandas()
    # The class is named here: MLflow has two classes for a local path and warns if it must choose.
    source = sources.LocalArtifactDatasetSource(os.path.relpath(file))  # type: ignore[attr-defined]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    described = PandasDataset(prompts, source, name=file.parent.name, digest=digest).to_dict()
    return DatasetInput(Dataset(**described), [InputTag("mlflow.data.context", file.stem)])


def _served(config: Config, task: TaskName, method: str) -> Served:
    """Return how a method's model continues prompts."""
    return Served(
        model=model(config, task, method),
        precision=config.precision,
        sampling=next(iter(for_task(config, task).evaluation.decoding.values())),
    )
