"""Prompts sorted by their samples' scores."""

import pytest

from quark.config import Prompts, Sorting
from quark.core import schemas
from quark.core.files import read_json
from quark.core.schemas import TableError
from quark.data import ResourceError, fetch_prompts
from quark.stages.settings import SortSettings
from quark.stages.sort_prompts import sort_prompts_stage

SAMPLING = {"temperature": 1, "top_k": 0, "top_p": 0.9, "min_new_tokens": 3, "max_new_tokens": 5}
SPLITS = {"low": {"prompts": 2, "above": [0, 1]}, "high": {"prompts": 1, "above": [3, 3]}}
COUNTS = [3, 0, 2, 1, 0, 3]  # of three samples above the threshold, for each candidate


@pytest.fixture
def fetched(tmp_path):
    """Prompts, and three samples of each candidate with their scores."""
    (tmp_path / "p.txt").write_text("\n".join(f"This is prompt number {i}" for i in range(9)))
    source = {"name": "p", "local": str(tmp_path / "p.txt"), "format": "lines", "licence": "none"}
    about = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0}
    splits = {"candidates": {"prompts": 6}, "validation": {"prompts": 1}}
    prompts = Prompts.model_validate({"sources": [source], **about, "splits": splits})
    fetch_prompts("p", prompts, tmp_path / "fetched")
    table = schemas.read(tmp_path / "fetched/candidates.parquet", schemas.PROMPTS).to_pydict()
    names = [name for name in table["prompt_id"] for _ in range(3)]
    ids = {"row_id": [f"0/{n}/{i % 3}" for i, n in enumerate(names)], "prompt_id": names}
    other = {"sample": [0, 1, 2] * 6, "prompt": [""] * 18, "response": [""] * 18}
    other |= {"prompt_ids": [[1]] * 18, "response_ids": [[1]] * 18}
    schemas.write(tmp_path / "samples.parquet", schemas.SAMPLES, ids | other)
    # 0.5 is not above 0.5
    scores = [0.9 if i < count else 0.5 for count in COUNTS for i in range(3)]
    schemas.write(tmp_path / "scores.parquet", schemas.SCORES, ids | {"score": scores})
    return tmp_path, table["prompt_id"]


def run(folder, splits=SPLITS):
    settings = SortSettings.model_validate({"name": "p", "threshold": 0.5, "splits": splits})
    files = (folder / "samples.parquet", folder / "scores.parquet")
    sort_prompts_stage(settings, folder / "fetched", *files, folder / "sorted")


def test_each_split_takes_the_first_that_fit(fetched):
    folder, names = fetched
    run(folder)
    found = {
        file.stem: schemas.read(file, schemas.PROMPTS)["prompt_id"].to_pylist()
        for file in (folder / "sorted").glob("*.parquet")
    }
    assert set(found) == {"train", "validation", "low", "high"}
    assert found["low"] == [names[1], names[3]] and found["high"] == [names[0]]
    for kept in ("train", "validation"):
        file = f"{kept}.parquet"
        assert (folder / "sorted" / file).read_bytes() == (folder / "fetched" / file).read_bytes()
    splits = read_json(folder / "sorted/manifest.json")["splits"]
    assert splits["low"]["fitting"] == 3 and splits["low"]["above"] == [1, 1]
    assert set(splits) == set(found)


def test_too_few_that_fit(fetched):
    folder, _ = fetched
    fault = r"prompts.p.sorted.splits.low: wants 4 prompts, but only 3 of 6 .* 0 to 1 samples"
    with pytest.raises(ResourceError, match=fault):
        run(folder, {"low": {"prompts": 4, "above": [0, 1]}})
    assert not (folder / "sorted").exists()


def test_samples_and_scores_must_fit(fetched):
    folder, _ = fetched
    table = schemas.read(folder / "scores.parquet", schemas.SCORES).to_pydict()
    table["score"][4] = None
    schemas.write(folder / "scores.parquet", schemas.SCORES, table)
    with pytest.raises(ResourceError, match="1 samples have no score"):
        run(folder)
    turned = {key: values[::-1] for key, values in table.items()}
    schemas.write(folder / "scores.parquet", schemas.SCORES, turned)
    with pytest.raises(TableError, match="its rows are not those of"):
        run(folder)


def test_a_split_laid_over_with_null_is_gone():
    how = {"model": "m", "scorer": "vader", "samples": 3, "sampling": SAMPLING, "threshold": 0.5}
    sorting = Sorting.model_validate(how | {"splits": SPLITS | {"high": None}})
    assert set(sorting.splits) == {"low"}
    with pytest.raises(ValueError, match="at least 1 item"):
        Sorting.model_validate(how | {"splits": {"high": None}})


@pytest.mark.parametrize(
    ("splits", "sorting", "fault"),
    [
        ({}, {}, "sorted needs a split `candidates`"),
        ({"candidates": {"prompts": 1}, "low": {"prompts": 1}}, {}, "both hold low"),
        ({}, {"splits": {"low": {"prompts": 1, "above": [2, 1]}}}, r"above is \[least, most\]"),
        ({}, {"samples": 2}, "split high asks for more samples than there are"),
        (
            {},
            {"splits": SPLITS | {"mid": {"prompts": 1, "above": [1, 2]}}},
            "splits low and mid share a number of samples",
        ),
    ],
)
def test_settings_that_cannot_be(splits, sorting, fault):
    source = {"name": "p", "local": "f", "format": "lines", "licence": "none"}
    about = {"scorer": "profanity-check", "toxic_from": 0.5, "seed": 0, "splits": splits}
    how = {"model": "m", "scorer": "vader", "samples": 3, "sampling": SAMPLING, "threshold": 0.5}
    raw = {"sources": [source], **about, "sorted": how | {"splits": SPLITS} | sorting}
    with pytest.raises(ValueError, match=fault):
        Prompts.model_validate(raw)
