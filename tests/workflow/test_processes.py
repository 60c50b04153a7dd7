"""Quark trained by the rules in two processes, each with its part of each layer."""

import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
CHECKPOINTS = [f"results/toxicity/quark/seed-1/iteration-{i}/checkpoint" for i in range(2)]


def test_two_processes_with_split_layers_train_as_one(finished, tmp_path):
    twin = finished.copy(tmp_path / "run")
    options = ["--set-resources", "train:processes=2", "train:layers=split"]
    options += ["--forcerun", *CHECKPOINTS, "--allowed-rules", "train"]
    twin.run(*options, targets=CHECKPOINTS)
    for checkpoint in CHECKPOINTS:  # the second goes on with the first one's moments
        for name in ("policy", "optimizer"):
            file = f"{checkpoint}/{name}.safetensors"
            one, two = (load_file(run.folder / file) for run in (finished, twin))
            assert one.keys() == two.keys()
            assert any((one[key] != two[key]).any() for key in one), "it was not trained again"
            for key in one:
                # float32 sums in another order, magnified by Adam where a gradient is almost zero
                assert (one[key] - two[key]).abs().max() < 1e-3, key
