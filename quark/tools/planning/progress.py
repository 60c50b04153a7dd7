"""Estimate the remaining time of a run from its jobs' estimates, corrected by finished jobs.

`Progress` is a logging handler for Snakemake's own logger. After each job it reports how many jobs
are done, in how many minutes, and how many minutes are left. `results/progress.json` stores the
last of these lines for `quark status`. This module imports no Snakemake.
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
    "fit_variant": "fit",
    "sample_candidates": "sort-prompts",
    "score_generations": "score",
    "score_again": "score",
    "judge_samples": "judge",
}
"""The verbs of the rules that have another name than their verb."""
ENOUGH = 60.0
"""Seconds of expected work that must be done before the estimate is corrected."""


class Expected:
    """The expected time of each job of a run.

    Args:
        costs: the costs that `planning.plan` returned.
        machine: the machine that runs the jobs, one after another.
    """

    def __init__(self, costs: Sequence[Cost], machine: Machine) -> None:
        self._machine = machine
        self._costs = {(c.task, c.method, c.stage, c.place): c for c in costs}

    def seconds(self, rule: str, wildcards: Mapping[str, Any]) -> float:
        """Return the expected seconds of a job; for a rule without a cost, its start time only."""
        planned = self.planned(rule, wildcards)
        return self._machine.seconds(Cost("", "", _stage(rule))) if planned is None else planned

    def planned(self, rule: str, wildcards: Mapping[str, Any]) -> float | None:
        """Return the expected seconds of a job; None for a rule without a cost.

        Args:
            rule: the rule's name.
            wildcards: the job's wildcards. The costs are a variant's own, or its method's.
        """
        name = str(wildcards.get("part") or wildcards.get("method") or wildcards.get("name"))
        place = ""
        if "iteration" in wildcards:
            place = f"iteration-{wildcards['iteration']}"
        elif "split" in wildcards:
            place = "/".join(str(wildcards[k]) for k in ("split", "decoding") if k in wildcards)
        if rule == "score_again":
            place += "/second"
        for task in (wildcards.get("task"), "models", "prompts"):
            cost = self._costs.get((str(task), name.split(".")[0], _stage(rule), place))
            if cost is not None:
                return self._machine.seconds(cost) / cost.jobs
        return None


def _stage(rule: str) -> str:
    rule = rule.removesuffix("_shard").removesuffix("_earlier")
    return STAGES.get(rule, rule.replace("_", "-"))


class Progress(logging.Handler):
    """A logging handler that reports the progress of a run after each job.

    Args:
        expected: expected seconds of each job, by its number.
        folder: directory of the results.
        say: function that prints a line.
        clock: function that returns monotonic seconds.
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
        """Report the run's progress, and store it for `quark status`."""
        line = self.line()
        files.write_json(self._file, {"line": line})
        self._say(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Count the job of each of Snakemake's events `job_finished`."""
        if str(getattr(record, "event", "")) != "job_finished":
            return
        try:
            self._done.add(int(record.job_id))  # type: ignore[attr-defined]
            self.tell()
        except Exception:  # for example a full disk: the run continues
            self.handleError(record)

    def line(self) -> str:
        """Return the run's present progress as one line."""
        passed = self._clock() - self._begun
        done = sum(seconds for job, seconds in self._expected.items() if job in self._done)
        left = sum(self._expected.values()) - done
        if done > ENOUGH:
            left *= passed / done
        count = f"{len(self._done & set(self._expected))} of {len(self._expected)} jobs done"
        return f"{count} in {minutes(passed)}, about {minutes(left)} left"


def forget_progress(results: Path) -> None:
    """Remove the stored progress of an earlier run."""
    (results / FILE).unlink(missing_ok=True)


def minutes(seconds: float) -> str:
    """Format a time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36000 else f"{seconds / 3600:.0f} h"
