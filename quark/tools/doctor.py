"""Look at this machine before a run: `quark doctor`.

Each check has what was found and what it means for a run. Nothing is changed, and no key is shown.
It imports no torch.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.table import Table

from quark.config import ConfigError
from quark.config.precision import look

HUB = ("huggingface.co", 443)
LEAST_MEMORY, LEAST_DISK = 6.0, 5.0
"""GB that the default needs."""
KEYS = {"HF_TOKEN": "private models of the hub", "PERSPECTIVE_API_KEY": "the scorer perspective"}
PACKAGES = ("quark", "snakemake", "torch", "transformers", "mlflow")


@dataclass(frozen=True)
class Check:
    """One check; `ok` False: the default cannot run here."""

    name: str
    found: str
    means: str
    ok: bool = True


def doctor(folder: Path) -> list[Check]:
    """Return all checks of this machine, for runs in a folder."""
    return [
        _versions(),
        _processor(),
        _memory(),
        _disk(folder),
        *_gpus(),
        _hub(),
        *(
            Check(name, "set" if os.environ.get(name) else "not set", f"for {what}")
            for name, what in KEYS.items()
        ),
        _slurm(),
    ]


def shown(checks: list[Check]) -> Table:
    """Return the checks for the terminal."""
    table = Table("", "check", "found", "what it means")
    for check in checks:
        table.add_row("ok" if check.ok else "[red]no[/red]", check.name, check.found, check.means)
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> Check:
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, number in found.items() if number is None]
    python = ".".join(map(str, sys.version_info[:3]))
    numbers = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    means = f"missing: {', '.join(missing)}; run `make install`" if missing else "all are installed"
    return Check("versions", f"Python {python}, {numbers}", means, not missing)


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        machine = look()
    except ConfigError as error:
        return Check("processor", f"{cores} cores", f"cannot be measured: {error}", False)
    speeds = ", ".join(f"{speed:.0f} GFLOP/s in {p}" for p, speed in machine.measured.items())
    return Check(
        "processor",
        f"{machine.processor}; {speeds} (a core, or the GPU); {cores} cores",
        f"`precision: auto` is {machine.precision}; `quark plan` estimates the time of a run",
    )


def _memory() -> Check:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    enough = size >= LEAST_MEMORY
    means = "enough for the default" if enough else f"the default needs {LEAST_MEMORY:g} GB"
    return Check("memory", f"{size:.0f} GB", means, enough)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 1e9
    enough = free >= LEAST_DISK
    means = "enough for the default; `quark plan` says what others need"
    if not enough:
        means = f"the default needs {LEAST_DISK:g} GB"
    return Check("free disk", f"{free:.0f} GB", means, enough)


def _gpus() -> Iterator[Check]:
    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    found = _output(asked)
    if not found:
        yield Check("GPU", "none", "everything runs on the processor")
        return
    fits = not (_version("torch") or "").endswith("+cpu")
    means = "used by itself; several: docs/operations.md"
    if not fits:
        means = "torch is a build without CUDA: `make clean install TORCH_INDEX=`"
    yield Check("GPU", "; ".join(found.splitlines()), means, fits)


def _hub() -> Check:
    try:
        socket.create_connection(HUB, timeout=3).close()
    except OSError:
        return Check(
            "model hub",
            "cannot be reached",
            "the default does not need it; other models: fetch on a machine that has it",
        )
    return Check("model hub", "can be reached", "models and data of the hub can be fetched")


def _slurm() -> Check:
    found = _output(["sinfo", "--noheader", "--format=%P %l %G"])
    if not found:
        return Check("SLURM", "none", "runs are on this machine")
    partitions = "; ".join(" ".join(line.split()) for line in found.splitlines())
    return Check("SLURM", partitions, "`snakemake --profile profiles/slurm`; edit its lines SITE")


def _output(command: list[str]) -> str:
    """Return what a program prints; empty: there is none, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
