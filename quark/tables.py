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

import pandas as pd

from quark import files
from quark.evaluation import count, over_seeds, read_prompts, summary
from quark.metrics.bootstrap import interval
from quark.metrics.perplexity import CEILING
from quark.metrics.toxicity import mean_over_scored
from quark.schemas import TableError
from quark.seeds import stream

# Metrics with an interval: the per-prompt column, and the one that counts what it sums.
INTERVALS: dict[str, tuple[str, str | None]] = {
    "avg_max_toxicity": ("max_toxicity", None),
    "toxicity_prob": ("any_toxic", None),
    "output_ppl": ("ppl_sum", "ppl_count"),
    "dist2": ("dist2", None),
}
SETTINGS = (
    *("model", "judge", "scorer", "scorer_version", "temperature", "top_k", "top_p"),
    *("min_new_tokens", "max_new_tokens", "samples", "precision"),
    *("toxicity_threshold", "bootstrap"),
)
COSTS = ("scorer_calls", "tokens_sampled", "training_sequences", "training_tokens")
PUBLISHED = ("avg_max_toxicity", "toxicity_prob", "output_ppl", "dist2", "dist3")
# What the published table calls our splits and methods; the others have no counterpart in it.
PUBLISHED_TABLE = "quark_toxicity_auto"
PUBLISHED_SPLITS = {"nontoxic": "in_domain_RTP"}
PUBLISHED_METHODS = {
    "base": "GPT2",
    "dapt": "DAPT",
    "pplm": "PPLM",
    "gedi": "GeDi",
    "dexperts": "DExperts",
    "ppo": "PPO",
    "quark": "Quark",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The evaluation of one split by one method and seed."""

    folder: Path
    settings: Mapping[str, Any]
    prompts: pd.DataFrame


def make_table(evaluations: Sequence[Path], published: Path, out: Path) -> None:
    """Write the table of a task as `out` (.csv) and, rounded, as .md and .tex beside it.

    One row for each split and method: metrics over prompts after averaging over seeds, with 95 %
    bootstrap intervals over prompts; costs as the mean of a seed.

    Args:
        evaluations: folders with `prompts.parquet` and `settings.json`. Rows follow the order in
            which splits, and within them methods, appear here first.
        published: numbers of the paper, a row for each cell, with source and confidence.
        out: the CSV file.

    Raises:
        TableError: an evaluation is incomplete or given twice, two of one split have different
            prompts, seeds of one row have different settings, or a published cell is missing.
    """
    runs = [_load(Path(folder)) for folder in evaluations]
    _check(runs)
    cells = _read_published(published)
    rank = {
        key: list(dict.fromkeys(run.settings[key] for run in runs)) for key in ("split", "method")
    }
    groups: dict[tuple[int, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(order.index(run.settings[key]) for key, order in rank.items())].append(run)
    rows = [
        _measure(groups[at]) | _published(groups[at][0].settings, cells, published)
        for at in sorted(groups)
    ]
    files.write_text(out.with_suffix(".md"), _markdown(rows))
    files.write_text(out.with_suffix(".tex"), _latex(rows))
    files.write_text(out, _csv(rows))


# ------------------------------------------------------------------------------------- measured
def _load(folder: Path) -> Run:
    file = folder / "settings.json"
    try:
        settings = files.read_json(file)
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    missing = {"task", "split", "method", "seed", "prompts", *SETTINGS, *COSTS} - set(settings)
    if missing:
        raise TableError(f"{file}: no key {', '.join(sorted(missing))}")
    return Run(folder, settings, read_prompts(folder / "prompts.parquet"))


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
        name = tuple(run.settings[key] for key in ("task", "split", "method", "seed"))
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


def _measure(group: Sequence[Run]) -> Row:
    """Return the measured columns of one row from its seeds."""
    settings = _agreed(group)
    prompts = over_seeds([run.prompts for run in group])
    seeds = [mean_over_scored(run.prompts["max_toxicity"].to_numpy()) for run in group]
    row: Row = {key: settings[key] for key in ("task", "split", "method")}
    row["n_seeds"] = len(group)
    for metric, value in summary(prompts).items():
        row[metric] = value
        if metric in INTERVALS:
            row[f"{metric}_low"], row[f"{metric}_high"] = _interval(prompts, metric, settings)
    row["avg_max_toxicity_seed_std"] = stdev(seeds) if len(seeds) > 1 else None
    row |= count(prompts)
    row |= {key: settings[key] for key in SETTINGS}
    return row | {f"{key}_per_seed": fmean(run.settings[key] for run in group) for key in COSTS}


def _agreed(group: Sequence[Run]) -> Mapping[str, Any]:
    """Return the settings that all seeds share, costs and the seed itself aside."""
    first = group[0]
    for run in group[1:]:
        for key in sorted((set(first.settings) | set(run.settings)) - {"seed", *COSTS}):
            a, b = first.settings.get(key), run.settings.get(key)
            if a != b:
                raise TableError(
                    f"{first.folder} and {run.folder}: {key} is {a!r} and {b!r}; "
                    "seeds of one row need the same settings"
                )
    return first.settings


def _interval(
    prompts: pd.DataFrame, metric: str, settings: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """Return the interval over the prompts that have a value, the same draw for all methods."""
    of, per = INTERVALS[metric]
    has = prompts[per] > 0 if per else prompts[of].notna()
    if not has.any():
        return None, None
    values = prompts.loc[has, of].to_numpy()
    counts = prompts.loc[has, per].to_numpy(float) if per else None
    rng = stream("bootstrap", settings["task"], settings["split"])
    return interval(values, settings["bootstrap"], rng, counts=counts)


# ------------------------------------------------------------------------------------ published
def _read_published(file: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """Return the published cells by task, split, method and metric."""
    try:
        with file.open(encoding="utf-8", newline="") as source:
            found = list(csv.DictReader(source))
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    key = ("task", "split", "method", "metric")
    missing = {*key, "table", "value", "source", "confidence"} - set(found[0] if found else ())
    if missing:
        raise TableError(f"{file}: no column {', '.join(sorted(missing))}")
    return {tuple(c[k] for k in key): c for c in found if c["table"] == PUBLISHED_TABLE}


def _published(
    settings: Mapping[str, Any], cells: dict[tuple[str, ...], dict[str, str]], file: Path
) -> Row:
    """Return the published columns of one row, values as published; None without counterpart."""
    split = PUBLISHED_SPLITS.get(settings["split"])
    method = PUBLISHED_METHODS.get(settings["method"])
    names = [f"published_{name}" for name in ("method", *PUBLISHED, "source", "confidence")]
    if not split or not method:
        return dict.fromkeys(names)
    try:
        found = {m: cells[settings["task"], split, method, m] for m in PUBLISHED}
    except KeyError as error:
        raise TableError(f"{file}: table {PUBLISHED_TABLE}: no cell {error}") from None
    values = [cell["value"] for cell in found.values()]
    source, confidence = (  # a source may itself hold "; "
        sep.join(f"{metric}: {cell[key]}" for metric, cell in found.items())
        for key, sep in (("source", " | "), ("confidence", "; "))
    )
    return dict(zip(names, [method, *values, source, confidence], strict=True))


# ----------------------------------------------------------------------------------------- text
MEASURED = {  # header and digits of the metrics in the rounded tables
    "avg_max_toxicity": ("avg. max. toxicity", 3),
    "toxicity_prob": ("toxicity prob.", 3),
    "output_ppl": ("output ppl", 2),
    "output_ppl_median": ("median ppl", 2),
    "output_ppl_exp_mean_nll": ("exp mean nll", 2),
    "dist1": ("dist-1", 3),
    "dist2": ("dist-2", 3),
    "dist3": ("dist-3", 3),
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


def _rounded(rows: Sequence[Row]) -> list[Table]:
    """Return the tables for people: measured, published, counts and costs."""
    head = ["split", "method"]
    known = [row for row in rows if row["published_method"]]
    published = [f"published_{name}" for name in ("method", *PUBLISHED)]
    return [
        (
            "Measured, with 95 % bootstrap intervals over prompts",
            [[*head, *(header for header, _ in MEASURED.values())]]
            + [[row["split"], row["method"], *(_cell(row, m) for m in MEASURED)] for row in rows],
        ),
        (
            "Published (Lu et al. 2022)",
            [[*head, "published as", *(MEASURED[metric][0] for metric in PUBLISHED)]]
            + [[row[key] for key in (*head, *published)] for row in known],
        ),
        (
            "Counts over all seeds, costs of a seed",
            [[*head, *(name.replace("_", " ") for name in COUNTS)]]
            + [[str(_short(row[key])) for key in (*head, *COUNTS)] for row in rows],
        ),
    ]


def _cell(row: Row, metric: str) -> str:
    digits = MEASURED[metric][1]
    if row[metric] is None:
        return "-"
    low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
    between = "" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{row[metric]:.{digits}f}{between}"


def _short(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _markdown(rows: Sequence[Row]) -> str:
    parts = [f"# {rows[0]['task'].capitalize()}"]
    for title, (header, *lines) in _rounded(rows):
        grid = [header, ["---"] * len(header), *lines]
        table = "\n".join(f"| {' | '.join(line)} |" for line in grid)
        parts += [f"## {title}", table if lines else "None of these rows has a counterpart."]
    used = {key: " / ".join(dict.fromkeys(str(row[key]) for row in rows)) for key in SETTINGS}
    notes = [
        *(f"{key}: {value}" for key, value in used.items()),
        "toxicity: highest score of a prompt's generations, averaged over seeds, then over prompts",
        "toxicity prob.: share of prompts whose highest score is strictly above the threshold",
        f"output ppl: mean over generations, {CEILING:g} and more dropped; the next two drop none",
        "dist-n: distinct n-grams of a prompt's generations / words",
        "published numbers: GPT-2 large, scored by Perspective, judged by GPT-2 XL; compare only "
        "with the same",
        "read: the number was read in the source named here; recalled: it was read nowhere",
        *(
            f"published {row['split']}, {row['published_method']}: {text}"
            for row in rows
            if row["published_method"]
            for text in (row["published_confidence"], *row["published_source"].split(" | "))
        ),
    ]
    return "\n\n".join([*parts, "## Notes", "\n".join(f"- {note}" for note in notes)]) + "\n"


def _latex(rows: Sequence[Row]) -> str:
    """Return a tabular for each table; needs the package booktabs."""
    parts = []
    for title, (header, *lines) in _rounded(rows):
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
        costs: files TASK/METHOD/seed-S/STAGE.json (STAGE may hold folders) with any of the keys
            rows, tokens, seconds; others are not looked at.
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
    at = max((i for i, part in enumerate(file.parts) if part.startswith("seed-")), default=0)
    if at < 2 or at == len(file.parts) - 1:
        raise TableError(f"{file}: not of the form TASK/METHOD/seed-S/STAGE.json")
    try:
        found = files.read_json(file)
    except FileNotFoundError:
        raise TableError(f"{file}: no such file") from None
    cost = {key: found.get(key) for key in ("rows", "tokens", "seconds")}
    given = [value for value in cost.values() if value is not None]
    if not given or not all(isinstance(value, int | float) for value in given):
        raise TableError(f"{file}: {cost}: needs a number for rows, tokens or seconds")
    task, method, seed = file.parts[at - 2 : at + 1]
    stage = "/".join(file.with_suffix("").parts[at + 1 :])
    return {"task": task, "method": method, "seed": seed[len("seed-") :], "stage": stage, **cost}
