"""`quark unlearn`: one's own model, reward and prompts, from one command."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from quark.config import ConfigError
from quark.data import fetch_model
from quark.scorers import ScorerError
from quark.tools.unlearn import unlearn

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TINY = """
precision: fp32
quark:
  iterations: 1
  first_samples: 4
  training: {sequences: 64, batch: 16, warmup_steps: 0}
evaluation: {samples: 2}
"""
REWARD = "def score(prompts, responses):\n    return ['e' in text for text in responses]\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Model, prompts, reward and settings in the working directory."""
    from runs import configured

    monkeypatch.chdir(tmp_path)
    fetch_model("mine", configured("llama", "linear").models["tiny-gpt2"], tmp_path / "mine")
    (tmp_path / "prompts.txt").write_text("".join(f"The word {i}\n" for i in range(40)))
    (tmp_path / "reward.py").write_text(REWARD)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def test_one_command_from_reward_to_model(files: Path) -> None:
    command = ["unlearn", "mine", "--reward", "reward.py:score", "--prompts", "prompts.txt"]
    command += ["--out", "out", "--config", "tiny.yaml", "--cores", "2", "--place", "3"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "quark.cli", *command],
        cwd=files,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(files / "out/results/tables/reward.csv")
    assert list(table["method"]) == ["base", "quark", "quark_guided"]
    assert list(table["n_prompts"]) == [8] * 3  # a fifth
    assert table["mean_reward"].between(0, 1).all() and set(table["scorer"]) == {"own"}
    assert "The unlearned model: out/model" in done.stdout
    changed, base = (
        AutoModelForCausalLM.from_pretrained(files / name) for name in ("out/model", "mine")
    )
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.equal(changed(ids).logits, base(ids).logits)
    # the same command has nothing left to do; another reward needs another directory
    arguments = "mine", "reward.py:score", files / "prompts.txt", files / "out"
    assert unlearn(*arguments, cores=1, laid_over=(files / "tiny.yaml",)) == files / "out/model"
    again = AutoModelForCausalLM.from_pretrained(files / "out/model")  # at place 1 now
    assert not torch.equal(again(ids).logits, changed(ids).logits)
    (files / "other.py").write_text(REWARD)
    with pytest.raises(ConfigError, match="is of another model, reward or prompts"):
        unlearn("mine", "other.py:score", *arguments[2:], cores=1)


def test_what_is_wrong_is_named_before_anything_runs(files: Path) -> None:
    prompts, out = files / "prompts.txt", files / "out"
    with pytest.raises(ScorerError, match=r"gone\.py: no such file"):
        unlearn("mine", "gone.py:score", prompts, out, cores=1)
    with pytest.raises(ScorerError, match=r"reward\.py: has no function scores"):
        unlearn("mine", "reward.py:scores", prompts, out, cores=1)
    overlay = files / "more.yaml"
    overlay.write_text("models: {also: {local: mine, licence: none}}\n")
    with pytest.raises(ConfigError, match="mine: write the whole path: the run is in another"):
        unlearn("also", "reward.py:score", prompts, out, cores=1, laid_over=(overlay,))
    with pytest.raises(ConfigError, match=r"gone\.txt: No such file"):
        unlearn("mine", "reward.py:score", files / "gone.txt", out, cores=1)
    with pytest.raises(ConfigError, match="no such directory, no model of the configuration"):
        unlearn("yours", "reward.py:score", prompts, out, cores=1)
    (files / "tiny.yaml").write_text("quark: {quantiles: 2}")
    with pytest.raises(ConfigError, match="quantile_shares needs one share for each quantile"):
        unlearn("mine", "reward.py:score", prompts, out, cores=1, laid_over=(files / "tiny.yaml",))
    prompts.write_text("One\nTwo\nOne\n")
    with pytest.raises(ConfigError, match=r"prompts\.txt: 2 prompts; 20 are needed"):
        unlearn("mine", "reward.py:score", prompts, out, cores=1)
    assert not out.exists()
    prompts.write_text("".join(f"The word {i}\n" for i in range(40)))
    with pytest.raises(ConfigError, match=r"exists and has no unlearn\.yaml"):
        unlearn("mine", "reward.py:score", prompts, files, cores=1)
