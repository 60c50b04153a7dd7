"""Show the costs as a table in a terminal."""

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Column, Table

from quark.tools.planning.costs import Cost
from quark.tools.planning.speed import Machine


def table(costs: Sequence[Cost], machine: Machine) -> Table:
    """Return the costs by task and method, and their sum, as a table for a terminal.

    Time is in minutes if the total is less than ten hours, else in hours.

    Args:
        costs: the costs that `plan` returned.
        machine: the machine on which the jobs will run, one after another.
    """
    every = sum(map(machine.seconds, costs))
    name, unit = ("minutes", 60) if every < 36000 else ("hours", 3600)
    shown = Table(Column("", no_wrap=True), title="What it will cost, roughly")
    for column in ("jobs", "scores", "sequences", "tokens", "TFLOP", name, "GB"):
        shown.add_column(column, justify="right", no_wrap=True)
    groups: dict[str, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    for cost in costs:
        groups[cost.task][cost.method].append(cost)
    for task, methods in groups.items():
        shown.add_row(f"[bold]{task}")
        for method, group in methods.items():
            shown.add_row(f"  {method}", *_cells(group, machine, unit))
        shown.add_section()
    shown.add_row("[bold]total", *_cells(costs, machine, unit))
    return shown


def _cells(costs: Sequence[Cost], machine: Machine, unit: int) -> list[str]:
    def total(name: str) -> float:
        return float(sum(getattr(cost, name) for cost in costs))

    counts = [_short(total(name)) for name in ("jobs", "calls", "sequences", "tokens")]
    time = sum(map(machine.seconds, costs)) / unit
    measures = (total("flop") / 1e12, time, total("disk") / 1e9)
    return [*counts, *(f"{x:.1f}" if x < 10 else _short(x) for x in measures)]


def _short(count: float) -> str:
    """Format a count in at most five characters."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
