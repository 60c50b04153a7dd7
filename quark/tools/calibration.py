"""Compare a scorer with the published scores of prompts: the cost of replacing Perspective.

RealToxicityPrompts publishes Perspective's score of each prompt (Gehman et al. 2020). A scorer that
replaces Perspective scores the same texts here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from quark.core import files, schemas
from quark.core.schemas import TableError
from quark.core.seeds import stream
from quark.reporting.tables.text import csv_text
from quark.scorers import Scorer
from quark.stages.score import scorer_of
from quark.stages.settings import CalibrateSettings

Scores = NDArray[np.float64]


def calibrate(
    settings: CalibrateSettings,
    prompts: Path,
    out: Path,
    classifier: Path | None = None,
    cache: Path | None = None,
    threads: int | None = None,
) -> None:
    """Write a row for each split that has published scores, and one for all of them (CSV).

    Columns: split, n, unscored, both means; then `spearman` (rank correlation), `auc` (probability
    that a text published as toxic has a higher score than one that is not; empty if all texts are
    of one kind), `error` (mean absolute difference) and `agreement` (share on the same side of the
    threshold), each with its 95 % bootstrap interval over texts; then scorer, version, threshold.

    Args:
        settings: the scorer, the threshold above which a text is toxic, the number of resamples.
        prompts: directory of Parquet files of schema PROMPTS.
        out: the CSV.
        classifier: directory of the scorer, if it is a classifier.
        cache: file that stores the scorer's scores, if it is a service.
        threads: threads of a scorer that needs torch; None: torch's setting is not changed.

    Raises:
        TableError: there are no prompts, or none with a published score.
    """
    scorer = scorer_of(settings.score, classifier, cache, threads)
    splits = {file.stem: _compared(file, scorer) for file in sorted(prompts.glob("*.parquet"))}
    splits = {name: (ours, theirs) for name, (ours, theirs) in splits.items() if len(theirs)}
    if not splits:
        raise TableError(f"{prompts}: no prompt has a published score to compare with")
    ours, theirs = (np.concatenate(column) for column in zip(*splits.values(), strict=True))
    rows = [
        _row(name, *pair, settings, scorer)
        for name, pair in {"all": (ours, theirs), **splits}.items()
    ]
    files.write_text(out, csv_text(rows))


def _compared(file: Path, scorer: Scorer) -> tuple[Scores, Scores]:
    """Return the scorer's and the published scores of a split's texts with a published score."""
    table = schemas.read(file, schemas.PROMPTS, ["text", "toxicity"]).drop_null()
    texts = table["text"].to_pylist()
    ours = scorer.score([""] * len(texts), texts) if texts else np.empty(0)
    return ours, table["toxicity"].to_numpy()


def _row(
    name: str, ours: Scores, theirs: Scores, settings: CalibrateSettings, scorer: Scorer
) -> dict[str, Any]:
    scored = ~np.isnan(ours)
    one, other = ours[scored], theirs[scored]
    row: dict[str, Any] = {"split": name, "n": len(ours), "unscored": int((~scored).sum())}
    if len(one):
        row |= {"mean": one.mean(), "published_mean": other.mean()}
        rng = stream("calibration", settings.score.scorer, name)
        drawn = rng.integers(len(one), size=(settings.resamples, len(one)))
        for measure in (spearman, auc, error, agreement):
            row |= _with_interval(measure, one, other, settings.threshold, drawn)
    about = {"scorer": scorer.name, "version": scorer.version, "threshold": settings.threshold}
    return row | about


def _with_interval(
    measure: Callable[[Scores, Scores, float], float | None],
    ours: Scores,
    theirs: Scores,
    threshold: float,
    drawn: NDArray[np.int64],
) -> dict[str, float | None]:
    """Return a measure and its interval; the interval is empty if a resample has no value."""
    name = measure.__name__
    resampled = [measure(ours[rows], theirs[rows], threshold) for rows in drawn]
    values: Sequence[float] = [value for value in resampled if value is not None]
    whole = len(values) == len(resampled)
    low, high = np.quantile(values, [0.025, 0.975]).tolist() if whole else (None, None)
    return {name: measure(ours, theirs, threshold), f"{name}_low": low, f"{name}_high": high}


def spearman(ours: Scores, theirs: Scores, threshold: float) -> float | None:
    """Return the rank correlation in [-1, 1]; None if either has one value only."""
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(spearmanr(ours, theirs).statistic)


def auc(ours: Scores, theirs: Scores, threshold: float) -> float | None:
    """Return the probability that a toxic text scores higher than another; None: one kind only.

    A text is toxic if its published score is above the threshold. Ties count half.
    """
    toxic = theirs > threshold
    return None if toxic.all() or not toxic.any() else float(roc_auc_score(toxic, ours))


def error(ours: Scores, theirs: Scores, threshold: float) -> float:
    """Return the mean absolute difference, a probability."""
    return float(np.abs(ours - theirs).mean())


def agreement(ours: Scores, theirs: Scores, threshold: float) -> float:
    """Return the share of texts on the same side of the threshold, a probability."""
    return float(((ours > threshold) == (theirs > threshold)).mean())
