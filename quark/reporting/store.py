"""The MLflow store of a working directory: runs, logged models and registered versions.

MLflow is imported only inside functions, so that the command line starts quickly.
"""

import fcntl
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quark.reporting.served import SETTINGS, Served

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

Point = tuple[str, float, int]  # metric, value, step


class TrackingError(ValueError):
    """Files cannot be logged; the message names file and key and says what to do."""


@dataclass(frozen=True)
class Run:
    """The content of one MLflow run; `key` identifies the earlier run that it replaces."""

    key: str
    params: dict[str, str]
    points: list[Point]


@contextmanager
def alone(store: Path) -> Iterator[None]:
    """Lock the store: two processes that create its tables at once would both fail."""
    store.parent.mkdir(parents=True, exist_ok=True)
    with open(store.with_name(f".{store.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_store(store: Path, task: str) -> tuple["MlflowClient", str]:
    """Return a client of the store and the id of the task's experiment, created if missing."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store.resolve()}")
    artifacts = (store.parent / "mlartifacts").resolve().as_uri()
    experiment = client.get_experiment_by_name(task)
    if experiment is None:
        return client, client.create_experiment(task, artifact_location=artifacts)
    if experiment.artifact_location != artifacts:
        raise TrackingError(
            f"{store}: its artifacts are in {experiment.artifact_location}, so it was moved; "
            "delete it, and give the command of the run again with --forcerun track"
        )
    return client, experiment.experiment_id


def forget(client: "MlflowClient", experiment: str, key: str) -> None:
    """Delete the run with that key, nested runs first, so that a kill leaves no orphans."""
    for old in client.search_runs([experiment], f"tags.run_key = '{key}'"):
        run = old.info.run_id
        for version in client.search_model_versions(f"run_id = '{run}'"):
            client.delete_model_version(version.name, version.version)
        for child in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run}'"):
            client.delete_run(child.info.run_id)
        for made in client.search_logged_models([experiment], f"source_run_id = '{run}'"):
            client.delete_logged_model(made.model_id)
        client.delete_run(run)


def create(client: "MlflowClient", experiment: str, run: Run, parent: str | None = None) -> str:
    """Create the run in the store; return its id."""
    from mlflow.entities import Param

    tags = {"run_key": run.key} | ({"mlflow.parentRunId": parent} if parent else {})
    made: str = client.create_run(experiment, tags=tags, run_name=run.key).info.run_id
    client.log_batch(made, params=[Param(*param) for param in _short(run.params).items()])
    return made


def log_points(
    client: "MlflowClient",
    run: str,
    points: Sequence[Point],
    model: str | None = None,
    inputs: Sequence["DatasetInput"] = (),
) -> None:
    """Add metrics to a run and, if there is one, to its model, with the prompts they are of."""
    from mlflow.entities import Metric
    from mlflow.utils.validation import MAX_METRICS_PER_BATCH

    of_split = {each.tags[0].value: each.dataset for each in inputs}
    now = int(time.time() * 1000)
    metrics = []
    for name, value, step in points:
        prompts = of_split.get(name.partition("/")[0])
        of_prompts = (prompts.name, prompts.digest) if model and prompts else (None, None)
        metrics.append(Metric(name, value, now, step, model, *of_prompts))
    for first in range(0, len(metrics), MAX_METRICS_PER_BATCH):
        client.log_batch(run, metrics[first : first + MAX_METRICS_PER_BATCH])


def log_model(
    client: "MlflowClient",
    experiment: str,
    name: str,
    parent: str,
    run: Run,
    seed: int,
    learnt: Sequence[Path],
    served: Served,
) -> str:
    """Log what a run learnt as a model, and register it as a version of `name`; return its id.

    It has the trained weights and what MLflow needs to load them. The version's tags are the seed
    and the run's metrics.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    tags = {"seed": str(seed)}
    model = client.create_logged_model(experiment, name, parent, tags, _short(run.params))
    model_id = str(model.model_id)
    about: Any = Model(run_id=parent, model_id=model_id)
    about.add_flavor("python_function", loader_module=Served.__module__)
    with tempfile.TemporaryDirectory() as folder:
        written = [Path(folder, SETTINGS), Path(folder, "MLmodel")]
        written[0].write_text(served.model_dump_json(indent=2))
        written[1].write_text(about.to_yaml())
        for file in (*learnt, *written):
            client.log_model_artifact(model_id, str(file))
    client.finalize_logged_model(model_id, "READY")
    client.log_outputs(parent, [LoggedModelOutput(model_id, step=0)])
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(
            name, description="load it with mlflow.pyfunc; quark export makes a whole model of it"
        )
    tags |= {metric: str(value) for metric, value, _ in run.points if metric.count("/") == 2}
    # the place itself: MLflow would look `models:/ID` up in another store than the client's
    client.create_model_version(name, model.artifact_location, parent, tags=tags, model_id=model_id)
    return model_id


def _short(params: Mapping[str, str]) -> dict[str, str]:
    """Cut values to the length that MLflow takes."""
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    return {name: value[:MAX_PARAM_VAL_LENGTH] for name, value in params.items()}
