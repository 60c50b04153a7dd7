"""Draw the results of each iteration of Quark."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from quark.core import files, schemas
from quark.core.paths import number_of
from quark.metrics.distinct import distinct_n
from quark.metrics.perplexity import counted, output_ppl, per_generation
from quark.reporting.figures.style import canvas, shade
from quark.tasks import TASKS

NGRAMS = (1, 2, 3)
STEPS = {"kl": "KL to the base model, nats", "lm_loss": "loss, nats", "entropy": "entropy, nats"}
"""Values of each optimiser step, and their axis labels."""


def draw_curves(sources: Sequence[Path], out: Path) -> None:
    """Draw panels of reward, fluency, diversity, the reward tokens' effect, and training.

    The reward is shown by the scorer that the method learns from and, if the samples were scored
    again, by the second scorer. Curves that part show that the method learns to please its scorer.
    Perplexity is computed as in the table, over all samples. Dist-n uses equally many samples of
    each prompt: the number of the iteration with the fewest. The token gap is how much more likely
    held-out samples are under their own quantile's token than under the farthest token, with its
    standard error.

    Args:
        sources: folders `TASK/METHOD/seed-S/iteration-I` of all seeds and iterations, and the files
            `second_scores.parquet` in them that are shown.
        out: the SVG; PNG and Parquet are written beside it.

    Raises:
        TableError: samples are missing or broken.
        DamagedError: a summary is damaged.
    """
    again = {source.parent: source for source in sources if source.suffix}
    folders = [source for source in sources if not source.suffix]
    points = [_iteration(folder, again.get(folder)) for folder in folders]
    data = pd.concat([*points, _distinct(folders)], ignore_index=True)
    data = data.sort_values(["panel", "seed", "series", "x"], kind="stable")
    with canvas(out, data, 2, 4, 3.2, 2.5) as axes:
        _lines(axes[0, 0], data, "reward", "mean reward of the samples", "iteration")
        _lines(axes[0, 1], data, "quantile", "mean reward in the pool", "iteration", "quantile")
        _lines(axes[0, 2], data, "perplexity", "perplexity of the samples", "iteration")
        _lines(axes[0, 3], data, "dist", "dist-n of the samples", "iteration", "n")
        _lines(axes[1, 0], data, "token_gap", "token gap, nats", "iteration")
        for axis, (name, label) in zip(axes[1, 1:], STEPS.items(), strict=True):
            _lines(axis, data, name, label, "optimiser step")


def _place(folder: Path) -> tuple[int, int]:
    """Return seed and iteration of a folder."""
    return number_of(folder.parent), number_of(folder)


def _iteration(folder: Path, again: Path | None) -> pd.DataFrame:
    """Return the points of one iteration: panel, series, x, y, error."""
    seed, iteration = _place(folder)
    pool, training = (files.read_json(folder / f"{n}.json") for n in ("pool", "training"))
    judged = schemas.read(folder / "likelihoods.parquet", schemas.LIKELIHOODS, ["nll", "tokens"])
    ppl = per_generation(*(judged[name].to_numpy() for name in ("nll", "tokens")))
    kept = counted(ppl).astype(int)
    token_gap: dict[str, Any] = training["token_gap"] or {}
    points = [
        ("reward", "scorer", iteration, pool["mean_reward"], None),
        *(
            ("reward", "second scorer", iteration, again, None)
            for again in _mean_reward(folder, again)
        ),
        ("perplexity", "samples", iteration, output_ppl(np.where(kept, ppl, 0), kept), None),
    ]
    points += [
        ("quantile", f"{k}", iteration, reward, None)
        for k, reward in enumerate(pool["quantile_mean_reward"])
    ]
    points += [
        ("token_gap", name, iteration, token_gap[name], token_gap.get(f"{name}_se"))
        for name in ("best", "worst")
        if token_gap.get(name) is not None
    ]
    points += [
        (name, "steps", step["step"], step[name], None)
        for step in training["steps"]
        for name in STEPS
    ]
    found = pd.DataFrame(points, columns=["panel", "series", "x", "y", "error"])
    return found.assign(seed=seed).astype({"y": float, "error": float})


def _mean_reward(folder: Path, file: Path | None) -> list[float]:
    """Return the mean reward of an iteration's samples by the second scorer, if there is one."""
    if file is None:
        return []
    scores = schemas.read(file, schemas.SCORES, ["score"])["score"].drop_null().to_numpy()
    return [float(TASKS[folder.parts[-4]].reward(scores).mean())] if len(scores) else []


def _distinct(folders: Sequence[Path]) -> pd.DataFrame:
    """Return dist-n of each iteration's samples, with equally many samples of each prompt."""
    columns = ["prompt_id", "sample", "response"]
    tables = {
        _place(folder): schemas.read(folder / "samples.parquet", schemas.SAMPLES, columns)
        for folder in folders
    }
    fewest = min(table["sample"].to_numpy().max() for table in tables.values())
    points = []
    for (seed, iteration), table in tables.items():
        kept = table.to_pandas()
        texts = kept[kept["sample"] <= fewest].groupby("prompt_id")["response"].agg(list)
        for n in NGRAMS:
            mean = float(np.mean([distinct_n(group, n) for group in texts]))
            points.append(("dist", f"{n}", iteration, mean, None, seed))
    return pd.DataFrame(points, columns=["panel", "series", "x", "y", "error", "seed"]).astype(
        {"error": float}
    )


def _lines(
    axis: Axes, data: pd.DataFrame, panel: str, label: str, x: str, ordered: str | None = None
) -> None:
    """Draw a line for each series and seed of a panel; `ordered`: what orders the series."""
    part = data[data["panel"] == panel]
    series = list(dict.fromkeys(part["series"]))
    colour: Callable[[int], Any] = (
        (lambda i: shade(i, len(series))) if ordered else (lambda i: ("#0072B2", "#D55E00")[i % 2])
    )
    styles = ("-", "--", ":", "-.")
    for i, name in enumerate(series):
        for j, (_, line) in enumerate(part[part["series"] == name].groupby("seed")):
            axis.errorbar(
                line["x"],
                line["y"],
                yerr=None if line["error"].isna().all() else line["error"],
                color=colour(i),
                linestyle=styles[j % len(styles)],
                marker="o" if x == "iteration" else None,
                markersize=3,
                linewidth=1,
                label=name if j == 0 and len(series) > 1 else None,
            )
    if x == "iteration":
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_xlim(part["x"].min() - 0.4, part["x"].max() + 0.4)
    axis.set_xlabel(x)
    axis.set_ylabel(label)
    if len(series) > 1:
        axis.legend(title=ordered, loc="center left", bbox_to_anchor=(1.0, 0.5))
