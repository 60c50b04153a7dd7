"""Sort prompts by the base model's output on them (DExperts; protocol 3).

A candidate's split depends on how many of its samples score above a threshold. DExperts' negative
prompts had 0 of 25 positive continuations, neutral ones 12 or 13, positive ones 25 or 24. The
samples that sort a prompt are not used to evaluate it. So the base model's row in the table is a
measurement, while the published row repeats the selection (protocol 9.4).
"""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa

from quark.core import schemas
from quark.core.files import read_json, sums, whole, write_json
from quark.data.fetch import ResourceError
from quark.stages.settings import SortSettings

CANDIDATES = "candidates"
"""The split whose prompts are sorted."""


def sort_prompts_stage(
    settings: SortSettings, prompts: Path, samples: Path, scores: Path, out: Path
) -> None:
    """Write the directory `out`: all splits of `prompts` except candidates, and the sorted splits.

    A split takes its prompts in the order of the candidates, which is random.

    Args:
        settings: the threshold and the splits.
        prompts: directory that `fetch_prompts` wrote, with the split `candidates`.
        samples: the base model's samples for every candidate; schema SAMPLES.
        scores: the scores of these samples; schema SCORES.
        out: the new directory, in the form of `prompts`.

    Raises:
        TableError: samples and scores hold different rows.
        ResourceError: a score is missing, or too few candidates fit a split.
    """
    candidates = schemas.read(prompts / f"{CANDIDATES}.parquet", schemas.PROMPTS)
    counts = _above(samples, scores, settings.threshold)
    found = np.array([counts[name] for name in candidates["prompt_id"].to_pylist()])
    manifest = read_json(prompts / "manifest.json")
    splits = {k: v for k, v in manifest["splits"].items() if k != CANDIDATES}
    with whole(out) as made:
        made.mkdir()
        for name in splits:
            shutil.copyfile(prompts / f"{name}.parquet", made / f"{name}.parquet")
        for name, split in settings.splits.items():
            least, most = split.above
            fitting = np.flatnonzero((found >= least) & (found <= most))
            if len(fitting) < split.prompts:
                raise ResourceError(
                    f"prompts.{settings.name}.sorted.splits.{name}: wants {split.prompts} prompts, "
                    f"but only {len(fitting)} of {len(found)} candidates have {least} to {most} "
                    f"samples above {settings.threshold}; widen `above`, or request fewer"
                )
            table: pa.Table = candidates.take(fitting[: split.prompts])
            about = {"prompts": settings.name, "split": name}
            schemas.write(made / f"{name}.parquet", schemas.PROMPTS, table.to_pydict(), about=about)
            splits[name] = {
                "prompts": split.prompts,
                "fitting": len(fitting),
                "above": [int(n) for n in np.bincount(found[fitting[: split.prompts]])],
            }
        known = sums(*(made / f"{name}.parquet" for name in splits))
        write_json(made / "manifest.json", {**manifest, "splits": splits, "sha256": known})


def _above(samples: Path, scores: Path, threshold: float) -> dict[str, int]:
    """Return how many samples of each prompt score above the threshold."""
    table = schemas.read_scored(samples, scores, ["row_id", "prompt_id"])
    if missing := table["score"].null_count:
        raise ResourceError(f"{scores}: {missing} samples have no score; score again")
    above: dict[str, int] = {}
    for name, score in zip(table["prompt_id"].to_pylist(), table["score"].to_pylist(), strict=True):
        above[name] = above.get(name, 0) + (score > threshold)
    return above
