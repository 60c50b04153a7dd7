import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quark.config import (
    Mauve,
    ModelSource,
    RandomModel,
)
from quark.core import schemas
from quark.data import fetch_model
from quark.stages import mauve as module
from quark.stages.settings import MauveSettings


def test_mauve_is_given_the_features_of_both_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = RandomModel(architecture="gpt2", layers=1, width=8, heads=1, context=32, seed=0)
    fetch_model("m", ModelSource(random=random, licence="none"), tmp_path / "m")
    texts, n = ["one text", "", "another"], 3
    ids = {"row_id": ["0/p/0", "0/p/1", "0/q/0"], "prompt_id": ["p", "p", "q"], "sample": [0, 1, 0]}
    columns = {"prompt": ["x"] * n, "response": texts, "prompt_ids": [[1]] * n}
    schemas.write(
        tmp_path / "g.parquet", schemas.SAMPLES, {**ids, **columns, "response_ids": [[1]] * n}
    )
    real = {"prompt_id": ["p", "q"], "prompt_ids": [[1]] * 2, "text_ids": [[65, 66], [67]]}
    real |= {"predicted": [[1, 1], [1]], "nll": [0.0, 0.0]}
    schemas.write(tmp_path / "p.parquet", schemas.PREDICTIONS, real)
    given: dict[str, Any] = {}

    def measure(real: Any, written: Any, how: Mauve) -> float:
        given.update(real=real, written=written)
        return 0.25

    monkeypatch.setattr(module, "mauve", measure)
    how = Mauve(model="m", tokens=4, buckets=None, scaling=5, seed=25)
    module.mauve_stage(
        MauveSettings(version=1, mauve=how, precision="fp32"),
        tmp_path / "g.parquet",
        tmp_path / "p.parquet",
        tmp_path / "m",
        tmp_path / "m",
        tmp_path / "mauve.json",
        memory_mb=4000,
    )
    assert given["real"].shape == (2, 8) and given["written"].shape == (3, 8)
    assert np.ptp(given["written"], axis=0).any()  # no two texts alike
    found = json.loads((tmp_path / "mauve.json").read_text())
    assert (found["mauve"], found["texts"], found["real_texts"]) == (0.25, 3, 2)
    assert found["mauve"] == 0.25 and found["version"] == 1
