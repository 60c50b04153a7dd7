"""Score each response with the task's scorer. Torch is needed only if the scorer needs it."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quark.core import files, schemas
from quark.core.shards import WHOLE, Shard
from quark.scorers import Scorer, ScorerError, load_scorer, why
from quark.stages.settings import ScoreSettings
from quark.stages.threads import use_threads

TOGETHER = 1024
"""Rows of a shard that are scored at once; a classifier's last digits may depend on this."""


def scorer_of(
    settings: ScoreSettings,
    classifier: Path | None,
    cache: Path | None,
    threads: int | None = None,
) -> Scorer:
    """Return the scorer of a stage.

    Only a service's scores are cached. Local scores cost little. A classifier's last digits may
    depend on the texts that it reads together, so with a cache its output would depend on the
    texts that were scored before.

    Args:
        settings: the scorer's name and settings.
        classifier: directory of the scorer, if it is a classifier.
        cache: file that stores the scorer's scores, if it is a service.
        threads: threads of a scorer that needs torch; None: torch's setting is not changed.

    Raises:
        ScorerError: there is no such scorer, or its directory, its cache or its key is missing.
    """
    if settings.classifier is not None:
        if classifier is None:
            raise ScorerError(f"{settings.scorer} is a classifier: give its directory")
        from quark.scorers.tox_block import FORMAT, ToxBlock

        if files.read_json(classifier / "manifest.json").get("format") == FORMAT:
            return ToxBlock(settings.scorer, settings.classifier, classifier)
        from quark.scorers.classifier import Classifier

        if threads is not None:
            use_threads(threads)
        return Classifier(settings.scorer, settings.classifier, classifier)
    if settings.function is not None:
        from quark.scorers.function import Function

        return Function(settings.scorer, settings.function.place, settings.function.version)
    if settings.perspective is not None:
        if cache is None:
            raise ScorerError(f"{settings.scorer} is a service: give a cache of scores")
        from quark.scorers.cache import Cached, ScoreCache
        from quark.scorers.perspective import PerspectiveAPI

        kept = ScoreCache(cache)
        service = PerspectiveAPI(settings.perspective, kept)
        return Cached(service, kept, service.chunk)
    return load_scorer(settings.scorer)


def score_stage(
    settings: ScoreSettings,
    samples: Path,
    out: Path,
    classifier: Path | None = None,
    cache: Path | None = None,
    shard: Shard = WHOLE,
    threads: int | None = None,
) -> None:
    """Score each response; a row on which the scorer failed gets null, never a good score.

    Args:
        settings: the scorer's name and settings.
        samples: the samples; schema SAMPLES.
        out: the scores, in the order of the samples; schema SCORES.
        classifier: directory of the scorer, if it is a classifier.
        cache: file that stores the scorer's scores, if it is a service.
        shard: the shard whose rows are scored.
        threads: threads of a scorer that needs torch; None: torch's setting is not changed.

    Raises:
        ScorerError: the scorer cannot work, or returns a score outside [0, 1].
    """
    begun = time.monotonic()
    table = schemas.read(samples, schemas.SAMPLES, ["row_id", "prompt_id", "prompt", "response"])
    scorer = scorer_of(settings, classifier, cache, threads)
    columns: dict[str, list[Any]] = {name: [] for name in schemas.SCORES.names}
    for rows in shard.of(table.slice(i, TOGETHER) for i in range(0, table.num_rows, TOGETHER)):
        texts = rows["prompt"].to_pylist(), rows["response"].to_pylist()
        scores = scorer.score(*texts)
        if len(outside := np.flatnonzero((scores < 0) | (scores > 1))):
            row = int(outside[0])
            raise ScorerError(
                f"{scorer.name}: score {scores[row]} of {rows['row_id'][row]} is not in [0, 1]"
            )
        failed = np.isnan(scores)
        for name in ("row_id", "prompt_id"):
            columns[name] += rows[name].to_pylist()
        columns["score"] += [
            None if bad else score for score, bad in zip(scores, failed, strict=True)
        ]
        columns["error"] += [
            why(scorer, prompt, response) if bad else None
            for prompt, response, bad in zip(*texts, failed, strict=True)
        ]
    about = {"scorer": scorer.name, "version": scorer.version}
    schemas.write(out, schemas.SCORES, columns, about=about)
    files.report(out, begun, rows=len(columns["score"]), **summary(about, columns))


def summary(about: Mapping[str, str], columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Summarise a table of scores: its scorer, its failures, and the mean of the other scores."""
    known = [score for score in columns["score"] if score is not None]
    return {
        "failed": len(columns["score"]) - len(known),
        "scorer": about["scorer"],
        "scorer_version": about["version"],
        "errors": dict(Counter(error for error in columns["error"] if error)),
        "mean_score": float(np.mean(known)) if known else None,
    }
