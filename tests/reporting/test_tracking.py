"""What `track` writes, read back from the store: runs, histories, inputs and artifacts."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quark import config
from quark.core import files, schemas
from quark.reporting.tracking import TrackingError, _stage_file, track

ROOT = Path(__file__).parents[2]
STEPS = 1005  # more points than MLflow takes in one call


def _config() -> dict[str, Any]:
    layers = [ROOT / "config/config.yaml", ROOT / "config/scale/test.yaml"]
    return config.load(layers).model_dump(mode="json")


def _write_iteration(folder: Path, i: int) -> None:
    speed = {"tokens": 600, "seconds": 2.0, "tokens_per_second": 300.0}
    files.write_json(folder / "samples.json", {"rows": 30, **speed})
    scorer = {"scorer": "profanity-check", "scorer_version": "1.9.1"}
    errors = {"KeyError: 'attributeScores', <html>": 1}  # no name that MLflow would take
    scores = {
        "rows": 30,
        "failed": 1,
        **scorer,
        "mean_score": 0.25,
        "errors": errors,
        "seconds": 1.0,
    }
    files.write_json(folder / "scores.json", scores)
    pool = {
        "iteration": i,
        "rows": 30 * (i + 1),
        "dropped": 0,
        "mean_reward": 0.5 + i / 10,
        "pool_mean_reward": 0.5 + i / 20,
        "quantile_edges": [1.0, 0.8, 0.4, 0.1],
        "quantile_mean_reward": [0.9, 0.6, None],
    }
    files.write_json(folder / "pool.json", pool)
    names = ("loss", "lm_loss", "kl", "entropy")
    steps = [
        {"step": step, **dict.fromkeys(names, 1 / (step + 1)), "learning_rate": 1e-4}
        | {"grad_norm": 1.0}
        for step in range(STEPS if i == 0 else 2)
    ]
    token_gap = {"best": 0.7, "best_se": 0.01, "worst": 0.2, "worst_se": 0.02} if i else None
    training = {"iteration": i, "sequences": 32, "token_gap": token_gap, "steps": steps, **speed}
    files.write_json(folder / "training.json", training | dict.fromkeys(names, 2.0 - i))


@dataclass(frozen=True)
class Project:
    """A working directory with everything that `track` reads."""

    root: Path
    config: dict[str, Any]
    prompts: list[Path]

    def track(self, method: str, seed: int, **changed: Any) -> str:
        """Log one run, with the table."""
        given: dict[str, Any] = {
            "config": self.root / "results/config.json",
            "table": self.root / "results/tables/toxicity.csv",
            "prompts": self.prompts,
            "store": self.root / "results/mlflow.db",
        }
        return track(self.root / "results", "toxicity", method, seed, **given | changed)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Files of one base and one Quark run; a space in the path must not matter."""
    root = tmp_path_factory.mktemp("project") / "my results"
    settings = _config()
    files.write_json(root / "results/config.json", settings)
    for suffix in ("csv", "md"):
        files.write_text(root / f"results/tables/toxicity.{suffix}", f"a {suffix} table\n")
    prompts = [root / f"resources/prompts/handmade/{s}.parquet" for s in ("train", "nontoxic")]
    for i, file in enumerate(prompts):
        columns = {"prompt_id": [f"{i}a", f"{i}b"], "text": ["One", "Two"]}
        columns |= {"source": ["hand"] * 2, "toxicity": [None, 0.5], "toxic": [False, True]}
        schemas.write(file, schemas.PROMPTS, columns)
    for method in ("base", "quark"):
        folder = root / f"results/toxicity/{method}/seed-1"
        for split in ("nontoxic", "challenging"):
            metrics = {"max_toxicity": 0.4, "prompts": 6, "perplexity": None}
            files.write_json(folder / f"evaluation/{split}/nucleus/metrics.json", metrics)
    for i in range(settings["quark"]["iterations"]):
        folder = root / f"results/toxicity/quark/seed-1/iteration-{i}"
        _write_iteration(folder, i)
        for name in ("policy.safetensors", "checkpoint.json", "optimizer.safetensors"):
            files.write_text(folder / "checkpoint" / name, f"{name} of {i}")
    return Project(root, settings, prompts)


@dataclass(frozen=True)
class Logged:
    """A store in which base was logged once and Quark twice."""

    client: Any
    runs: dict[str, Any]  # by run_key
    ids: list[str]  # that `track` returned


@pytest.fixture(scope="module")
def logged(project: Project) -> Logged:
    """The store is made once: creating MLflow's tables takes seconds."""
    ids = [project.track("base", 1), project.track("quark", 1), project.track("quark", 1)]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root}/results/mlflow.db")
    experiment = client.get_experiment_by_name("toxicity")
    found = client.search_runs([experiment.experiment_id])
    runs = {run.data.tags["run_key"]: run for run in found}
    assert len(runs) == len(found), "two runs share a key"
    return Logged(client, runs, ids)


