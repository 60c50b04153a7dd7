"""Score: what the task's scorer says of each response. Needs no torch unless the scorer does."""

import time
from pathlib import Path

import numpy as np

from quark import files, schemas
from quark.scorers import Scorer, ScorerError, load_scorer
from quark.settings import CorpusSettings, ScoreSettings


def scorer_of(settings: ScoreSettings | CorpusSettings, classifier: Path | None) -> Scorer:
    """The scorer that a stage asks.

    Args:
        settings: which.
        classifier: its directory, if it is a classifier.

    Raises:
        ScorerError: there is no such scorer, or its directory is missing.
    """
    if settings.classifier is None:
        return load_scorer(settings.scorer)
    if classifier is None:
        raise ScorerError(f"{settings.scorer} is a classifier: give its directory")
    from quark.scorers.classifier import Classifier

    return Classifier(settings.scorer, settings.classifier, classifier)


def score_stage(
    settings: ScoreSettings, samples: Path, out: Path, classifier: Path | None = None
) -> None:
    """Score each response; a row that the scorer failed on gets null, never a good score."""
    begun = time.monotonic()
    table = schemas.read(samples, schemas.SAMPLES, ["row_id", "prompt_id", "prompt", "response"])
    scorer = scorer_of(settings, classifier)
    scores = scorer.score(table["prompt"].to_pylist(), table["response"].to_pylist())
    failed = np.isnan(scores)
    schemas.write(
        out,
        schemas.SCORES,
        {
            "row_id": table["row_id"],
            "prompt_id": table["prompt_id"],
            "score": [None if bad else score for score, bad in zip(scores, failed, strict=True)],
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
        mean_score=None if failed.all() else float(np.nanmean(scores)),
    )
