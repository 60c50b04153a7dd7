"""Compare two runs: the settings of training and evaluation that differ, and the metrics.

Metrics are compared on the prompts that both runs have. So the interval of a difference is an
interval over prompts, narrower than the intervals of the two runs alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quark.core import files, paths
from quark.core.schemas import TableError
from quark.reporting.tables import intervals
from quark.reporting.tables.measured import Run, load

APART = ("task", "split", "decoding", "mauve")  # keys of a place or a result, not of a setting
RESAMPLES = 10_000


def compare(one: Path, other: Path) -> RenderableType:
    """Return tables of the settings that differ, in evaluation and training, and of the metrics.

    Args:
        one, other: folders `TASK/METHOD/seed-S` of evaluated runs of one task.

    Raises:
        TableError: a run is not evaluated, or the two have no split, decoding or prompt in common.
    """
    ours, theirs = _evaluations(one), _evaluations(other)
    both = [place for place in ours if place in theirs]
    if not both:
        raise TableError(f"{one} and {other}: no split and decoding that both were evaluated on")
    parts: list[RenderableType] = [_settings(ours[both[0]], theirs[both[0]])]
    trained = _trained(one), _trained(other)
    if all(trained) and (differ := differences(*trained)):
        parts.append(_pairs("trained with", one, other, differ))
    parts += [_metrics(place, ours[place], theirs[place]) for place in both]
    return Group(*parts)


def _evaluations(run: Path) -> dict[str, Run]:
    """Return a run's evaluations by task, split and decoding."""
    folders = paths.evaluations(run)
    if not folders:
        raise TableError(
            f"{run}: no evaluation here; name a folder such as results/toxicity/quark/seed-1"
        )
    runs = [load(folder) for folder in folders]
    return {", ".join(run.settings[key] for key in APART[:3]): run for run in runs}


def _settings(one: Run, other: Run) -> RenderableType:
    """Return a table of the settings and costs that differ."""
    ours, theirs = (
        {key: value for key, value in run.settings.items() if key not in APART}
        for run in (one, other)
    )
    differ = differences(ours, theirs)
    if not differ:
        return Text("The settings of the evaluation are the same.")
    return _pairs("setting", one.folder.parents[2], other.folder.parents[2], differ)


def _trained(run: Path) -> Mapping[str, Any]:
    """Return the settings of Quark's last training; empty for other methods and for older runs."""
    found = paths.checkpoints(run)
    if not found:
        return {}
    about = files.read_json(found[max(found)] / "checkpoint.json")
    return {key: value for key, value in about.get("settings", {}).items() if key != "stream"}


def _pairs(
    title: str, one: Path, other: Path, differ: Mapping[str, tuple[Any, Any]]
) -> RenderableType:
    table = Table(title, str(one), str(other))
    for key, pair in differ.items():
        table.add_row(key, *map(str, pair))
    return table


def _metrics(place: str, one: Run, other: Run) -> Table:
    shared = one.prompts.index.intersection(other.prompts.index)
    if not len(shared):
        raise TableError(f"{one.folder} and {other.folder}: no prompt in common")
    table = Table(
        "metric", "one", "other", "other - one", "95 %", title=f"{place}, {len(shared)} prompts"
    )
    for metric in intervals.metrics(one.task).values():
        found = intervals.paired_difference(
            metric, [other.prompts], [one.prompts], RESAMPLES, place
        )
        if found is not None:
            b, a, low, high = found
            cells = (f"{a:.4g}", f"{b:.4g}", f"{b - a:+.4g}", f"[{low:+.3g}, {high:+.3g}]")
            table.add_row(metric.header, *cells)
    return table


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return both values of each key that differs, by the key's path; None: the key is missing."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            within = differences(mine, theirs)
            found |= {f"{key}.{name}": values for name, values in within.items()}
        elif mine != theirs:
            found[key] = mine, theirs
    return found
