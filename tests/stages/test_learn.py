"""Parts of baselines, and PPO, from file to file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import LINEAR

from quark.config import ConfigError, Precision, load
from quark.core import schemas
from quark.models.checkpoint import load_policy, read_about
from quark.stages.learn import learn_stage
from quark.stages.quantize import FailedScoresError
from quark.stages.settings import LearnSettings

CONFIG = load([Path(__file__).parents[2] / "config/config.yaml"]).baselines
QUICK = {"batch": 8, "learning_rate": 1e-2, "warmup_steps": 0, "trained_layers": 1, "epochs": 3}
WANTED, UNWANTED = [7, 8], [9, 10]


def ppo(
    folder: Path,
    model: Path,
    iteration: int,
    score: list[float | None],
    before: Path | None,
    precision: Precision = "fp32",
) -> Path:
    n = len(score)
    rng = np.random.default_rng(iteration)
    columns: dict[str, Any] = {
        "row_id": [f"{iteration}/p/{i}" for i in range(n)],
        "prompt_id": ["p"] * n,
        "sample": list(range(n)),
        "prompt": [""] * n,
        "response": [""] * n,
        "prompt_ids": rng.integers(20, 90, (n, 3)).tolist(),
        "response_ids": rng.integers(1, 90, (n, 4)).tolist(),
    }
    schemas.write(folder / "samples.parquet", schemas.SAMPLES, columns)
    scores = {name: columns[name] for name in ("row_id", "prompt_id")} | {"score": score}
    schemas.write(folder / "scores.parquet", schemas.SCORES, scores)
    settings = LearnSettings(
        version=1,
        task="toxicity",
        method="ppo",
        stream="s",
        seed=1,
        iteration=iteration,
        reward_tokens=LINEAR,
        max_failed_scores=0.2,
        min_new_tokens=3,
        training=CONFIG.ppo.training.model_copy(update={"batch": 4, "kl_target": 1.0}),
        share=1 / 2,
        precision=precision,
    )
    out = folder / f"iteration-{iteration}" / "checkpoint"
    files = folder / "samples.parquet", folder / "scores.parquet"
    learn_stage(settings, *files, model, before, out, memory_mb=4000)
    return out


def test_ppo_goes_on_from_its_checkpoint(model: Path, tmp_path: Path) -> None:
    first = ppo(tmp_path, model, 0, [0.1, 0.9, None, 0.5, 0.2, 0.7, 0.3, 0.8], None)
    second = ppo(tmp_path, model, 1, [0.1, 0.9, 0.5, 0.2], first)
    training = json.loads((tmp_path / "iteration-0/training.json").read_text())
    assert training["rows"] == 7  # the row without a score is left out
    assert training["mean_reward"] == pytest.approx(
        1 - np.mean([0.1, 0.9, 0.5, 0.2, 0.7, 0.3, 0.8])
    )
    assert [read_about(c)["step"] for c in (first, second)] == [2, 3]
    # too little KL: the penalty falls by as much as it may
    assert read_about(second)["kl_coef"] == pytest.approx(0.05 * 0.98**2)
    policy = load_policy(model, second, "fp32")
    assert policy.reward_tokens.count == 1 and policy.reward_tokens.map.any()
    with pytest.raises(ConfigError, match="iteration is 1, these settings need 0"):
        ppo(tmp_path, model, 1, [0.1, 0.9], second)
    with pytest.raises(ConfigError, match="precision is fp32, these settings need bf16"):
        ppo(tmp_path, model, 1, [0.1, 0.9], first, precision="bf16")


def test_too_many_failed_scores_stop_ppo(model: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedScoresError, match="2 of 4 samples have no score"):
        ppo(tmp_path, model, 0, [0.1, None, None, 0.2], None)
