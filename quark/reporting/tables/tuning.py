"""Choose among the settings that were tried on validation prompts, by one rule for every method.

The rule considers the tries whose output perplexity is at most a given multiple of the base
model's. It chooses the try with the best main metric of the task, such as the least toxicity.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quark.core import files
from quark.core.schemas import TableError
from quark.reporting.tables.columns import BASE, FLUENCY, Row, parts
from quark.reporting.tables.text import csv_text, grid, measured, read_table
from quark.tasks import TASKS


def make_tuning(table: Path, most_perplexity: float, out: Path) -> None:
    """Write a row for each try as `out` (.csv) and, rounded, as .md beside it.

    These columns precede the columns of the task's table: `tuned` (the method), `key` (its last
    part), `value`, `of_base` and `ppl_of_base` (main metric and perplexity as ratios to the base
    model's), `chosen`.

    Args:
        table: CSV of `quark.reporting.tables.make_table`, with the base model's row for each
            decoding.
        most_perplexity: largest perplexity of a choice, as a multiple of the base model's.
        out: the CSV file.

    Raises:
        TableError: the table has no base model, or is not a task's table.
    """
    rows = read_table(table)
    if rows[0].get("task") not in TASKS:
        raise TableError(f"{table}: holds no rows of a task")
    task = TASKS[rows[0]["task"]]
    main = next(iter(task.metrics))
    low, high = task.reward(np.array([0.0, 1.0]))
    sign = 1 if high > low else -1  # whether the reward rises with the score
    base = {row["decoding"]: row for row in rows if row["method"] == BASE}
    tries: list[Row] = []
    for row in rows:
        if row["decoding"] not in base:
            raise TableError(f"{table}: no row of the base model, decoding {row['decoding']}")
        own = base[row["decoding"]]
        tuned, key, value = parts(row["method"])
        ratios = {"of_base": _ratio(row, own, main), "ppl_of_base": _ratio(row, own, FLUENCY)}
        tries.append({"tuned": tuned, "key": key, "value": value, **ratios, "chosen": 0} | row)
    for group in _groups(tries):
        allowed = [
            row
            for row in group
            if row["key"]
            and None not in (row[main], row["ppl_of_base"])
            and row["ppl_of_base"] <= most_perplexity
        ]
        if allowed:
            max(allowed, key=lambda row: sign * row[main])["chosen"] = 1
    files.write_text(out.with_suffix(".md"), _markdown(tries, most_perplexity))
    files.write_text(out, csv_text(tries))


def _ratio(row: Row, base: Row, name: str) -> float | None:
    """Return the row's value / the base model's; None: a value is missing, or the base's is 0."""
    return row[name] / base[name] if row[name] is not None and base[name] else None


def _groups(tries: Sequence[Row]) -> list[list[Row]]:
    """Return the tries of each method under each decoding."""
    keys = dict.fromkeys((row["tuned"], row["decoding"]) for row in tries)
    return [[r for r in tries if (r["tuned"], r["decoding"]) == key] for key in keys]


def _markdown(tries: Sequence[Row], most_perplexity: float) -> str:
    task = TASKS[tries[0]["task"]]
    several = len({row["decoding"] for row in tries}) > 1
    metrics = measured(tries, task)
    main = next(iter(task.metrics))
    beside = {main: "of_base", FLUENCY: "ppl_of_base"}
    head = ["method", "setting", *(["decoding"] if several else [])]
    lines = []
    for row in tries:
        setting = f"{row['key']} = {row['value']}" if row["key"] else ""
        names = [row["tuned"], setting, *([row["decoding"]] * several)]
        cells = [_cell(row[name], how[1]) for name, how in metrics.items()]
        for i, name in enumerate(metrics):
            if name in beside and row[beside[name]] is not None:
                cells[i] += f" ({row[beside[name]]:.2f})"
        line = [*map(str, names), *cells]
        lines.append([f"**{cell}**" if cell else "" for cell in line] if row["chosen"] else line)
    table = grid([[*head, *(header for header, _ in metrics.values())], *lines])
    first = tries[0]
    return (
        f"# Tuning: {first['task'].replace('_', ', ')}\n\n"
        f"{first['n_prompts']} prompts of the split {first['split']}, {first['samples']} samples "
        f"each, {first['n_seeds']} seed(s). In brackets: times the base model's. Bold: chosen, the "
        f"best {task.metrics[main].header} at no more than {most_perplexity:g} times the base "
        f"model's perplexity.\n\n{table}\n"
    )


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
