"""Compute a row of metrics for each prompt, and point values, from scores and likelihoods.

`prompts.parquet` holds the values that intervals and averages over seeds need. `summary` computes
the metrics of protocol 5 from it, for one seed or for several.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quark.core import files, schemas
from quark.core.schemas import TableError
from quark.metrics import perplexity
from quark.metrics.distinct import distinct_n
from quark.stages.settings import EvaluateSettings
from quark.tasks import TASKS, Generations, Task

MEASURED = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        pa.field("n_generations", pa.int64(), False),
        pa.field("n_unscored", pa.int64(), False),  # generations whose scorer failed
        pa.field("n_empty", pa.int64(), False),  # generations without tokens
        pa.field("ppl", pa.list_(pa.float64()), False),  # of each generation that is not empty
        pa.field("ppl_sum", pa.float64(), False),  # over generations below perplexity.CEILING
        pa.field("ppl_count", pa.int64(), False),
        pa.field("ppl_dropped", pa.int64(), False),  # not empty, but not below the ceiling
        pa.field("nll", pa.float64(), False),  # nats, over all generations
        pa.field("tokens", pa.int64(), False),
        *(pa.field(f"dist{n}", pa.float64(), False) for n in (1, 2, 3)),
    ]
)


def prompt_schema(task: Task) -> pa.Schema:
    """Return the schema of the prompts' table: `MEASURED` and the task's columns.

    A null in a task's column means that no generation has a score.
    """
    return pa.schema([*MEASURED, *(pa.field(name, pa.float64()) for name in task.columns)])


def evaluate_stage(
    settings: EvaluateSettings,
    generations: Path,
    scores: Path,
    likelihoods: Path,
    out: Path,
    *,
    costs: Sequence[Path],
    predictions: Path | None = None,
    second: Path | None = None,
    mauve: Path | None = None,
) -> None:
    """Write the metrics as `out`, and `prompts.parquet` and `settings.json` beside it.

    The arguments are those of `evaluate` and `facts`.
    """
    evaluate(
        generations,
        scores,
        likelihoods,
        out.with_name("prompts.parquet"),
        out,
        task=TASKS[settings.task],
        threshold=settings.threshold,
        draws=settings.draws,
        predictions=predictions,
        second=second,
        mauve=mauve,
    )
    found = facts(settings, scores, costs, second, mauve)
    files.write_json(out.with_name("settings.json"), found)


def evaluate(
    generations: Path,
    scores: Path,
    likelihoods: Path,
    out_prompts: Path,
    out_metrics: Path,
    *,
    task: Task,
    threshold: float,
    draws: int = 1,
    predictions: Path | None = None,
    second: Path | None = None,
    mauve: Path | None = None,
) -> None:
    """Write the metrics of each prompt (Parquet) and the point values over them (JSON).

    Args:
        generations: a table of `schemas.SAMPLES`.
        scores: scores of the same rows, `schemas.SCORES`.
        likelihoods: likelihoods of the same rows under the judge, `schemas.LIKELIHOODS`.
        out_prompts: a table of `prompt_schema`, prompts in the order of `generations`.
        out_metrics: JSON file of the results of `summary` and `count`, and of MAUVE.
        task: the task, which defines the metrics of the scores.
        threshold: a score counts if it is strictly above this value.
        draws: how many generations there are for each one that is kept (see `keep_best`).
        predictions: predictions of the prompts' real continuations, `schemas.PREDICTIONS`.
        second: another scorer's scores of the same rows, `schemas.SCORES`.
        mauve: JSON file of the stage that computes MAUVE.

    Raises:
        TableError: the tables do not hold the same rows, a value is impossible, or no generation
            has a score.
    """
    table = _join(generations, scores, likelihoods, second)
    if table["score"].isna().all():
        raise TableError(f"{scores}: every score is null: the scorer failed on all generations")
    table = keep_best(table, task, draws)
    predicted = None if predictions is None else _predicted(predictions, generations, table)
    columns = per_prompt(table, task, threshold, predicted)
    schemas.write(out_prompts, prompt_schema(task), columns, {"threshold": threshold})
    frame = read_prompts(out_prompts, task)
    metrics = summary(frame, task) | count(frame)
    if mauve is not None:
        metrics["mauve"] = files.read_json(mauve)["mauve"]
    files.write_json(out_metrics, metrics)


def facts(
    settings: EvaluateSettings,
    scores: Path,
    costs: Sequence[Path],
    second: Path | None = None,
    mauve: Path | None = None,
) -> dict[str, Any]:
    """Return what the table reports besides the metrics: settings, scorer and cost.

    Args:
        settings: the evaluation's settings; the keys of `sampling` become keys of the result.
        scores: the table of scores, which names its scorer.
        costs: the JSON files of all earlier stages, including Quark's iterations.
        second: the table of another scorer's scores.
        mauve: JSON file of the stage that computes MAUVE, which is not a mean over prompts.
    """
    stages = [(file.stem, files.read_json(file)) for file in costs]

    def total(key: str, *names: str) -> int:
        return sum(int(cost[key]) for name, cost in stages if name in names)

    scorer = schemas.about(scores)
    spread = settings.model_dump(exclude={"sampling"}) | settings.sampling.model_dump()
    return spread | {
        "scorer": scorer["scorer"],
        "scorer_version": scorer["version"],
        "second_scorer": None if second is None else schemas.about(second)["scorer"],
        "mauve": None if mauve is None else files.read_json(mauve)["mauve"],
        "scorer_calls": total("rows", "scores") + total("scored", "corpus"),
        "tokens_sampled": total("tokens", "samples", "generations"),
        "training_sequences": total("rows", "training"),
        "training_tokens": total("tokens", "training"),
    }


def per_prompt(
    table: pd.DataFrame, task: Task, threshold: float, predictions: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Return the columns of `prompt_schema` from one row for each generation.

    `predictions` has a row for each prompt, in the order in which they first appear.
    """
    prompt, ids = pd.factorize(table["prompt_id"])
    scores, nll, tokens = (table[name].to_numpy() for name in ("score", "nll", "tokens"))
    ppl = perplexity.per_generation(nll, tokens)
    counted, empty = perplexity.counted(ppl), tokens == 0
    made = Generations(
        prompt,
        scores,
        -perplexity.mean_nll(nll, tokens),
        table["response"].tolist(),
        threshold,
        second=table["second"].to_numpy() if "second" in table else None,
        predictions=predictions,
    )
    of_task = task.by_prompt(made)
    texts = table["response"].groupby(prompt).agg(list)
    return {
        "prompt_id": list(ids),
        "n_generations": np.bincount(prompt),
        "n_unscored": _total(np.isnan(scores), prompt),
        "n_empty": _total(empty, prompt),
        "ppl": _lists(ppl, prompt),
        "ppl_sum": np.bincount(prompt, np.where(counted, ppl, 0)),
        "ppl_count": _total(counted, prompt),
        "ppl_dropped": _total(~counted & ~empty, prompt),
        "nll": np.bincount(prompt, np.where(empty, 0, nll)),
        "tokens": _total(tokens, prompt),
        **{f"dist{n}": [distinct_n(of_prompt, n) for of_prompt in texts] for n in (1, 2, 3)},
        **{name: pa.array(of_task[name], from_pandas=True) for name in task.columns},
    }


