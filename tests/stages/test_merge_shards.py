"""Shards put together: the rows, the order and the bytes of the undivided table."""

from pathlib import Path

import pytest
import torch

from quark.core import schemas
from quark.core.files import DamagedError, read_json, report, sums
from quark.core.shards import ShardError
from quark.models.reference_cache import ReferenceCache
from quark.stages.merge_shards import merge_shards

PROMPTS = ["c", "a", "b"]


def samples(file: Path, prompts: list[str]) -> Path:
    rows = [(prompt, j) for prompt in prompts for j in range(2)]
    columns = {
        "row_id": [f"0/{prompt}/{j}" for prompt, j in rows],
        "prompt_id": [prompt for prompt, _ in rows],
        "sample": [j for _, j in rows],
        "prompt": [prompt for prompt, _ in rows],
        "response": [prompt * (j + 1) for prompt, j in rows],
        "prompt_ids": [[1]] * len(rows),
        "response_ids": [[j, j] for _, j in rows],
    }
    schemas.write(file, schemas.SAMPLES, columns, about={"precision": "fp32"})
    report(file, 0.0, rows=len(rows), tokens=2 * len(rows))
    return file


def likelihoods(file: Path, rows: list[str]) -> Path:
    columns = {
        "row_id": rows,
        "prompt_id": [row.split("/")[1] for row in rows],
        "nll": [float(ord(row[2])) for row in rows],
        "tokens": [1] * len(rows),
    }
    schemas.write(file, schemas.LIKELIHOODS, columns, about={"judge": "j"})
    report(file, 0.0, rows=len(rows), tokens=len(rows))
    return file


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    columns = {"prompt_id": PROMPTS, "text": PROMPTS, "source": ["s"] * 3, "toxic": [False] * 3}
    schemas.write(tmp_path / "prompts.parquet", schemas.PROMPTS, columns)
    return tmp_path / "prompts.parquet"


def test_samples_come_in_the_order_of_the_prompts(prompts: Path, tmp_path: Path) -> None:
    whole = samples(tmp_path / "whole.parquet", PROMPTS)
    parts = [
        samples(tmp_path / "1/samples.parquet", ["c", "b"]),
        samples(tmp_path / "2/samples.parquet", ["a"]),
        samples(tmp_path / "3/samples.parquet", []),  # more shards than batches
    ]
    merge_shards(parts, prompts, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()
    found = read_json(tmp_path / "out.json")
    assert (found["rows"], found["tokens"], found["shards"]) == (6, 12, 3)
    assert found["sha256"] == sums(tmp_path / "out.parquet")


def test_likelihoods_come_in_the_order_of_the_samples(tmp_path: Path) -> None:
    order = samples(tmp_path / "samples.parquet", PROMPTS)
    rows = [f"0/{prompt}/{j}" for prompt in PROMPTS for j in range(2)]
    whole = likelihoods(tmp_path / "whole.parquet", rows)
    parts = [
        likelihoods(tmp_path / f"{i}/likelihoods.parquet", part)
        for i, part in enumerate((rows[1::2], rows[::2]))
    ]
    merge_shards(parts, order, tmp_path / "out.parquet")
    assert (tmp_path / "out.parquet").read_bytes() == whole.read_bytes()


def test_what_was_kept_is_kept_together(prompts: Path, tmp_path: Path) -> None:
    parts, caches = [], []
    for number, prompt in enumerate(PROMPTS):
        folder = tmp_path / str(number)
        cache = ReferenceCache()
        cache.add([prompt], [2], torch.full((2, 3), float(number)))
        cache.save(folder / "samples.hidden.safetensors")
        caches.append(folder / "samples.hidden.safetensors")
        parts.append(samples(folder / "samples.parquet", [prompt]))
    merge_shards(
        parts, prompts, tmp_path / "out.parquet", caches, tmp_path / "out.hidden.safetensors"
    )
    found = ReferenceCache([tmp_path / "out.hidden.safetensors"]).get(
        ["b", "a"], torch.device("cpu")
    )
    assert found.tolist() == [[2.0] * 3] * 2 + [[1.0] * 3] * 2
    assert "out.hidden.safetensors" in read_json(tmp_path / "out.json")["sha256"]


def test_shards_that_do_not_fit(prompts: Path, tmp_path: Path) -> None:
    one = samples(tmp_path / "1/samples.parquet", ["a", "b"])
    other = samples(tmp_path / "2/samples.parquet", ["b"])
    with pytest.raises(ShardError, match=r"row 0/b/0 is in two shards \(2 such rows\)"):
        merge_shards([one, other], prompts, tmp_path / "out.parquet")
    with pytest.raises(ShardError, match=r"no shard has prompt_id c \(1 such\)"):
        merge_shards([one], prompts, tmp_path / "out.parquet")
    strange = samples(tmp_path / "3/samples.parquet", ["z"])
    with pytest.raises(ShardError, match="has no prompt_id z"):
        merge_shards([one, strange], prompts, tmp_path / "out.parquet")
    one.write_bytes(one.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"samples\.parquet: damaged"):
        merge_shards([one], prompts, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
