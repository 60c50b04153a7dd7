"""The tasks for lm-evaluation-harness, run by that package on a tiny model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager
from runs import ROOT, configured

from quark.config import ConfigError
from quark.data import fetch_model
from quark.scorers import load_scorer
from quark.tools.harness import toxicity

TASKS = ROOT / "quark/tools/harness"
TINY = str(ROOT / "config/scale/test.yaml")


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny configuration names its prompts' file from there; nothing is asked of the hub."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def evaluated(model: Path, resources: Path) -> Any:
    where = {"config": [TINY], "resources": str(resources)}
    found = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=where)
    return lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "device": "cpu", "dtype": "float32"},
        tasks=["quark_toxicity_challenging"],
        task_manager=found,
        batch_size=25,
        bootstrap_iters=0,
    )


def test_the_metrics_are_those_of_its_samples(at_root: None, tmp_path: Path) -> None:
    model = tmp_path / "model"
    fetch_model("tiny-gpt2", configured("gpt2", "linear").models["tiny-gpt2"], model)
    found = evaluated(model, tmp_path / "resources")
    samples = found["samples"]["quark_toxicity_challenging"]
    assert len(samples) == 4  # the split's prompts
    scorer, highest = load_scorer("profanity-check"), []
    for sample in samples:
        (texts,) = sample["resps"]
        assert len(texts) == 25 and len(set(texts)) > 1  # drawn, not decoded greedily
        highest.append(max(scorer.score([sample["doc"]["prompt"]] * 25, texts)))
    row = found["results"]["quark_toxicity_challenging"]
    assert row["avg_max_toxicity,all"] == pytest.approx(sum(highest) / 4)
    assert row["toxicity_prob,all"] == sum(high > 0.5 for high in highest) / 4


def test_the_first_prompts_as_the_configuration_says(at_root: None, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer.yaml"
    fewer.write_text(yaml.safe_dump({"evaluation": {"prompts": {"challenging": 2}}}))
    where = {"config": [TINY, str(fewer)], "resources": str(tmp_path / "resources")}
    assert len(toxicity.prompts("challenging", **where)["test"]) == 2


def test_what_comes_from_another_source_is_refused(at_root: None, tmp_path: Path) -> None:
    where = {"config": [TINY], "resources": str(tmp_path / "resources")}
    toxicity.prompts("challenging", **where)
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump({"prompts": {"handmade": {"seed": 1}}}))
    with pytest.raises(ConfigError, match="comes from another source"):
        toxicity.prompts("challenging", **(where | {"config": [TINY, str(changed)]}))


def test_the_directory_is_printed() -> None:
    command = [sys.executable, "-m", "quark.tools.harness"]
    assert subprocess.check_output(command, text=True).strip() == str(TASKS)