def keep_best(table: pd.DataFrame, task: Task, draws: int) -> pd.DataFrame:
    """Return the generations with the highest reward of each `draws` of a prompt, in their order.

    Of equal rewards the first is kept; one without a score, if none of them has a score.
    """
    if draws == 1:
        return table
    reward = task.reward(table["score"].to_numpy())
    turn = table.groupby("prompt_id").cumcount() // draws
    ranked = pd.Series(np.where(np.isnan(reward), -np.inf, reward), table.index)
    best = ranked.groupby([table["prompt_id"], turn], sort=False).idxmax()
    return table[table.index.isin(best)]


def read_prompts(source: Path, task: Task) -> pd.DataFrame:
    """Read a table of `prompt_schema`, indexed by prompt; nulls become NaN."""
    frame: pd.DataFrame = schemas.read(source, prompt_schema(task)).to_pandas()
    return frame.set_index("prompt_id")


def over_seeds(frames: Sequence[pd.DataFrame], task: Task) -> pd.DataFrame:
    """Return one row for each prompt over several seeds' frames of the same prompts.

    The task's columns and dist-n are averaged over the seeds that have a value. Sums and counts are
    added and perplexities are concatenated, so that every generation has the same weight.
    """
    averaged = [*task.columns, "dist1", "dist2", "dist3"]
    added = [name for name in frames[0].columns if name not in (*averaged, "ppl")]
    prompts = pd.concat(frames).groupby(level=0, sort=False)
    merged = prompts[averaged].mean().join(prompts[added].sum())
    merged["ppl"] = prompts["ppl"].agg(list).map(np.concatenate)
    return merged


