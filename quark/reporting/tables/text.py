"""Tables as text: CSV with every digit; Markdown, LaTeX and terminal tables are rounded."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quark.core.schemas import TableError
from quark.metrics.perplexity import CEILING
from quark.reporting.tables.columns import COSTS, DIFFERENCE, PLACE, SETTINGS, Row
from quark.reporting.tables.words import in_words
from quark.tasks import TASKS, Task

if TYPE_CHECKING:
    from rich.table import Table

COMMON = {  # header and digits, in the rounded tables, of all tasks' metrics
    "output_ppl": ("output ppl", 2),
    "output_ppl_median": ("median ppl", 2),
    "output_ppl_exp_mean_nll": ("exp mean nll", 2),
    "dist1": ("dist-1", 3),
    "dist2": ("dist-2", 3),
    "dist3": ("dist-3", 3),
    "mauve": ("MAUVE", 3),
}
COUNTS = (
    *("n_seeds", "n_prompts", "n_prompts_unscored", "n_generations", "n_unscored", "n_empty"),
    *("n_ppl_dropped", *(f"{cost}_per_seed" for cost in COSTS)),
)
MOVES = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators and marks of direction, but not the line break."""
Cells = tuple[str, list[list[str]]]  # title, lines of cells; the first line is the header


def read_csv(file: Path, *, empty: bool = False) -> list[dict[str, str]]:
    """Read the rows of a CSV file.

    Args:
        file: the CSV file, with a header.
        empty: whether the file may have no rows.

    Raises:
        TableError: there is no such file, or it has no rows and may not be empty.
    """
    if not file.is_file():
        raise TableError(f"{file}: no such file")
    with file.open(encoding="utf-8", newline="") as source:
        rows = list(csv.DictReader(source))
    if not rows and not empty:
        raise TableError(f"{file}: has no rows")
    return rows


def read_table(file: Path) -> list[Row]:
    """Read the rows of a table that `make_table` wrote; numeric text becomes a number.

    Published values stay text, with their published digits.

    Raises:
        TableError: there is no such file, or it has no rows.
    """
    return [
        {
            key: value or None if key.startswith("published_") else _value(value)
            for key, value in row.items()
        }
        for row in read_csv(file)
    ]


def _value(text: str) -> float | int | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text or None


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")  # floats as repr, None as ""
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def shown(task: Task) -> dict[str, tuple[str, int]]:
    """Return header and digits of each metric in the rounded tables."""
    own = task.metrics.items()
    return {name: (m.header, m.digits) for name, m in own if m.rounded and not m.side} | COMMON


def measured(rows: Sequence[Row], task: Task) -> dict[str, tuple[str, int]]:
    """Return header and digits of the metrics that have a value in some row."""
    return {m: how for m, how in shown(task).items() if any(row.get(m) is not None for row in rows)}


