"""The table of a task, measured beside published numbers, and the table of what it cost.

Layer 4: imports neither torch nor MLflow. Measured and published numbers stand in columns of their
own; a published one comes with how far it can be trusted. `toxicity.csv` holds no times, so a run
that was interrupted ends with the same bytes as one that was not; `toxicity_cost.csv` holds them.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd

from quark import files
from quark.evaluation import count, over_seeds, read_prompts, summary
from quark.metrics.bootstrap import interval
from quark.metrics.perplexity import CEILING
from quark.schemas import TableError
from quark.seeds import stream
from quark.tasks import TASKS, Metric, Published, Task

# What all tasks measure with an interval; the rounded tables take header and digits from COMMON.
INTERVALS = {
    "output_ppl": Metric(("ppl_sum", "ppl_count"), "", 0, "", np.divide),
    "dist2": Metric(("dist2",), "", 0, ""),
}
SETTINGS = (
    *("model", "judge", "scorer", "scorer_version", "second_scorer"),
    *("temperature", "top_k", "top_p"),
    *("penalty_alpha", "min_new_tokens", "max_new_tokens", "samples", "precision"),
    *("threshold", "bootstrap"),
)
PLACE = ("split", "decoding", "method")
"""What a row is of, beside its task."""
COSTS = ("scorer_calls", "tokens_sampled", "training_sequences", "training_tokens")

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The evaluation of one method and seed on one split, under one decoding."""

    folder: Path
    settings: Mapping[str, Any]
    prompts: pd.DataFrame

    @property
    def task(self) -> Task:
        """What is measured."""
        return TASKS[self.settings["task"]]


