"""Training on two nodes of SLURM gives the checkpoint of training on one node.

    NODES=2 tests/slurm/with .venv/bin/python tests/slurm/nodes.py

One run trains in the usual way, the other with the settings `TWO_NODES`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "tests/tmp/nodes"
TARGET = "results/toxicity/quark/seed-1/iteration-0/checkpoint"
TWO_NODES = {
    "slurm_partition": "gpu",
    "nodes": 2,
    "tasks": 2,
    "mpi": "srun",
    "slurm_extra": "'--ntasks-per-node=1'",
    "mem_mb": 8000,
}


def main() -> None:
    one, two = (checkpoint(name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    worst = max((one[name] - two[name]).abs().max().item() for name in one)
    log = (WORK / "two/logs/toxicity/quark/seed-1/iteration-0/train.log").read_text()
    print(f"two nodes: {len(one)} tensors, the largest difference is {worst:.1e}")
    assert worst < 1e-5, log  # sums in float32 in another order
    assert log.count("train 0: 4 of 4") == 2, log  # both nodes took all steps


def checkpoint(name: str) -> dict:
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tests").mkdir(parents=True)
    for part in ("Snakefile", "config", "workflow", "tests/inputs"):
        (folder / part).symlink_to(ROOT / part)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    if name == "two":
        profile = folder / "profiles/slurm/config.yaml"
        settings = yaml.safe_load(profile.read_text())
        settings["set-resources"]["train"] = TWO_NODES
        profile.write_text(yaml.safe_dump(settings))
    subprocess.run(
        [ROOT / "tests/slurm/snakemake", "--configfile", "config/scale/test.yaml", "--", TARGET],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=True,
    )
    files = (folder / TARGET).rglob("*.safetensors")
    return {f"{file.name} {key}": value for file in files for key, value in load_file(file).items()}


if __name__ == "__main__":
    main()
