"""Score: what the task's scorer says of each response. Needs no torch unless the scorer does."""

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
"""Rows given to the scorer at once, of one shard: a classifier's last digits may depend on them."""


def scorer_of(
    settings: ScoreSettings,
    classifier: Path | None,
    cache: Path | None,
    threads: int | None = None,
) -> Scorer:
    """The scorer that a stage asks.

    Only a service's scores are kept: what is computed here costs little, and a classifier's last
    digits may depend on what it reads together, so that bytes would depend on what was known.

    Args:
        settings: which.
        classifier: its directory, if it is a classifier.
        cache: where scores of a service are kept, if it is one.
        threads: of a scorer that needs torch; None: torch's threads stay as they are.

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
    """Score each response; a row that the scorer failed on gets null, never a good score.

    Args:
        settings: who scores.
        samples: schema SAMPLES.
        out: schema SCORES, in the order of the samples.
        classifier: the scorer's directory, if it is a classifier.
        cache: where scores of a service are kept, if it is one.
        shard: whose rows are scored.
        threads: of a scorer that needs torch; None: torch's threads stay as they are.

    Raises:
        ScorerError: the scorer cannot work, or gives a score outside [0, 1].
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
    """What a table of scores comes to: its scorer, its failures, the mean of the other scores."""
    known = [score for score in columns["score"] if score is not None]
    return {
        "failed": len(columns["score"]) - len(known),
        "scorer": about["scorer"],
        "scorer_version": about["version"],
        "errors": dict(Counter(error for error in columns["error"] if error)),
        "mean_score": float(np.mean(known)) if known else None,
    }