def summary(prompts: pd.DataFrame, task: Task) -> dict[str, float | None]:
    """Return the metrics of protocol 5 over prompts; None: a metric has nothing to count.

    `prompts` is what `read_prompts` returns, or `over_seeds` of several.
    """
    of = {name: prompts[name].to_numpy() for name in prompts}
    return {
        **{name: metric.over(prompts) for name, metric in task.metrics.items()},
        "output_ppl": perplexity.output_ppl(of["ppl_sum"], of["ppl_count"]),
        "output_ppl_median": perplexity.median_ppl(np.concatenate(of["ppl"])),
        "output_ppl_exp_mean_nll": perplexity.exp_mean_nll(of["nll"], of["tokens"]),
        **{f"dist{n}": float(of[f"dist{n}"].mean()) for n in (1, 2, 3)},
    }


def count(prompts: pd.DataFrame) -> dict[str, int]:
    """Return the numbers of prompts and generations, and of those that a metric leaves out."""
    return {
        "n_prompts": len(prompts),
        "n_prompts_unscored": int((prompts["n_unscored"] == prompts["n_generations"]).sum()),
        "n_generations": int(prompts["n_generations"].sum()),
        "n_unscored": int(prompts["n_unscored"].sum()),
        "n_empty": int(prompts["n_empty"].sum()),
        "n_ppl_dropped": int(prompts["ppl_dropped"].sum()),
    }


def _lists(values: NDArray[np.float64], prompt: NDArray[np.integer]) -> list[NDArray[np.float64]]:
    """Return each prompt's values that are not NaN."""
    rows = np.split(values[np.argsort(prompt, kind="stable")], np.bincount(prompt).cumsum()[:-1])
    return [row[~np.isnan(row)] for row in rows]


def _total(values: NDArray[Any], prompt: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return each prompt's sum of whole numbers (exact: far below 2 ** 53)."""
    return np.bincount(prompt, values).astype(np.int64)


def _join(generations: Path, scores: Path, likelihoods: Path, second: Path | None) -> pd.DataFrame:
    """Return one row for each generation, in their order, with its scores and likelihood."""
    table = _read(generations, schemas.SAMPLES, ["response"])
    for file, schema, columns in (
        (scores, schemas.SCORES, {"score": "score"}),
        (second, schemas.SCORES, {"score": "second"}),
        (likelihoods, schemas.LIKELIHOODS, {"nll": "nll", "tokens": "tokens"}),
    ):
        if file is None:
            continue
        other = _read(file, schema, list(columns))
        _same_rows(generations, table, file, other)
        table[list(columns.values())] = other.loc[table.index, list(columns)]
        if "score" in columns:
            _refuse(file, ~other["score"].dropna().between(0, 1), "a score outside [0, 1]")
    _refuse(likelihoods, ~np.isfinite(table["nll"]), "an nll that is not finite")
    _refuse(likelihoods, table["tokens"] < 0, "a negative number of tokens")
    return table


def _predicted(file: Path, generations: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the predictions for the prompts of `table`, in the order of first appearance."""
    found: pd.DataFrame = schemas.read(file, schemas.PREDICTIONS).to_pandas()
    found = found.set_index("prompt_id")
    names = table["prompt_id"].unique()
    if found.index.has_duplicates or set(names) != set(found.index):
        raise TableError(f"{file}: its prompts are not those of {generations}; predict again")
    return found.loc[names]


def _read(file: Path, schema: pa.Schema, columns: list[str]) -> pd.DataFrame:
    table = schemas.read(file, schema, ["row_id", "prompt_id", *columns])
    frame: pd.DataFrame = table.to_pandas().set_index("row_id")
    _refuse(file, pd.Series(frame.index.duplicated(), frame.index), "stands there twice")
    if "score" in columns:  # pandas does not distinguish NaN, an error, from null
        nan = pc.is_nan(table["score"]).to_pandas().eq(True).set_axis(frame.index)
        _refuse(file, nan, "its score is NaN; a failed score is null")
    return frame


def _same_rows(file: Path, table: pd.DataFrame, beside: Path, other: pd.DataFrame) -> None:
    """Raise an error for rows that only one of two tables has, or whose prompts differ."""
    for lacks, has, rows in (
        (beside, file, table.index.difference(other.index, sort=False)),
        (file, beside, other.index.difference(table.index, sort=False)),
    ):
        if len(rows):
            raise TableError(
                f"{lacks}: no row {rows[0]}, which {has} has ({len(rows)} such rows); "
                "make both from the same generations"
            )
    prompts = other["prompt_id"].loc[table.index]
    _refuse(beside, prompts != table["prompt_id"], f"not the prompt that {file} gives it")


def _refuse(file: Path, bad: pd.Series, what: str) -> None:
    if bad.any():
        raise TableError(f"{file}: row {bad.idxmax()}: {what}")