def grid(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as a Markdown table; the first line is the header."""
    header, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rest))


def rounded(rows: Sequence[Row], task: Task) -> list[Cells]:
    """Return the rounded tables: measured, differences, published, counts and costs."""
    several = len({row["decoding"] for row in rows}) > 1
    head = [key for key in PLACE if several or key != "decoding"]
    found, present = shown(task), measured(rows, task)
    passes = ["passes"] if any(row.get("passes") is not None for row in rows) else []
    seeded = any(row["n_seeds"] > 1 for row in rows)
    known = [row for row in rows if row["published_method"]]
    given = (*task.published.metrics, *task.published.pooled)
    published = [f"published_{name}" for name in ("method", *given)]
    return [
        (
            "Measured, with 95 % intervals over prompts"
            + (" and seeds, and ± the standard deviation over seeds" if seeded else ""),
            [[*head, *passes, *(header for header, _ in present.values())]]
            + [
                [
                    *(_head(row, key) for key in head),
                    *(_short(row[key]) for key in passes),
                    *(_cell(row, m, d) for m, (_, d) in present.items()),
                ]
                for row in rows
            ],
        ),
        *_side_effects(rows, head, task),
        *_differences(rows, head, present),
        (
            "Published (Lu et al. 2022)",
            [[*head, "published as", *(found[metric][0] for metric in given)]]
            + [[row[key] or "-" for key in (*head, *published)] for row in known],
        ),
        (
            "Counts over all seeds, costs of a seed",
            [[*head, *(name.replace("_", " ") for name in COUNTS)]]
            + [[_short(row[key]) for key in (*head, *COUNTS)] for row in rows],
        ),
    ]


def _side_effects(rows: Sequence[Row], head: Sequence[str], task: Task) -> list[Cells]:
    """Return the table of what else changes; empty if the task has no such metric."""
    side = {name: metric for name, metric in task.metrics.items() if metric.side}
    known = [row for row in rows if any(row.get(name) is not None for name in side)]
    if not known:
        return []
    lines = [[*head, *(metric.header for metric in side.values())]]
    for row in known:
        cells = (_cell(row, name, metric.digits) for name, metric in side.items())
        lines.append([*(_head(row, key) for key in head), *cells])
    return [("What else changes", lines)]


def _differences(
    rows: Sequence[Row], head: Sequence[str], present: Mapping[str, tuple[str, int]]
) -> list[Cells]:
    """Return the table of differences to the reference; empty if nothing was compared."""
    compared = [row for row in rows if row.get("compared_with")]
    if not compared:
        return []
    shown = {name: how for name, how in present.items() if f"{name}_difference" in compared[0]}
    lines = [[*head, *(header for header, _ in shown.values())]]
    for row in compared:
        cells = (_difference(row, name, digits) for name, (_, digits) in shown.items())
        lines.append([*(_head(row, key) for key in head), *cells])
    reference = compared[0]["compared_with"]
    return [(f"Difference to {reference} on the same prompts, with 95 % intervals", lines)]


def _difference(row: Row, metric: str, digits: int) -> str:
    value, low, high = (row[f"{metric}{end}"] for end in DIFFERENCE)
    return "-" if value is None else f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _head(row: Row, key: str) -> str:
    """Return a row's cell in a head column; a method has its reward tokens' form and place."""
    if key != "method" or not row.get("form"):
        return str(row[key])
    place = row.get("place")
    at = f", c = {place:g}" if place not in (None, 1) else ""
    return f"{row[key]} ({row['form']}{at})"


def _cell(row: Row, metric: str, digits: int) -> str:
    if row[metric] is None:
        return "-"
    low, high, std = (row.get(f"{metric}_{end}") for end in ("low", "high", "seed_std"))
    between = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    deviation = "" if std is None else f" ± {std:.{digits}f}"
    return f"{row[metric]:.{digits}f}{between}{deviation}"


def _short(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return "-" if value is None else str(int(value) if whole else value)


def shown_table(file: Path) -> "Table":
    """Return the table of measured values for the terminal.

    Raises:
        TableError: there is no such table, or it is not a task's table.
    """
    from rich.table import Column, Table

    rows = read_table(file)
    if rows[0].get("task") not in TASKS:
        raise TableError(f"{file}: holds no rows of a task")
    title, (header, *lines) = rounded(rows, TASKS[rows[0]["task"]])[0]
    words = [" ".join(cells).split() for cells in zip(header, *lines, strict=True)]
    columns = [  # intervals and headers wrap; numbers and names stay whole
        Column(name, no_wrap=name in PLACE, min_width=max(map(len, own)))
        for name, own in zip(header, words, strict=True)
    ]
    table = Table(*columns, title=f"{rows[0]['task'].replace('_', ', ')}: {title.lower()}")
    for line, row, after in zip(lines, rows, [*rows[1:], None], strict=True):
        table.add_row(*line, end_section=after is not None and row["split"] != after["split"])
    return table


def markdown(rows: Sequence[Row], task: Task) -> str:
    """Return the table in words, the rounded tables in Markdown, and notes on every column."""
    parts = [f"# {rows[0]['task'].capitalize().replace('_', ', ')}", *in_words(rows, task)]
    for title, lines in rounded(rows, task):
        empty = len(lines) == 1
        parts += [f"## {title}", "None of these rows has a counterpart." if empty else grid(lines)]
    used = {key: " / ".join(dict.fromkeys(str(row[key]) for row in rows)) for key in SETTINGS}
    splits = {row["split"]: row["note"] for row in rows if row.get("note")}
    notes = [
        *(f"{split}: {note}" for split, note in splits.items()),
        *(f"{key}: {value}" for key, value in used.items()),
        *(f"{metric.header}: {metric.note}" for metric in task.metrics.values() if metric.rounded),
        "passes: of a model, for each generated token",
        "intervals: bootstrap over prompts, Wilson's for a share of prompts; each resample of a "
        "difference has the same prompts for both methods",
        f"output ppl: mean over generations, {CEILING:g} and more dropped; the next two drop none",
        "dist-n: distinct n-grams of a prompt's generations / words",
        f"published numbers: {task.published.note}; compare only with the same",
        "read: the number was read in the source named here; recalled: it was read nowhere",
        *(
            f"published {row['split']}, {row['published_method']}: {text}"
            for row in rows
            if row["published_method"]
            for text in (row["published_confidence"], *row["published_source"].split(" | "))
        ),
    ]
    return "\n\n".join([*parts, "## Notes", "\n".join(f"- {note}" for note in notes)]) + "\n"


def latex(rows: Sequence[Row], task: Task) -> str:
    """Return a tabular for each table; needs the package booktabs."""
    parts = []
    for title, (header, *lines) in rounded(rows, task):
        body = [" & ".join(map(_escape, line)) + r" \\" for line in (header, *lines)]
        rules = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
        columns = "ll" + "r" * (len(header) - 2)
        begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        parts.append("\n".join([f"% {title}", begin, *rules, end]))
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special["±"] = r"$\pm$"
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def printable(text: str) -> str:
    """Replace what would move the cursor or change the direction by U+FFFD; keep line breaks."""
    return MOVES.sub("\ufffd", text)
