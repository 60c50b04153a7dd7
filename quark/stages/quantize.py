"""The pool: all samples of iterations 0..i with rewards, sorted into quantiles each time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quark.core import schemas
from quark.core.files import again, sums, write_json
from quark.core.seeds import ranks
from quark.maths.quantiles import edges, quantiles


class FailedScoresError(RuntimeError):
    """More samples have no score than the configuration allows."""


def quantize_stage(
    samples: Sequence[Path],
    scores: Sequence[Path],
    out: Path,
    *,
    reward: Callable[[np.ndarray], np.ndarray],
    k: int,
    max_failed: float,
    seed_name: str,
    within: Literal["pool", "iteration"] = "pool",
    shuffle: str | None = None,
) -> None:
    """Write the pool to `out` (schema POOL), and a JSON summary of this iteration beside it.

    Args:
        samples: the tables of iterations 0..i, in this order; schema SAMPLES.
        scores: the scores of these samples, in the same rows; schema SCORES.
        out: the pool's Parquet file.
        reward: turns scores into rewards in [0, 1], higher is better.
        k: number of quantiles.
        max_failed: largest share of this iteration's rows that may have no score.
        seed_name: name of the random stream that orders rows of equal reward.
        within: which rows are sorted together: the whole pool, as in the paper, or each iteration's
            rows alone, so that quantiles do not distinguish iterations.
        shuffle: name of a random stream that assigns rows to quantiles, independent of the reward;
            None: the reward assigns them.

    Raises:
        TableError: a table is broken, samples and scores hold different rows, or a score is NaN.
        FailedScoresError: too many scores are null.
    """
    rounds = [_round(i, *pair) for i, pair in enumerate(zip(samples, scores, strict=True))]
    check_failed(rounds[-1], scores[-1], max_failed)
    pool = pa.concat_tables(rounds)
    pool = pool.filter(pc.is_valid(pool["score"]))
    rewards, names = reward(pool["score"].to_numpy()), pool["row_id"].to_pylist()
    by = ranks(shuffle, names).astype(np.float64) if shuffle else rewards
    ties, iteration = ranks(seed_name, names), pool["iteration"].to_numpy()
    group = iteration if within == "iteration" else np.zeros_like(iteration)
    quantile = np.empty(len(names), dtype=np.int32)
    for each in np.unique(group):
        own = group == each
        quantile[own] = quantiles(by[own], ties[own], k)
    columns: dict[str, Any] = {
        name: pool[name]
        for name in ("row_id", "prompt_id", "iteration", "prompt_ids", "response_ids")
    }
    schemas.write(out, schemas.POOL, {**columns, "reward": rewards, "quantile": quantile})
    recent = iteration == len(rounds) - 1
    summary = {
        "iteration": len(rounds) - 1,
        "rows": pool.num_rows,
        "dropped": sum(table["score"].null_count for table in rounds),
        "mean_reward": float(rewards[recent].mean()) if recent.any() else None,
        "pool_mean_reward": float(rewards.mean()),
        "quantile_edges": edges(rewards, quantile, k),
        "quantile_mean_reward": [float(rewards[quantile == i].mean()) for i in range(k)],
    }
    write_json(out.with_suffix(".json"), summary | {"sha256": sums(out)})


def check_failed(scored: pa.Table, file: Path, max_failed: float) -> None:
    """Check that the scorer failed on at most a share `max_failed` of the rows.

    Raises:
        FailedScoresError: the scorer failed on more rows.
    """
    failed = scored["score"].null_count
    if failed > max_failed * scored.num_rows:
        raise FailedScoresError(
            f"{file}: {failed} of {scored.num_rows} samples have no score, more than the "
            f"share {max_failed} that quark.max_failed_scores allows. Repair the scorer and score "
            f"again, with the run's --configfile if it has one: {again(file)}"
        )


def _round(iteration: int, samples: Path, scores: Path) -> pa.Table:
    """Return one iteration's samples with their scores; null: the scorer failed."""
    wanted = ["row_id", "prompt_id", "prompt_ids", "response_ids"]
    rows = schemas.read_scored(samples, scores, wanted)
    index = pa.array(np.full(rows.num_rows, iteration, dtype=np.int32))
    return rows.append_column("iteration", index)