def test_one_run_for_each_method_seed_and_iteration_even_when_logged_twice(logged: Logged) -> None:
    nested = {f"quark/seed-1/iteration-{i}" for i in range(2)}
    assert set(logged.runs) == {"base/seed-1", "quark/seed-1"} | nested
    base, first, second = logged.ids
    assert logged.runs["base/seed-1"].info.run_id == base
    assert logged.runs["quark/seed-1"].info.run_id == second
    assert logged.client.get_run(first).info.lifecycle_stage == "deleted"
    assert {logged.runs[key].data.tags["mlflow.parentRunId"] for key in nested} == {second}
    assert {run.info.status for run in logged.runs.values()} == {"FINISHED"}


def test_parent_holds_evaluation_and_a_summary_by_iteration(logged: Logged) -> None:
    run = logged.runs["quark/seed-1"]
    assert run.data.metrics["nontoxic/nucleus/max_toxicity"] == 0.4
    assert run.data.metrics["challenging/nucleus/prompts"] == 6
    assert "nontoxic/nucleus/perplexity" not in run.data.metrics  # null

    def history(name: str) -> list[tuple[int, float]]:
        return [(m.step, m.value) for m in logged.client.get_metric_history(run.info.run_id, name)]

    assert history("mean_reward") == [(0, 0.5), (1, 0.6)]
    assert history("pool_mean_reward") == [(0, 0.5), (1, 0.55)]
    assert history("kl") == [(0, 2.0), (1, 1.0)]
    assert history("token_gap_best") == [(1, 0.7)]  # iteration 0 has no token gap
    assert history("seconds") == [(0, 5.0), (1, 5.0)]  # 2 sampling, 1 scoring, 2 training
    assert history("tokens_per_second") == [(0, 240.0), (1, 240.0)]  # 1200 tokens in 5 s


def test_nested_run_holds_stages_quantiles_and_curves(logged: Logged) -> None:
    first, second = (logged.runs[f"quark/seed-1/iteration-{i}"] for i in range(2))
    metrics = second.data.metrics
    assert metrics["samples/tokens_per_second"] == 300.0
    assert metrics["training/token_gap/worst"] == 0.2
    assert [metrics[f"quantile_edge/{k}"] for k in range(4)] == [1.0, 0.8, 0.4, 0.1]
    assert "quantile_mean_reward/2" not in metrics  # null
    assert second.data.params["scores/scorer"] == "profanity-check"
    curve = logged.client.get_metric_history(first.info.run_id, "steps/lm_loss")
    assert [(m.step, m.value) for m in curve] == [(i, 1 / (i + 1)) for i in range(STEPS)]


def test_params_are_the_settings_the_run_depends_on(project: Project, logged: Logged) -> None:
    quark, base = (logged.runs[f"{method}/seed-1"].data.params for method in ("quark", "base"))
    kl = project.config["quark"]["training"]["kl_coef"]
    assert quark["quark.training.kl_coef"] == str(kl)
    assert quark["task.splits"] == '["nontoxic", "challenging"]'
    assert quark["quark.training.trained_layers"] == "0"
    assert quark["evaluation.samples"] == base["evaluation.samples"] == "5"
    assert not [name for name in base if name.startswith("quark")]


def test_inputs_name_the_prompt_files(project: Project, logged: Logged) -> None:
    inputs = logged.runs["quark/seed-1"].inputs.dataset_inputs
    found = {entry.tags[0].value: entry.dataset for entry in inputs}
    assert set(found) == {"train", "nontoxic"}
    for file in project.prompts:
        dataset = found[file.stem]
        assert dataset.name == "handmade"
        assert dataset.digest == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        source = json.loads(dataset.source)["uri"]
        assert not Path(source).is_absolute() and Path(source).resolve() == file.resolve()
        columns = json.loads(dataset.schema)["mlflow_colspec"]
        assert [column["name"] for column in columns] == schemas.PROMPTS.names


def test_artifacts_lie_beside_the_store(project: Project, logged: Logged) -> None:
    folder = project.root / "results/mlartifacts" / logged.ids[-1] / "artifacts"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    metrics = {f"evaluation/{split}/nucleus/metrics.json" for split in ("nontoxic", "challenging")}
    assert found == {"config.json", "table/toxicity.csv", "table/toxicity.md"} | metrics
    assert files.read_json(folder / "config.json") == project.config


def test_configuration_as_text_and_no_table(project: Project, logged: Logged) -> None:
    made = project.track("base", 1, config=json.dumps(project.config), table=None)
    names = {item.path for item in logged.client.list_artifacts(made)}
    assert names == {"config.json", "evaluation"}


def test_ppo_begins_with_quarks_samples() -> None:
    run = Path("results/toxicity/ppo/seed-2")
    quark = Path("results/toxicity/quark/seed-2/iteration-0")
    for stage in ("samples", "scores"):
        assert _stage_file(run, "ppo", 0, stage) == quark / f"{stage}.json"
        assert _stage_file(run, "ppo", 1, stage) == run / f"iteration-1/{stage}.json"
    assert _stage_file(run, "ppo", 0, "training") == run / "iteration-0/training.json"
    assert _stage_file(run, "quark", 0, "samples") == run / "iteration-0/samples.json"


