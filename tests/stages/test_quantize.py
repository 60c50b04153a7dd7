from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quark.core import schemas
from quark.core.files import read_json, sums
from quark.core.schemas import TableError
from quark.stages.quantize import FailedScoresError, quantize_stage


def write_round(folder: Path, iteration: int, scores: Sequence[float | None]) -> tuple[Path, Path]:
    """Samples of one prompt each, and their scores."""
    rows = [f"{iteration}/p{i}/0" for i in range(len(scores))]
    prompts = [f"p{i}" for i in range(len(scores))]
    folder /= f"iteration-{iteration}"
    samples, scored = folder / "samples.parquet", folder / "scores.parquet"
    columns = {
        "row_id": rows,
        "prompt_id": prompts,
        "sample": [0] * len(rows),
        "prompt": ["a"] * len(rows),
        "response": ["b"] * len(rows),
        "prompt_ids": [[i, i] for i in range(len(rows))],
        "response_ids": [[iteration, i] for i in range(len(rows))],
    }
    schemas.write(samples, schemas.SAMPLES, columns)
    columns = {"row_id": rows, "prompt_id": prompts, "score": list(scores)}
    schemas.write(scored, schemas.SCORES, columns)
    return samples, scored


def run(rounds: Sequence[tuple[Path, Path]], out: Path, **keys: Any) -> None:
    samples, scores = zip(*rounds, strict=True)
    settings: dict[str, Any] = {"reward": lambda score: 1 - score, "k": 2, "max_failed": 0.25}
    quantize_stage(samples, scores, out, **{"seed_name": "1/test"} | settings | keys)


def test_shuffled_rows_go_where_their_stream_deals_them(tmp_path: Path) -> None:
    scores = [i / 40 for i in range(40)]
    rounds = [write_round(tmp_path, 0, scores)]
    placed = []
    for ties, shuffle in (("iteration-0", "1/x"), ("iteration-1", "1/x"), ("iteration-0", "2/x")):
        run(rounds, tmp_path / "pool.parquet", k=4, shuffle=shuffle, seed_name=ties)
        placed.append(schemas.read(tmp_path / "pool.parquet", schemas.POOL).to_pydict())
    assert placed[0]["quantile"] == placed[1]["quantile"] != placed[2]["quantile"]
    assert placed[0]["reward"] == [1 - score for score in scores]
    assert np.bincount(placed[0]["quantile"]).tolist() == [10] * 4
    assert abs(np.corrcoef(placed[0]["quantile"], scores)[0, 1]) < 0.4  # sorted: 0.97


def test_each_iteration_is_sorted_by_itself(tmp_path: Path) -> None:
    rounds = [write_round(tmp_path, 0, [0.1, 0.2, 0.3, 0.4]), write_round(tmp_path, 1, [0.9, 0.8])]
    found = {}
    for within in ("pool", "iteration"):
        run(rounds, tmp_path / "pool.parquet", within=within)
        table = schemas.read(tmp_path / "pool.parquet", schemas.POOL).to_pydict()
        found[within] = table["quantile"]
    assert found == {"pool": [0, 0, 0, 1, 1, 1], "iteration": [0, 0, 1, 1, 1, 0]}


def test_two_iterations(tmp_path: Path) -> None:
    first = write_round(tmp_path, 0, [0.5, 0.25, None, 1.0])
    second = write_round(tmp_path, 1, [0.0, 0.75, 0.125])
    out = tmp_path / "pool.parquet"
    run([first, second], out)

    found = schemas.read(out, schemas.POOL).to_pydict()
    assert found["row_id"] == ["0/p0/0", "0/p1/0", "0/p3/0", "1/p0/0", "1/p1/0", "1/p2/0"]
    assert found["reward"] == [0.5, 0.75, 0, 1, 0.25, 0.875]
    assert found["quantile"] == [1, 0, 1, 0, 1, 0]
    assert found["iteration"] == [0, 0, 0, 1, 1, 1]
    assert found["prompt_ids"][2] == [3, 3] and found["response_ids"][4] == [1, 1]
    assert read_json(out.with_suffix(".json")) == {
        "sha256": sums(out),
        "iteration": 1,
        "rows": 6,
        "dropped": 1,
        "mean_reward": 2.125 / 3,
        "pool_mean_reward": 3.375 / 6,
        "quantile_edges": [1, 0.75, 0],
        "quantile_mean_reward": [0.875, 0.25],
    }


def test_equal_scores_fall_by_name_not_by_age(tmp_path: Path) -> None:
    rounds = [write_round(tmp_path, i, [0.5] * 20) for i in range(2)]
    run(rounds, tmp_path / "pool.parquet")
    pool = schemas.read(tmp_path / "pool.parquet", schemas.POOL)
    best = pool["iteration"].to_numpy()[pool["quantile"].to_numpy() == 0]
    assert len(best) == 20 and 0 < np.sum(best == 1) < 20


def test_too_many_failures(tmp_path: Path) -> None:
    rounds = [write_round(tmp_path, 0, [0.5, None, None, 1.0])]
    out = tmp_path / "pool.parquet"
    with pytest.raises(FailedScoresError, match="2 of 4 samples have no score"):
        run(rounds, out)
    assert not out.exists()
    run(rounds, out, max_failed=0.5)
    assert schemas.read(out, schemas.POOL).num_rows == 2


def test_nan_is_no_score(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="row 0/p1/0: score is NaN"):
        run([write_round(tmp_path, 0, [0.5, float("nan")])], tmp_path / "pool.parquet")


def test_scores_of_other_samples(tmp_path: Path) -> None:
    samples, _ = write_round(tmp_path, 0, [0.5, 0.5])
    _, scores = write_round(tmp_path, 1, [0.5, 0.5])
    with pytest.raises(TableError, match=r"its rows are not those of .*samples\.parquet"):
        run([(samples, scores)], tmp_path / "pool.parquet")
