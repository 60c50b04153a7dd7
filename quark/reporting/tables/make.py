"""Make the table of a task from its evaluations, and one table from several tables."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from quark.core import files
from quark.reporting.tables.archive import unpacked
from quark.reporting.tables.columns import PLACE, REFERENCES, Row
from quark.reporting.tables.measured import Run, check, load, measure, pool
from quark.reporting.tables.published import published_columns, read_published
from quark.reporting.tables.text import csv_text, latex, markdown, read_csv


def make_table(
    evaluations: Sequence[Path],
    published: Path | None,
    out: Path,
    compared_with: Sequence[str] = REFERENCES,
) -> None:
    """Write the table of a task as `out` (.csv) and, rounded, as .md and .tex beside it.

    There is one row for each split, decoding and method. It holds metrics over prompts after
    averaging over seeds, with 95 % intervals over prompts (and seeds, if there are several); their
    differences to Quark's metrics on the same prompts; and the mean costs of a seed. If the paper
    gives metrics of several splits together, and the runs cover exactly these splits, there are
    also rows of the split `all`.

    Args:
        evaluations: folders with `prompts.parquet` and `settings.json`, or the metrics.json of such
            a folder, or archives of several. Rows are ordered by split, then decoding, then method,
            each in the order of first appearance here.
        published: CSV of the paper's numbers, a row for each cell, with source and confidence;
            None: there are none.
        out: the CSV file.
        compared_with: methods; the others are compared with the first of these that has a row.

    Raises:
        TableError: an evaluation is incomplete or given twice, two of one split have different
            prompts, seeds of one row have different settings, or a published cell is missing.
    """
    with unpacked([Path(each) for each in evaluations]) as folders:
        runs = [load(folder) for folder in folders]
    check(runs)
    task = runs[0].task
    if {run.settings["split"] for run in runs} == task.published.together:
        runs += pool(runs)
    cells = read_published(published, task.published) if published else {}
    rank = {key: list(dict.fromkeys(run.settings[key] for run in runs)) for key in PLACE}
    groups: dict[tuple[int, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(order.index(run.settings[key]) for key, order in rank.items())].append(run)
    rows = [
        measure(groups[at], task, _reference(groups[at], runs, compared_with))
        | published_columns(groups[at][0].settings, task.published, cells, published)
        for at in sorted(groups)
    ]
    files.write_text(out.with_suffix(".md"), markdown(rows, task))
    files.write_text(out.with_suffix(".tex"), latex(rows, task))
    files.write_text(out, csv_text(rows))


def _reference(
    group: Sequence[Run], runs: Sequence[Run], compared_with: Sequence[str]
) -> list[Run]:
    """Return the runs that a row is compared with; empty: its own runs, or other seeds."""
    methods = {run.settings["method"] for run in runs}
    first = next((method for method in compared_with if method in methods), None)
    where = {**group[0].settings, "method": first}
    found = [run for run in runs if all(run.settings[key] == where[key] for key in PLACE)]
    seeds = [[run.settings["seed"] for run in each] for each in (group, found)]
    return found if seeds[0] == seeds[1] and group[0] not in found else []


def gather(tables: Sequence[Path], out: Path) -> None:
    """Write several tables as one; its first column `ablation` holds each row's table name.

    Raises:
        TableError: a table is missing or empty.
    """
    rows: list[Row] = []
    for table in tables:
        rows += [{"ablation": table.stem, **row} for row in read_csv(table)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    files.write_text(out, csv_text([dict.fromkeys(columns, "") | row for row in rows]))