@pytest.mark.parametrize(
    "name",
    [
        "tables/toxicity.md",
        "toxicity/quark/seed-1/evaluation/challenging/nucleus/metrics.json",
        "toxicity/quark/seed-1/iteration-1/pool.json",
    ],
)
def test_missing_file_is_named_and_leaves_the_store_alone(project: Project, name: str) -> None:
    file = project.root / "results" / name
    away = file.rename(file.with_suffix(".away"))
    store = project.root / "never/mlflow.db"
    try:
        with pytest.raises(TrackingError, match=rf"{name}: no such file"):
            project.track("quark", 1, store=store)
    finally:
        away.rename(file)
    assert not store.parent.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"toxicity": "low"}',
            r"metrics\.json: nontoxic/nucleus/toxicity = 'low': expected a number",
        ),
        ("[1, 2]", r"metrics\.json: not a JSON mapping"),
        ('{"toxicity": ', r"metrics\.json: not a JSON mapping"),
    ],
)
def test_bad_metrics_are_named(project: Project, content: str, message: str) -> None:
    file = project.root / "results/toxicity/base/seed-1/evaluation/nontoxic/nucleus/metrics.json"
    good = file.read_text()
    file.write_text(content)
    try:
        with pytest.raises(TrackingError, match=message):
            project.track("base", 1)
    finally:
        file.write_text(good)


def test_missing_key_and_unknown_task_are_named(project: Project) -> None:
    file = project.root / "results/toxicity/quark/seed-1/iteration-0/training.json"
    good = file.read_text()
    files.write_json(file, {k: v for k, v in json.loads(good).items() if k != "kl"})
    try:
        with pytest.raises(TrackingError, match=r"iteration-0/training\.json: no key 'kl'"):
            project.track("quark", 1)
    finally:
        file.write_text(good)
    settings = project.root / "results/config.json"
    with pytest.raises(TrackingError, match="poetry: no such task; configured are toxicity"):
        track(Path(), "poetry", "base", 1, config=settings, table=None, prompts=[], store=Path("x"))


def test_configuration_that_is_a_file_name_is_refused(project: Project) -> None:
    with pytest.raises(TrackingError, match=r"configuration: not JSON.*give a file as a Path"):
        project.track("base", 1, config="results/config.json")


def test_moved_store_is_refused(project: Project, logged: Logged, tmp_path: Path) -> None:
    moved = tmp_path / "mlflow.db"
    moved.write_bytes((project.root / "results/mlflow.db").read_bytes())
    with pytest.raises(TrackingError, match=r"so it was moved; delete it, and give"):
        project.track("base", 1, store=moved)


def test_importing_the_module_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, quark.reporting.tracking; print({'mlflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_what_was_learnt_is_a_version_of_a_model(logged: Logged, project: Project) -> None:
    """Of the last log alone, with its metrics; the optimiser stays where it is."""
    (version,) = logged.client.search_model_versions("name = 'toxicity-quark'")
    run = logged.runs["quark/seed-1"]
    assert version.run_id == run.info.run_id
    assert version.tags["seed"] == "1"
    assert version.tags["nontoxic/nucleus/max_toxicity"] == "0.4"
    (model,) = logged.client.search_logged_models([run.info.experiment_id])
    assert version.source == model.artifact_location and model.status == "READY"
    kept = Path(model.artifact_location.removeprefix("file://").replace("%20", " "))
    assert project.root / "results/mlartifacts" in kept.parents
    names = ("MLmodel", "checkpoint.json", "policy.safetensors", "served.json")
    assert {file.name for file in kept.iterdir()} == set(names)
    assert (kept / "policy.safetensors").read_text() == "policy.safetensors of 1"
    assert not logged.client.search_model_versions("name = 'toxicity-base'")


def test_a_models_metrics_name_their_prompts(logged: Logged, project: Project) -> None:
    """The run has each of them once, and the model too; `challenging` has no prompt file here."""
    run = logged.runs["quark/seed-1"]
    (model,) = logged.client.search_logged_models([run.info.experiment_id])
    assert model.source_run_id == run.info.run_id and model.params["method"] == "quark"
    assert [made.model_id for made in run.outputs.model_outputs] == [model.model_id]
    of_prompts = {
        metric.key: metric.dataset_digest
        for metric in model.metrics
        if metric.key.endswith("max_toxicity")
    }
    digest = hashlib.sha256(project.prompts[1].read_bytes()).hexdigest()[:16]
    assert of_prompts == {
        "nontoxic/nucleus/max_toxicity": digest,
        "challenging/nucleus/max_toxicity": None,
    }
    history = logged.client.get_metric_history(run.info.run_id, "nontoxic/nucleus/max_toxicity")
    assert [point.value for point in history] == [0.4]
