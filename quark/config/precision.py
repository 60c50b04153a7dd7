"""The choice of `precision: auto`: bf16 if the machine multiplies it fast, else fp32.

A processor without instructions for bf16 emulates it, about ten times slower than fp32. So a run
decides once, before its first job. `results/precision.json` stores the answer, so that a run that
continues on another machine keeps its precision.

It imports no torch. `python -m quark.config.precision` measures this machine in a separate process,
so that the caller loads no torch and uses no GPU memory.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from quark.config import (
    AskedPrecision,
    Config,
    ConfigError,
    Precision,
    Section,
    WrittenConfig,
    resolved,
)
from quark.core import files

FILE = "precision.json"
FASTER = 1.2
"""`auto` takes bf16 only if it is more than this many times as fast as fp32."""
SECONDS = 0.2
"""How long a matrix product is measured."""


class Machine(Section):
    """The processor or GPU that multiplies matrices here."""

    processor: str
    """Its class, such as AMX or CUDA sm_90."""
    native: bool
    """Whether it has instructions for bf16."""
    measured: dict[Precision, float]
    """GFLOP/s of one core, or of the GPU."""

    @property
    def precision(self) -> Precision:
        """The precision that `auto` chooses here."""
        fast = self.measured["bf16"] > FASTER * self.measured["fp32"]
        return "bf16" if self.native and fast else "fp32"


class Choice(Section):
    """The content of `precision.json`."""

    precision: Precision
    asked: AskedPrecision
    processor: str | None = None
    """Null: not measured, since the configuration or the profile names the precision."""
    measured: dict[Precision, float] = Field(default_factory=dict)


# ------------------------------------------------------------------------------------ the decision
def resolve(config: WrittenConfig, results: Path) -> Config:
    """The configuration of the run in a directory of results, with its precision decided."""
    return resolved(config, choose(config.precision, results).precision)


def choose(
    asked: AskedPrecision,
    results: Path,
    *,
    auto: Precision | None = None,
    may_look: bool = True,
) -> Choice:
    """The precision of a run; nothing is written.

    Args:
        asked: the configuration's.
        results: directory of the results, which may store it already.
        auto: the precision of `auto` if none is stored there; None: measure this machine.
        may_look: False in a job: its machine must not decide again.

    Raises:
        ConfigError: `precision.json` is damaged, or missing in a job.
    """
    if asked != "auto":
        return Choice(precision=asked, asked=asked)
    known = _kept(results)
    if known is not None:
        return known
    if auto is not None:
        return Choice(precision=auto, asked="auto")
    if not may_look:
        raise ConfigError(f"{results / FILE}: no such file; start the run again, which writes it")
    machine = look()
    return Choice(
        precision=machine.precision,
        asked="auto",
        processor=machine.processor,
        measured=machine.measured,
    )


def begin(choice: Choice, asked: AskedPrecision, results: Path, *, here: bool) -> list[str]:
    """Store the choice before the first job; return messages for the user.

    Args:
        choice: the result of `choose`.
        asked: the configuration's precision.
        results: where `precision.json` goes.
        here: the jobs run on this machine.
    """
    new = asked == "auto" and _kept(results) is None
    machine = None
    if here and asked != "fp32" and not new:
        with suppress(ConfigError):  # the precision is known: only warnings follow
            machine = look()
    if machine is not None and asked != "auto":
        seen = {"processor": machine.processor, "measured": machine.measured}
        choice = choice.model_copy(update=seen)
    files.write_json(results / FILE, choice.model_dump(mode="json"))
    if new:
        return [f"precision: auto is {choice.precision} ({_speeds(choice)})"]
    return [] if machine is None else _warnings(choice, machine, results / FILE)


def _warnings(choice: Choice, machine: Machine, file: Path) -> list[str]:
    """Warnings about computing in this precision on this machine."""
    said = []
    if choice.processor not in (machine.processor, None):
        said.append(
            f"precision: auto stays {choice.precision}, as {file} says. It was chosen on "
            f"{choice.processor}; this machine is {machine.processor}. To change it, set "
            "`precision:` or delete the file; then all results are made anew."
        )
    if choice.precision == "bf16" and machine.precision == "fp32":
        said.append(
            f"precision: bf16 is slow on this machine ({_speeds(machine)}). Set `precision: auto` "
            f"and delete {file}, or set `precision: fp32`; then all results are made anew."
        )
    return said


def _speeds(of: Machine | Choice) -> str:
    """The processor and its speeds, for messages."""
    speeds = [f"{name} {speed:.0f} GFLOP/s" for name, speed in of.measured.items()]
    return ", ".join([of.processor or "set by the profile", *speeds])


def _kept(results: Path) -> Choice | None:
    """The choice that the directory stores; None: none yet."""
    file = results / FILE
    if not file.is_file():
        return None
    try:
        return Choice.model_validate_json(file.read_text())
    except ValidationError as error:
        raise ConfigError(f"{file}: damaged; delete it: {error}") from None


# --------------------------------------------------------------------------------- this machine
def look() -> Machine:
    """Measure this machine in a separate process, for two or three seconds."""
    command = [sys.executable, "-m", "quark.config.precision"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ConfigError(
            f"precision: auto: this machine cannot be measured; set bf16 or fp32. {found.stderr}"
        )
    return Machine.model_validate_json(found.stdout)


def _machine() -> Machine:
    import torch

    torch.set_num_threads(1)
    name, native = processor()
    return Machine(
        processor=name,
        native=native,
        measured={"bf16": _speed(torch.bfloat16), "fp32": _speed(torch.float32)},
    )


def processor() -> tuple[str, bool]:
    """Its class, and whether it has instructions for bf16."""
    import torch

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return f"CUDA sm_{major}{minor}", native
    return _processor_class(torch.cpu.get_capabilities())


def _processor_class(has: Mapping[str, Any]) -> tuple[str, bool]:
    """The same, from torch's description of a processor."""
    classes = (
        ("AMX", "amx_bf16", True),
        ("AVX512-bf16", "avx512_bf16", True),
        ("Arm bf16", "bf16", True),
        ("AVX512", "avx512_f", False),
        ("AVX2", "avx2", False),
    )
    for name, capability, native in classes:
        if has.get(capability):
            return name, native
    return str(has.get("architecture", "unknown")), False


def _speed(dtype: Any) -> float:
    """GFLOP/s of a matrix product, the best of several."""
    import torch

    gpu = torch.cuda.is_available()
    size = 4096 if gpu else 512
    matrix = torch.ones(size, size, dtype=dtype, device="cuda" if gpu else "cpu")

    def product() -> None:
        torch.nn.functional.linear(matrix, matrix)
        if gpu:
            torch.cuda.synchronize()

    product()  # warm up
    return 2 * size**3 / _best_seconds(product) / 1e9


def _best_seconds(work: Callable[[], None]) -> float:
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    print(_machine().model_dump_json())
