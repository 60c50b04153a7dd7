"""A run that is killed and started again ends as a run that was left alone."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from quark.config import load
from quark.config.precision import resolve
from quark.tools.export import export

pytestmark = pytest.mark.slow
QUARK = "results/toxicity/quark/seed-1"
LAST = f"{QUARK}/iteration-1"
TABLE = "results/tables/toxicity.csv"


def remove(folder: Path, *names: str) -> None:
    """Remove files and directories; each must be there."""
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def inside(folder: Path) -> list[psutil.Process]:
    """The processes that work in `folder`."""
    found = psutil.process_iter(["cwd", "cmdline"])  # None where they cannot be read
    return [process for process in found if process.info["cwd"] == str(folder)]


def wait_for(happened, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_a_run_killed_in_training_resumes_to_the_same_table(finished, tmp_path):
    killed = finished.copy(tmp_path / "run")
    killed.python = Path(sys.executable)  # processes of its own
    here = killed.folder
    # Back to where the last training starts: all that came after it goes.
    remove(here, f"{LAST}/checkpoint", f"{LAST}/training.json", f"{QUARK}/evaluation")
    remove(here, "results/tables", "results/tracking", "results/mlflow.db")
    remove(here, *(f"results/toxicity/table.{kind}" for kind in ("csv", "md", "tex")))

    process = killed.start()
    # Its first seconds: training itself is too short here to be hit for certain.
    wait_for(lambda: any("train" in child.info["cmdline"] for child in inside(here)))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not inside(here), 10)
    assert not (here / LAST / "checkpoint").exists()
    assert not (here / LAST / "training.json").exists()

    killed.run("--unlock")
    unfinished = killed.planned()
    assert unfinished == {
        "train": 1, "generate": 1, "score_generations": 1, "judge": 1, "evaluate": 1,
        "table": 1, "costs": 1, "track": 2, "publish": 1,
    }  # fmt: skip
    killed.run()
    assert (here / TABLE).read_bytes() == (finished.folder / TABLE).read_bytes()
    assert not killed.planned()


def test_everything_that_a_run_promises_is_there(finished):
    for name in ("toxicity.csv", "toxicity.md", "toxicity.tex", "toxicity_cost.csv"):
        assert (finished.folder / "results/tables" / name).stat().st_size
    scratch = [path for path in finished.folder.glob("results/**/.*") if path.is_dir()]
    assert not scratch, "whole() leaves no directory behind"


@pytest.mark.filterwarnings("ignore:(?s).*inferred as AnyType:UserWarning")  # of MLflow's own code
def test_the_registered_model_loads_and_is_the_exported_one(finished, tmp_path, monkeypatch):
    """MLflow's version on the base model, against transformers on what `quark export` wrote."""
    monkeypatch.chdir(finished.folder)
    store = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri("sqlite:///results/mlflow.db")
    try:
        loaded = mlflow.pyfunc.load_model("models:/toxicity-quark/1")
    finally:
        mlflow.set_tracking_uri(store)
    prompts = ["So I started", "You", "So I started"]
    assert all(isinstance(text, str) and text for text in loaded.predict(prompts))
    assert len(loaded.predict(pd.DataFrame({"prompt": prompts}))) == 3
    with pytest.raises(ValueError, match="give one column of prompts, not 2"):
        loaded.predict(pd.DataFrame({"a": prompts, "b": prompts}))
    config = resolve(load(["config/config.yaml", "config/scale/test.yaml"]), Path("results"))
    places = Path("results"), Path("resources"), tmp_path / "exported"
    export(config, "toxicity", "quark", 1, *places)
    served = loaded._model_impl  # our class, which MLflow wraps
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    ids = [5, 6, 7]
    with torch.no_grad():
        expected = exported(torch.tensor([ids])).logits[0, -1]
        found = served.decoder.read([ids]).next_token().logits[0]
    torch.testing.assert_close(found.float(), expected, atol=1e-4, rtol=0)  # float32, other order


def test_an_empty_file_of_prompts_stops_the_run(empty):
    prompts = empty.folder / "empty.txt"
    prompts.write_text("\n")
    source = {"name": "none", "local": "empty.txt", "format": "lines", "licence": "none"}
    over = empty.configure("over.yaml", {"prompts": {"handmade": {"sources": [source]}}})
    target = "results/toxicity/quark/seed-1/iteration-0/samples.parquet"
    printed = empty.run(config=(over,), targets=(target,), fails=True)
    assert "quark: ResourceError: " in printed and "empty.txt" in printed
    assert "Traceback" not in printed
    assert not (empty.folder / "resources/prompts/handmade").exists()
    assert not (empty.folder / target).exists()
