"""Estimate how long stages take on a machine, from a few seconds of measured matrix products.

A stage's time is operations / (speed of its matrix products x the share of that speed that the
stage reaches, `SHARES`), plus the time to start its jobs.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quark.config import ConfigError, Precision
from quark.tools.planning.costs import Cost

PRODUCTS = ((250, 576, 1536, 0.8), (250, 576, 49152, 0.2))
"""Rows, inputs, outputs of a layer and of the head, and their shares of the operations."""
SECONDS = 1.0
"""Duration of the measurement of a product."""
KINDS = {
    **dict.fromkeys(("sample", "generate", "sort-prompts"), "sample"),
    **dict.fromkeys(("train", "learn", "fit", "finetune-model"), "train"),
    **dict.fromkeys(("judge", "predict"), "read"),
}
SHARES: dict[Precision, dict[str, float]] = {
    "bf16": {"sample": 0.4, "train": 0.55, "read": 0.5},
    "fp32": {"sample": 0.7, "train": 0.7, "read": 0.8},
}
"""Shares that stages reach on two virtual cores of a Xeon with AMX; fp32: limited to AVX2."""
START = {"load": 5.0, "other": 3.0}
"""Seconds to start a job: one that loads a model, and any other."""
TEXTS = 400.0
"""Texts per second of a classifier on a CPU; the other scorers take almost no time."""


@dataclass(frozen=True)
class Machine:
    """The speed of a machine.

    Attributes:
        gflops: 10 ** 9 operations per second.
        shares: the share of this speed that each kind of stage reaches; 1 if a kind is missing.
        texts: texts that a classifier scores per second; None: scoring takes no time.
    """

    gflops: float
    shares: dict[str, float] = field(default_factory=dict)
    texts: float | None = None

    def seconds(self, cost: Cost) -> float:
        """Return the total time of the jobs of one kind."""
        kind = KINDS.get(cost.stage)
        if kind is None:
            scoring = cost.calls / self.texts if cost.classifier and self.texts else 0.0
            return cost.jobs * START["other"] + scoring
        reached = self.gflops * 1e9 * self.shares.get(kind, 1.0)
        return cost.jobs * START["load" if cost.flop else "other"] + cost.flop / reached


def this_machine(precision: Precision, threads: int) -> Machine:
    """Measure this machine in a separate process; this takes some seconds.

    Raises:
        ConfigError: the machine cannot be measured.
    """
    command = [sys.executable, "-m", "quark.tools.planning.speed", precision, str(threads)]
    impatient = {"GOMP_SPINCOUNT": "1000"} | os.environ  # as the workflow sets it for its jobs
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=impatient)
    if found.returncode:
        raise ConfigError(f"this machine cannot be measured; give --tflops. {found.stderr}")
    return Machine(float(found.stdout), SHARES[precision], TEXTS)


def _gflops(precision: str, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    where = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    pace = 0.0  # seconds for 10 ** 9 operations
    for rows, inputs, outputs, share in PRODUCTS:
        states = torch.ones(rows, inputs, dtype=dtype, device=where)
        weight = torch.ones(outputs, inputs, dtype=dtype, device=where)

        def product(states: torch.Tensor = states, weight: torch.Tensor = weight) -> None:
            torch.nn.functional.linear(states, weight)
            if states.is_cuda:
                torch.cuda.synchronize()

        pace += share * _median_seconds(product) / (2 * rows * inputs * outputs / 1e9)
    return 1 / pace


def _median_seconds(work: Callable[[], None]) -> float:
    taken: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _main(arguments: Sequence[str]) -> None:
    precision, threads = arguments
    print(_gflops(precision, int(threads)))


if __name__ == "__main__":
    _main(sys.argv[1:])
