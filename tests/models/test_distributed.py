"""Two processes take the steps of one, with whole layers in each and with a part of each layer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from quark.config import ConfigError
from quark.models.distributed import launch

SCRIPT = Path(__file__).parents[1] / "inputs/learn.py"


def learn(folder: Path, name: str, processes: int, *how: str) -> list[list[str]]:
    """What each process printed."""
    several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = [str(SCRIPT), str(folder / name), *how]
    run = [sys.executable, *(several if processes > 1 else []), *script]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(folder / f"{name}.{i}").read_text().strip().split(",") for i in range(processes)]


HOW = {
    "whole": [],
    "split": ["split"],
    "split, layers computed twice": ["split", "checkpointing"],
    "split, nothing else learns": ["split", "plain"],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW.values(), ids=list(HOW))
def test_two_processes_take_the_steps_of_one(tmp_path: Path, how: list[str]) -> None:
    alone = [part for part in how if part != "split"]
    ((_, _, steps, loss),) = learn(tmp_path, "one", 1, *alone)
    two = learn(tmp_path, "two", 2, *how)
    assert [(number, world) for number, world, _, _ in two] == [("0", "2"), ("1", "2")]
    for _, _, their_steps, their_loss in two:
        assert their_steps == steps == "3"
        assert float(their_loss) == pytest.approx(float(loss), abs=1e-5)
    one, first, second = (
        load_file(tmp_path / f"{n}.safetensors") for n in ("one.0", "two.0", "two.1")
    )
    for name, tensor in one.items():
        # float32 sums in another order: gradients agree to 1e-5 of eps = 1e-3, so each of three
        # steps of at most 1e-2 agrees to 1e-5 of itself, and the moments to less
        assert (first[name] - tensor).abs().max() < 1e-6, name
        # they stay alike; of what is split the first gathers all
        assert not second[name].numel() or (first[name] == second[name]).all(), name
    assert any(not tensor.numel() for tensor in second.values()) == ("split" in how)


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands with which `launch` replaces this process."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, command: commands.append(command))
    monkeypatch.setattr(sys, "argv", ["quark", "train"])
    for name in ("RANK", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    return commands


def test_one_process_of_one_node_starts_no_other(started, monkeypatch) -> None:
    launch(1)
    monkeypatch.setenv("RANK", "0")
    launch(4)
    assert not started


def test_several_processes_of_one_node(started) -> None:
    launch(4)
    options = ["--nproc-per-node=4", "--standalone", "--module", "quark.cli", "train"]
    assert started == [[sys.executable, "-m", "torch.distributed.run", *options]]


def test_several_nodes_meet_on_the_first(started, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    launch(1, nodes=2, threads=8)
    (command,) = started
    assert command[0] == "srun"
    assert {"--nodes=2", "--ntasks=2", "--cpus-per-task=8"} < set(command)
    meeting = f"--rdzv-endpoint={os.uname().nodename}:29634"
    assert {"--nnodes=2", "--nproc-per-node=1", "--rdzv-id=1234", meeting} < set(command)


def test_several_nodes_need_a_slurm_job(started) -> None:
    with pytest.raises(ConfigError, match="--nodes 2: this is no SLURM job"):
        launch(1, nodes=2)
    assert not started
