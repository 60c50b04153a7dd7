"""Score: what the task's scorer says of each response. Needs no torch unless the scorer does."""

import time
from collections import Counter
from pathlib import Path

import numpy as np

from quark import files, schemas
from quark.scorers import Scorer, ScorerError, load_scorer, why
from quark.settings import ScoreSettings


def scorer_of(settings: ScoreSettings, classifier: Path | None, cache: Path | None) -> Scorer:
    """The scorer that a stage asks.

    Only a service's scores are kept: what is computed here costs little, and a classifier's last
    digits may depend on what it reads together, so that bytes would depend on what was known.

    Args:
        settings: which.
        classifier: its directory, if it is a classifier.
        cache: where scores of a service are kept, if it is one.

    Raises:
        ScorerError: there is no such scorer, or its directory, its cache or its key is missing.
    """
    if settings.classifier is not None:
        if classifier is None:
            raise ScorerError(f"{settings.scorer} is a classifier: give its directory")
        from quark.scorers.classifier import Classifier

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
) -> None:
    """Score each response; a row that the scorer failed on gets null, never a good score."""
    begun = time.monotonic()
    table = schemas.read(samples, schemas.SAMPLES, ["row_id", "prompt_id", "prompt", "response"])
    scorer = scorer_of(settings, classifier, cache)
    prompts, responses = table["prompt"].to_pylist(), table["response"].to_pylist()
    scores = scorer.score(prompts, responses)
    failed = np.isnan(scores)
    rows = zip(prompts, responses, failed, strict=True)
    errors = [why(scorer, *texts) if bad else None for *texts, bad in rows]
    schemas.write(
        out,
        schemas.SCORES,
        {
            "row_id": table["row_id"],
            "prompt_id": table["prompt_id"],
            "score": [None if bad else score for score, bad in zip(scores, failed, strict=True)],
            "error": errors,
        },
        about={"scorer": scorer.name, "version": scorer.version},
    )
    files.report(
        out,
        begun,
        rows=len(scores),
        failed=int(failed.sum()),
        scorer=scorer.name,
        scorer_version=scorer.version,
        errors=dict(Counter(error for error in errors if error)),
        mean_score=None if failed.all() else float(np.nanmean(scores)),
    )
