"""The costs as a table for a terminal."""

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Column, Table

from quark.planning.costs import Cost


def table(costs: Sequence[Cost], tflops: float, utilisation: float) -> Table:
    """The costs by task and method, and their sum, for a terminal.

    Args:
        costs: what `plan` returned.
        tflops: of the machine at its best, 10 ** 12 operations a second.
        utilisation: the share of that which is reached.
    """
    shown = Table(Column("", no_wrap=True), title="What it will cost, roughly")
    for column in ("jobs", "scores", "sequences", "tokens", "PFLOP", "hours", "GB"):
        shown.add_column(column, justify="right", no_wrap=True)
    groups: dict[str, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    for cost in costs:
        groups[cost.task][cost.method].append(cost)
    for task, methods in groups.items():
        shown.add_row(f"[bold]{task}")
        for method, group in methods.items():
            shown.add_row(f"  {method}", *_cells(group, tflops * utilisation))
        shown.add_section()
    shown.add_row("[bold]total", *_cells(costs, tflops * utilisation))
    return shown


def _cells(costs: Sequence[Cost], tflops: float) -> list[str]:
    def total(name: str) -> float:
        return float(sum(getattr(cost, name) for cost in costs))

    counts = [_short(total(name)) for name in ("jobs", "calls", "sequences", "tokens")]
    hours = total("flop") / (tflops * 1e12) / 3600
    measures = (total("flop") / 1e15, hours, total("disk") / 1e9)
    return [*counts, *(f"{x:.2f}" if x < 10 else f"{x:.0f}" for x in measures)]


def _short(count: float) -> str:
    """A count in at most five characters."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
