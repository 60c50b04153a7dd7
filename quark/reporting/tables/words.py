"""What a table says, in sentences made from its numbers by one rule."""

from collections.abc import Sequence
from itertools import groupby

from quark.reporting.tables.columns import BASE, DIFFERENCE, FLUENCY, Row
from quark.tasks import Task


def in_words(rows: Sequence[Row], task: Task) -> list[str]:
    """Return a paragraph for each split and decoding whose rows were compared with one of them.

    It compares by the main metric of the task. A row is above or below it if the 95 % interval
    of the difference on the same prompts does not contain 0.
    """
    main, metric = next(iter(task.metrics.items()))
    found = []
    for (split, decoding), group in groupby(rows, lambda row: (row["split"], row["decoding"])):
        by_method = {row["method"]: row for row in group}
        compared = [row for row in by_method.values() if row.get("compared_with")]
        own = by_method.get(compared[0]["compared_with"]) if compared else None
        if own is None or own[main] is None:
            continue
        ratios = _ratios(own, by_method.get(BASE), main)
        value = f"{own[main]:.{metric.digits}f}"
        text = f"{split}, {decoding}: {own['method']} has {metric.header} {value}{ratios}."
        others = [
            f"{_listed(methods)} {'is' if len(methods) == 1 else 'are'} {verdict}"
            for verdict, methods in _sorted(compared, main).items()
            if methods
        ]
        found.append(f"{text} On the same prompts {'; '.join(others)}." if others else text)
    return found


def _ratios(own: Row, base: Row | None, main: str) -> str:
    values = [row and row.get(name) for row in (base, own) for name in (main, FLUENCY)]
    if base is None or not all(values[:2]) or None in values:
        return ""
    return (
        f", {own[main] / base[main]:.2f} times the base model's, "
        f"at {own[FLUENCY] / base[FLUENCY]:.2f} times its perplexity"
    )


def _sorted(compared: Sequence[Row], main: str) -> dict[str, list[str]]:
    """Return the methods above it, below it, and those that cannot be told apart from it."""
    found: dict[str, list[str]] = {"above it": [], "below it": [], "not told apart from it": []}
    for row in compared:
        _, low, high = (row.get(f"{main}{end}") for end in DIFFERENCE)
        if low is None or high is None:
            continue
        verdict = list(found)[0 if low > 0 else 1 if high < 0 else 2]
        found[verdict].append(row["method"])
    return found


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
