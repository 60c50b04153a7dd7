"""Quark trained by the rules in two processes, each with its part of each layer."""

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
CHECKPOINTS = [f"results/toxicity/quark/seed-1/iteration-{i}/checkpoint" for i in range(2)]
LAYERS = {
    "quark": {
        "reward_tokens": {"form": "embedding"},
        "explore_place": 1.0,
        "training": {"trained_layers": None, "restart": False},
    }
}


def test_two_processes_with_split_layers_train_as_one(finished, tmp_path):
    one, two = (finished.copy(tmp_path / name) for name in ("one", "two"))
    for run, processes in ((one, ()), (two, ("train:processes=2", "train:layers=split"))):
        how = ("--set-resources", *processes) if processes else ()
        over = run.configure("layers.yaml", LAYERS)
        how += ("--forcerun", *CHECKPOINTS, "--allowed-rules", "train")
        run.run(*how, config=(over,), targets=CHECKPOINTS)
    for checkpoint in CHECKPOINTS:  # the second goes on with the first one's layers and moments
        for name in ("policy", "optimizer"):
            file = f"{checkpoint}/{name}.safetensors"
            alone, together = (load_file(run.folder / file) for run in (one, two))
            assert alone.keys() == together.keys() and len(alone) > 10
            assert any((alone[key] != together[key]).any() for key in alone), "the same run"
            for key in alone:
                # float32 sums in another order, magnified by Adam where a gradient is almost zero
                assert (alone[key] - together[key]).abs().max() < 1e-3, key


def test_a_frozen_model_is_not_split(finished, tmp_path):
    twin = finished.copy(tmp_path / "run")
    how = ["--set-resources", "train:processes=2", "train:layers=split"]
    how += ["--forcerun", CHECKPOINTS[0], "--allowed-rules", "train"]
    printed = twin.run(*how, targets=CHECKPOINTS[:1], fails=True)
    assert "ConfigError: layers=split is for models whose layers learn" in printed
