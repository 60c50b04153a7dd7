"""Stages cut into shards: the same bytes, however many there are."""

import pytest

pytestmark = pytest.mark.slow
ITERATION = "results/toxicity/quark/seed-1/iteration-0"
EVALUATED = "results/toxicity/base/seed-1/evaluation/nontoxic/nucleus"


def test_shards_give_the_bytes_of_the_undivided_stages(finished, tmp_path):
    twin = finished.copy(tmp_path / "run")
    files = (
        *(f"{ITERATION}/{name}.parquet" for name in ("samples", "scores")),
        *(f"{EVALUATED}/{name}.parquet" for name in ("generations", "scores", "likelihoods")),
    )
    for name in files:
        (twin.folder / name).unlink()
    # All have the same memory and one batch, so likelihoods (`base_nll`) are rounded alike.
    options = ["--set-scatter", "shards=3"]
    planned = twin.planned(*options, targets=files)
    assert planned == {
        "sample_shard": 3, "gather_samples": 1,
        "score_shard": 3, "gather_scores": 1,
        "generate_shard": 3, "gather_generations": 1,
        "score_generations_shard": 3, "gather_generation_scores": 1,
        "judge_shard": 3, "gather_likelihoods": 1,
    }  # fmt: skip
    twin.run(*options, targets=files)
    for name in files:
        assert (twin.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert not list(twin.folder.glob("results/**/shard-*/*.parquet")), "shards are temporary"