def make_table(evaluations: Sequence[Path], published: Path, out: Path) -> None:
    """Write the table of a task as `out` (.csv) and, rounded, as .md and .tex beside it.

    One row for each split, decoding and method: metrics over prompts after averaging over seeds,
    with 95 % bootstrap intervals over prompts; costs as the mean of a seed.

    Args:
        evaluations: folders with `prompts.parquet` and `settings.json`. Rows follow the order in
            which splits, within them decodings, and within those methods appear here first.
        published: numbers of the paper, a row for each cell, with source and confidence.
        out: the CSV file.

    Raises:
        TableError: an evaluation is incomplete or given twice, two of one split have different
            prompts, seeds of one row have different settings, or a published cell is missing.
    """
    runs = [_load(Path(folder)) for folder in evaluations]
    _check(runs)
    task = runs[0].task
    cells = _read_published(published, task.published)
    rank = {key: list(dict.fromkeys(run.settings[key] for run in runs)) for key in PLACE}
    groups: dict[tuple[int, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(order.index(run.settings[key]) for key, order in rank.items())].append(run)
    rows = [
        _measure(groups[at], task)
        | _published(groups[at][0].settings, task.published, cells, published)
        for at in sorted(groups)
    ]
    files.write_text(out.with_suffix(".md"), _markdown(rows, task))
    files.write_text(out.with_suffix(".tex"), _latex(rows, task))
    files.write_text(out, _csv(rows))


def gather(tables: Sequence[Path], out: Path) -> None:
    """Write the rows of several tables as one, after a column `ablation` with the table's name.

    Raises:
        TableError: a table is missing or empty.
    """
    rows: list[Row] = []
    for table in tables:
        if not table.is_file():
            raise TableError(f"{table}: no such file")
        with table.open(encoding="utf-8", newline="") as source:
            found = list(csv.DictReader(source))
        if not found:
            raise TableError(f"{table}: has no rows")
        rows += [{"ablation": table.stem, **row} for row in found]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    files.write_text(out, _csv([dict.fromkeys(columns, "") | row for row in rows]))


# ------------------------------------------------------------------------------------- measured
def _load(folder: Path) -> Run:
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


def _check(runs: Sequence[Run]) -> None:
    """Refuse no runs, two tasks, runs given twice and runs of one split on different prompts.

    A run whose settings limit its prompts may have fewer, as many as they say.
    """
    tasks = sorted({run.settings["task"] for run in runs})
    if len(tasks) != 1:
        raise TableError(f"a table is of one task, these evaluations are of {tasks or 'none'}")
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


def _measure(group: Sequence[Run], task: Task) -> Row:
    """Return the measured columns of one row from its seeds."""
    settings = _agreed(group)
    prompts = over_seeds([run.prompts for run in group], task)
    first, main = next(iter(task.metrics.items()))
    seeds = [value for run in group if (value := main.over(run.prompts)) is not None]
    intervals = {**task.metrics, **INTERVALS}
    row: Row = {key: settings[key] for key in ("task", *PLACE)}
    row["n_seeds"] = len(group)
    for name, value in summary(prompts, task).items():
        row[name] = value
        if name in intervals:
            has = prompts[prompts["ppl_count"] > 0] if name == "output_ppl" else prompts
            low, high = _interval(has, intervals[name], settings)
            row[f"{name}_low"], row[f"{name}_high"] = low, high
    mauves = [run.settings["mauve"] for run in group]
    row["mauve"] = None if None in mauves else fmean(mauves)
    row[f"{first}_seed_std"] = stdev(seeds) if len(seeds) > 1 else None
    row |= count(prompts, task)
    row |= {key: settings[key] for key in SETTINGS}
    return row | {f"{key}_per_seed": fmean(run.settings[key] for run in group) for key in COSTS}


def _agreed(group: Sequence[Run]) -> Mapping[str, Any]:
    """Return the settings that all seeds share, costs and the seed itself aside."""
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


def _interval(
    prompts: pd.DataFrame, metric: Metric, settings: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """Return the interval over the prompts that have a value, the same draw for all methods."""
    columns = metric.present(prompts)
    if not columns[0].size:
        return None, None
    rng = stream("bootstrap", settings["task"], settings["split"])
    return interval(columns, metric.value, settings["bootstrap"], rng)


# ------------------------------------------------------------------------------------ published
def _read_published(file: Path, which: Published) -> dict[tuple[str, ...], dict[str, str]]:
    """Return the published cells by split, method and metric."""
    try:
        with file.open(encoding="utf-8", newline="") as source:
            found = list(csv.DictReader(source))
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    key = ("split", "method", "metric")
    missing = {*key, "table", "value", "source", "confidence"} - set(found[0] if found else ())
    if missing:
        raise TableError(f"{file}: no column {', '.join(sorted(missing))}")
    return {tuple(c[k] for k in key): c for c in found if c["table"] == which.table}


def _published(
    settings: Mapping[str, Any],
    which: Published,
    cells: dict[tuple[str, ...], dict[str, str]],
    file: Path,
) -> Row:
    """Return the published columns of one row, values as published; None without counterpart."""
    split, method = which.splits.get(settings["split"]), which.methods.get(settings["method"])
    names = [f"published_{name}" for name in ("method", *which.metrics, "source", "confidence")]
    if not split or not method or settings["decoding"] != which.decoding:
        return dict.fromkeys(names)
    try:
        found = {m: cells[split, method, m] for m in which.metrics}
    except KeyError as error:
        raise TableError(f"{file}: table {which.table}: no cell {error}") from None
    values = [cell["value"] for cell in found.values()]
    source, confidence = (  # a source may itself hold "; "
        sep.join(f"{metric}: {cell[key]}" for metric, cell in found.items())
        for key, sep in (("source", " | "), ("confidence", "; "))
    )
    return dict(zip(names, [method, *values, source, confidence], strict=True))


# ----------------------------------------------------------------------------------------- text
COMMON = {  # header and digits, in the rounded tables, of what all tasks measure
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
Table = tuple[str, list[list[str]]]  # title, lines of cells; the first line is the header


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")  # floats as repr, None as ""
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _shown(task: Task) -> dict[str, tuple[str, int]]:
    """Header and digits of each metric."""
    return {name: (metric.header, metric.digits) for name, metric in task.metrics.items()} | COMMON


def _rounded(rows: Sequence[Row], task: Task) -> list[Table]:
    """Return the tables for people: measured, published, counts and costs."""
    several = len({row["decoding"] for row in rows}) > 1
    head = [key for key in PLACE if several or key != "decoding"]
    shown = _shown(task)
    measured = {m: how for m, how in shown.items() if any(row[m] is not None for row in rows)}
    known = [row for row in rows if row["published_method"]]
    published = [f"published_{name}" for name in ("method", *task.published.metrics)]
    return [
        (
            "Measured, with 95 % bootstrap intervals over prompts",
            [[*head, *(header for header, _ in measured.values())]]
            + [
                [*(row[key] for key in head), *(_cell(row, m, d) for m, (_, d) in measured.items())]
                for row in rows
            ],
        ),
        (
            "Published (Lu et al. 2022)",
            [[*head, "published as", *(shown[metric][0] for metric in task.published.metrics)]]
            + [[row[key] for key in (*head, *published)] for row in known],
        ),
        (
            "Counts over all seeds, costs of a seed",
            [[*head, *(name.replace("_", " ") for name in COUNTS)]]
            + [[str(_short(row[key])) for key in (*head, *COUNTS)] for row in rows],
        ),
    ]


def _cell(row: Row, metric: str, digits: int) -> str:
    if row[metric] is None:
        return "-"
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    between = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{row[metric]:.{digits}f}{between}"


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _markdown(rows: Sequence[Row], task: Task) -> str:
    parts = [f"# {rows[0]['task'].capitalize().replace('_', ', ')}"]
    for title, (header, *lines) in _rounded(rows, task):
        grid = [header, ["---"] * len(header), *lines]
        table = "\n".join(f"| {' | '.join(line)} |" for line in grid)
        parts += [f"## {title}", table if lines else "None of these rows has a counterpart."]
    used = {key: " / ".join(dict.fromkeys(str(row[key]) for row in rows)) for key in SETTINGS}
    notes = [
        *(f"{key}: {value}" for key, value in used.items()),
        *(f"{metric.header}: {metric.note}" for metric in task.metrics.values()),
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


def _latex(rows: Sequence[Row], task: Task) -> str:
    """Return a tabular for each table; needs the package booktabs."""
    parts = []
    for title, (header, *lines) in _rounded(rows, task):
        body = [" & ".join(map(_escape, line)) + r" \\" for line in (header, *lines)]
        rules = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
        columns = "ll" + "r" * (len(header) - 2)
        begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
        parts.append("\n".join([f"% {title}", begin, *rules, end]))
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


# ---------------------------------------------------------------------------------------- costs
def cost_table(costs: Sequence[Path], out: Path) -> None:
    """Write what each stage cost, in the order given, and the total, as CSV.

    Args:
        costs: files TASK/METHOD/seed-S/STAGE.json (STAGE may hold folders), or of a model that has
            no seed models/NAME/STAGE.json, with any of the keys rows, tokens, seconds; others are
            not looked at.
        out: the CSV file; tokens_per_second is tokens / seconds of its line.

    Raises:
        TableError: a file is not there, lies elsewhere, or has none of the keys or no number.
    """
    lines = [_stage(Path(file)) for file in costs]
    total: Row = {"task": "total", "method": None, "seed": None, "stage": None}
    for key in ("rows", "tokens", "seconds"):
        total[key] = sum(line[key] for line in lines if line[key] is not None)
    for line in (*lines, total):
        timed = line["tokens"] is not None and line["seconds"]
        line["tokens_per_second"] = line["tokens"] / line["seconds"] if timed else None
    files.write_text(out, _csv([*lines, total]))


def _stage(file: Path) -> Row:
    if file.parts[-3:-2] == ("models",):
        task, method, seed, stage = *file.parts[-3:-1], None, file.stem
    else:
        task, method, seed, stage = _place(file)
    try:
        found = files.read_json(file)
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    cost = {key: found.get(key) for key in ("rows", "tokens", "seconds")}
    given = [value for value in cost.values() if value is not None]
    if not given or not all(isinstance(value, int | float) for value in given):
        raise TableError(f"{file}: {cost}: needs a number for rows, tokens or seconds")
    return {"task": task, "method": method, "seed": seed, "stage": stage, **cost}


def _place(file: Path) -> tuple[str, str, str, str]:
    """Task, method, seed and stage of a file."""
    at = max((i for i, part in enumerate(file.parts) if part.startswith("seed-")), default=0)
    if at < 2 or at == len(file.parts) - 1:
        raise TableError(f"{file}: not of the form TASK/METHOD/seed-S/STAGE.json")
    task, method, seed = file.parts[at - 2 : at + 1]
    return task, method, seed[len("seed-") :], "/".join(file.with_suffix("").parts[at + 1 :])
