"""How long a run will still take: the estimates of its jobs, corrected by those that are done.

A logging handler for Snakemake's own logger: after each job it says how many of how many are done,
in how many minutes, and how many are left. `results/progress.json` keeps the last of these lines
for `quark status`. Imports no Snakemake.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quark.core import files
from quark.tools.planning.costs import Cost
from quark.tools.planning.speed import Machine

FILE = "progress.json"
STAGES = {
    "train_ppo": "train-ppo",
    "fit_variant": "fit",
    "finetune_model": "finetune-model",
    "sample_candidates": "sort-prompts",
    "score_generations": "score",
    "score_again": "score",
    "judge_samples": "judge",
}
"""Verbs of the rules that have another name."""
ENOUGH = 60.0
"""Seconds of expected work that must be done before the estimate is corrected."""


class Expected:
    """How long each job of a run is expected to take.

    Args:
        costs: of `planning.plan`.
        machine: that runs the jobs, one after another.
    """

    def __init__(self, costs: Sequence[Cost], machine: Machine) -> None:
        self._machine = machine
        self._costs = {(c.task, c.method, c.stage, c.place): c for c in costs}

    def seconds(self, rule: str, wildcards: Mapping[str, Any]) -> float:
        """Of one job; of a rule that the plan does not know, the start of a job.

        Args:
            rule: its name.
            wildcards: of the job. A variant takes as long as its method.
        """
        stage = STAGES.get(rule, rule.replace("_", "-"))
        name = str(wildcards.get("part") or wildcards.get("method") or wildcards.get("name"))
        place = ""
        if "iteration" in wildcards:
            place = f"iteration-{wildcards['iteration']}"
        elif "split" in wildcards:
            place = "/".join(str(wildcards[k]) for k in ("split", "decoding") if k in wildcards)
        if rule == "score_again":
            place += "/second"
        for task in (wildcards.get("task"), "models", "prompts"):
            cost = self._costs.get((str(task), name.split(".")[0], stage, place))
            if cost is not None:
                return self._machine.seconds(cost) / cost.jobs
        return self._machine.seconds(Cost("", "", stage))


class Progress(logging.Handler):
    """Says after each job how far a run is.

    Args:
        expected: seconds of each job, by its number.
        folder: of the results.
        say: where a line goes.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        expected: Mapping[int, float],
        folder: Path,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._expected, self._file, self._say, self._clock = expected, folder / FILE, say, clock
        self._begun = clock()
        self._done: set[int] = set()

    def tell(self) -> None:
        """Say how far the run is, and keep it for `quark status`."""
        line = self.line()
        files.write_json(self._file, {"line": line})
        self._say(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of Snakemake's events `job_finished`."""
        if str(getattr(record, "event", "")) != "job_finished":
            return
        try:
            self._done.add(int(record.job_id))  # type: ignore[attr-defined]
            self.tell()
        except Exception:  # a full disk, say: the run goes on
            self.handleError(record)

    def line(self) -> str:
        """How far the run is now."""
        passed = self._clock() - self._begun
        done = sum(seconds for job, seconds in self._expected.items() if job in self._done)
        left = sum(self._expected.values()) - done
        if done > ENOUGH:
            left *= passed / done
        count = f"{len(self._done & set(self._expected))} of {len(self._expected)} jobs done"
        return f"{count} in {minutes(passed)}, about {minutes(left)} left"


def forget_progress(results: Path) -> None:
    """Remove what an earlier run said."""
    (results / FILE).unlink(missing_ok=True)


def minutes(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.0f} h"
