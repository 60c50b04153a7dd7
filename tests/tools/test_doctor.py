"""What `quark doctor` says of a machine; machines other than this one are stand-ins."""

import shutil
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from quark.cli import app
from quark.config.precision import Machine
from quark.tools import doctor as module
from quark.tools.doctor import Check, doctor

AMX = Machine(processor="AMX", native=True, measured={"bf16": 300.0, "fp32": 80.0})


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "look", lambda: AMX)
    monkeypatch.setattr(module, "_output", lambda command: "")
    monkeypatch.setattr(socket, "create_connection", _unreachable)


def _unreachable(*_: Any, **__: Any) -> Any:
    raise OSError("no network")


def found(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in doctor(folder)}


def test_a_laptop_without_gpu_hub_and_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    checks = found(tmp_path)
    assert all(check.ok for check in checks.values())
    assert "`precision: auto` is bf16" in checks["processor"].means
    assert "300 GFLOP/s in bf16" in checks["processor"].found
    assert checks["GPU"].found == checks["SLURM"].found == "none"
    assert checks["model hub"].found == "cannot be reached"
    assert checks["HF_TOKEN"].found == "set" and checks["PERSPECTIVE_API_KEY"].found == "not set"
    assert "secret" not in str(checks)


def test_what_keeps_the_default_from_running_is_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    check = found(tmp_path)["free disk"]
    assert not check.ok and check.means == "the default needs 5 GB"
    run = CliRunner().invoke(app, ["doctor", "--results", str(tmp_path)])
    assert run.exit_code == 1 and "the default needs 5 GB" in " ".join(run.output.split())
    monkeypatch.undo()


def test_a_gpu_beside_a_torch_without_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = "NVIDIA H200, 143771 MiB"
    monkeypatch.setattr(module, "_output", lambda c: gpu if c[0] == "nvidia-smi" else "")
    monkeypatch.setattr(module, "version", lambda name: "2.13.0+cpu")
    check = found(tmp_path)["GPU"]
    assert check.found == gpu and not check.ok and "TORCH_INDEX=" in check.means
    monkeypatch.setattr(module, "version", lambda name: "2.13.0+cu130")
    assert found(tmp_path)["GPU"].ok


def test_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "gpu*   2-00:00:00   gpu:8\ncpu    infinite    (null)"
    monkeypatch.setattr(module, "_output", lambda c: lines if c[0] == "sinfo" else "")
    assert found(tmp_path)["SLURM"].found == "gpu* 2-00:00:00 gpu:8; cpu infinite (null)"


def test_a_program_that_fails_or_is_missing_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert module._output(["no-such-program-here"]) == ""
    assert module._output(["false"]) == ""
    assert module._output(["echo", "a"]) == "a"

    def slow(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("sinfo", 20)

    monkeypatch.setattr(subprocess, "run", slow)
    assert module._output(["sinfo"]) == ""
