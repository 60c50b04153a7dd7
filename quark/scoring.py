"""Score: what the task's scorer says of each response. Needs no torch unless the scorer does."""

import time
from pathlib import Path

import numpy as np

from quark import files, schemas
from quark.scorers import load_scorer
from quark.settings import ScoreSettings


def score_stage(settings: ScoreSettings, samples: Path, out: Path) -> None:
    """Score each response; a row that the scorer failed on gets null, never a good score."""
    begun = time.monotonic()
    table = schemas.read(samples, schemas.SAMPLES, ["row_id", "prompt_id", "prompt", "response"])
    scorer = load_scorer(settings.scorer)
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
