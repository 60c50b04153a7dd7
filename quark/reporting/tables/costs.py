"""The costs of a task's stages."""

from collections.abc import Sequence
from pathlib import Path

from quark.core import files, paths
from quark.core.schemas import TableError
from quark.reporting.tables.columns import Row
from quark.reporting.tables.text import csv_text


def cost_table(costs: Sequence[Path], out: Path) -> None:
    """Write the cost of each stage, in the given order, and the total, as CSV.

    Args:
        costs: files TASK/METHOD/seed-S/STAGE.json (STAGE may include folders), or
            models/NAME/STAGE.json for a model, which has no seed. They have any of the keys rows,
            tokens, seconds; other keys are ignored.
        out: the CSV file; tokens_per_second is tokens / seconds of its line.

    Raises:
        TableError: a file is missing, has another path, has none of the keys, or has a value that
            is not a number.
    """
    lines = [_stage(Path(file)) for file in costs]
    total: Row = {"task": "total", "method": None, "seed": None, "stage": None}
    for key in ("rows", "tokens", "seconds"):
        total[key] = sum(line[key] for line in lines if line[key] is not None)
    for line in (*lines, total):
        timed = line["tokens"] is not None and line["seconds"]
        line["tokens_per_second"] = line["tokens"] / line["seconds"] if timed else None
    files.write_text(out, csv_text([*lines, total]))


def _stage(file: Path) -> Row:
    if file.parts[-3:-2] == ("models",):
        task, method, seed, stage = *file.parts[-3:-1], None, file.stem
    else:
        found_at = paths.named(file)
        if found_at is None:
            raise TableError(f"{file}: not of the form TASK/METHOD/seed-S/STAGE.json")
        task, method, seed, stage = found_at
    try:
        found = files.read_json(file)
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    cost = {key: found.get(key) for key in ("rows", "tokens", "seconds")}
    given = [value for value in cost.values() if value is not None]
    if not given or not all(isinstance(value, int | float) for value in given):
        raise TableError(f"{file}: {cost}: needs a number for rows, tokens or seconds")
    return {"task": task, "method": method, "seed": seed, "stage": stage, **cost}
