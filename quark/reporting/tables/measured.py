"""The measured columns of a row: metrics over prompts after averaging over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from quark.core import files
from quark.core.schemas import TableError
from quark.reporting.evaluation import count, over_seeds, read_prompts, summary
from quark.reporting.tables import intervals
from quark.reporting.tables.columns import COSTS, DIFFERENCE, OPTIONAL, PLACE, SETTINGS, Row
from quark.tasks import TASKS, Task
from quark.tasks.task import ALL


@dataclass(frozen=True)
class Run:
    """The evaluation of one method and seed on one split, under one decoding."""

    folder: Path
    settings: Mapping[str, Any]
    prompts: pd.DataFrame

    @property
    def task(self) -> Task:
        """The run's task."""
        return TASKS[self.settings["task"]]


def load(folder: Path) -> Run:
    """Read an evaluation's settings and its metrics of each prompt."""
    file = folder / "settings.json"
    try:
        settings = files.read_json(file)
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    missing = {"task", *PLACE, "seed", "prompts", "mauve", *SETTINGS, *COSTS} - set(settings)
    if missing:
        raise TableError(f"{file}: no key {', '.join(sorted(missing))}")
    if settings["task"] not in TASKS:
        raise TableError(f"{file}: task is {settings['task']!r}, there are {', '.join(TASKS)}")
    task = TASKS[settings["task"]]
    return Run(folder, settings, read_prompts(folder / "prompts.parquet", task))


def check(runs: Sequence[Run]) -> None:
    """Check that runs fit in one table: one task and precision, no duplicates, equal prompts.

    At least one run is needed. Runs of one split need the same prompts, but a run whose settings
    limit its prompts may have fewer: exactly that number.
    """
    tasks = sorted({run.settings["task"] for run in runs})
    if len(tasks) != 1:
        raise TableError(f"a table is of one task, these evaluations are of {tasks or 'none'}")
    _check_precision(runs)
    fullest: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: len(run.prompts)):
        fullest[run.settings["split"]] = run
    seen: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        name = tuple(run.settings[key] for key in ("task", *PLACE, "seed"))
        if name in seen:
            raise TableError(f"{run.folder}: the same evaluation as {seen[name].folder}: {name}")
        seen[name] = run
        other = fullest[run.settings["split"]]
        mine, theirs = run.prompts.index, other.prompts.index
        fewer = run.settings["prompts"] is not None and len(mine) == run.settings["prompts"]
        odd = mine.difference(theirs) if fewer else mine.symmetric_difference(theirs)
        if len(odd):
            raise TableError(
                f"{run.folder} and {other.folder}: only one has prompt {odd[0]} "
                f"({len(odd)} such prompts); evaluate both on the same prompts"
            )


def _check_precision(runs: Sequence[Run]) -> None:
    """Raise an error if runs have different precisions."""
    first = runs[0]
    for run in runs:
        one, other = first.settings["precision"], run.settings["precision"]
        if one != other:
            raise TableError(
                f"{first.folder / 'settings.json'} and {run.folder / 'settings.json'}: precision "
                f"is {one} and {other}; a table is of one precision. Evaluate one of them again, "
                f"such as {files.again(run.folder / 'generations.parquet')}"
            )


def pool(runs: Sequence[Run]) -> list[Run]:
    """Merge the runs of each method, decoding and seed into one run over all splits' prompts.

    The costs are only in the rows of the splits.

    Raises:
        TableError: a split has the name that is reserved for all splits.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.settings["split"] == ALL:
            raise TableError(f"{run.folder}: a split cannot be named {ALL}: it means all splits")
        key = tuple(run.settings[name] for name in ("method", "decoding", "seed"))
        groups.setdefault(key, []).append(run)
    return [
        Run(
            group[0].folder.parents[1],
            {**group[0].settings, "split": ALL, "prompts": None, **dict.fromkeys(COSTS)},
            pd.concat([run.prompts for run in group]),
        )
        for group in groups.values()
    ]


def measure(group: Sequence[Run], task: Task, reference: Sequence[Run] = ()) -> Row:
    """Return the measured columns of one row from its seeds.

    Args:
        group: the row's runs, one for each seed.
        task: the task, which defines the metrics.
        reference: runs of the method that the row is compared with, with the same seeds; empty:
            the row is not compared.
    """
    settings = _agreed(group)
    frames = [run.prompts for run in group]
    prompts = over_seeds(frames, task)
    seeds = [summary(frame, task) for frame in frames]
    with_interval = intervals.metrics(task)
    draw = settings["bootstrap"], settings["task"], settings["split"]
    row: Row = {key: settings[key] for key in ("task", *PLACE)}
    row["n_seeds"] = len(group)
    row["compared_with"] = reference[0].settings["method"] if reference else None
    for name, value in summary(prompts, task).items():
        row[name] = value
        if name in with_interval:
            metric = with_interval[name]
            found = None if value is None else intervals.metric_interval(metric, frames, *draw)
            row[f"{name}_low"], row[f"{name}_high"] = found or (None, None)
            row[f"{name}_seed_std"] = _deviation([seed[name] for seed in seeds])
            row |= dict.fromkeys(f"{name}{end}" for end in DIFFERENCE)
            theirs = [run.prompts for run in reference]
            if theirs and (pair := intervals.paired_difference(metric, frames, theirs, *draw)):
                values = pair[0] - pair[1], *pair[2:]
                row |= {f"{name}{end}": values[i] for i, end in enumerate(DIFFERENCE)}
    row["mauve"] = _mean([run.settings["mauve"] for run in group])
    row |= count(prompts)
    row |= {key: settings[key] for key in SETTINGS}
    row |= {key: settings.get(key) for key in OPTIONAL}
    return row | {f"{key}_per_seed": _mean([run.settings[key] for run in group]) for key in COSTS}


def _deviation(values: Sequence[float | None]) -> float | None:
    """Return the standard deviation over seeds with a value; None: fewer than two have one."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values; None if one of them is None."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _agreed(group: Sequence[Run]) -> Mapping[str, Any]:
    """Return the settings; except seed, MAUVE and costs, all seeds must share them."""
    first = group[0]
    for run in group[1:]:
        for key in sorted((set(first.settings) | set(run.settings)) - {"seed", "mauve", *COSTS}):
            a, b = first.settings.get(key), run.settings.get(key)
            if a != b:
                raise TableError(
                    f"{first.folder} and {run.folder}: {key} is {a!r} and {b!r}; "
                    "seeds of one row need the same settings"
                )
    return first.settings
