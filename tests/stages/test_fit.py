"""Parts of baselines, and PPO, from file to file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import EMBEDDING, LINEAR, under_token

from quark.config import ConfigError, Place, RewardTokens, load
from quark.config.registry import parts
from quark.core import schemas
from quark.methods import guided
from quark.methods.gedi import FIRST_SCALE
from quark.models.checkpoint import load_policy, read_about
from quark.models.lm import Policy
from quark.stages.fit import fit_stage
from quark.stages.settings import FitSettings

CONFIG = load([Path(__file__).parents[2] / "config/config.yaml"])
QUICK = {"batch": 8, "learning_rate": 1e-2, "warmup_steps": 0, "trained_layers": 1, "epochs": 3}
WANTED, UNWANTED = [7, 8], [9, 10]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    label = [i % 2 for i in range(64)]
    columns: dict[str, Any] = {"row_id": list(map(str, range(64))), "source": ["samples"] * 64}
    columns |= {"label": label, "prompt_ids": rng.integers(20, 90, (64, 2)).tolist()}
    columns |= {"response_ids": [UNWANTED if k else WANTED for k in label]}
    schemas.write(tmp_path / "corpus.parquet", schemas.CORPUS, columns)
    return tmp_path / "corpus.parquet"


def fit(
    part: str,
    corpus: Path,
    model: Path,
    out: Path,
    form: RewardTokens = EMBEDDING,
    **changed: Any,
) -> dict[str, Any]:
    how = {} if part == "classifier" else parts()[part].training(CONFIG).model_dump()
    how |= QUICK | changed
    settings = FitSettings.model_validate(
        {"version": 1, "stream": "s", "part": part, "precision": "fp32"}
        | {"training": None if part == "classifier" else how}
        | {"reward_tokens": form if part == "gedi" else None}
    )
    fit_stage(settings, corpus, model, out / "checkpoint", memory_mb=4000)
    found: dict[str, Any] = json.loads((out / "training.json").read_text())
    return found


def preference(policy: Policy, token: int = 0) -> float:
    """How much likelier the wanted response is than the other, in nats, on average."""
    gaps = []
    for prompt in np.random.default_rng(1).integers(20, 90, (10, 2)).tolist():
        both = []
        for response in (WANTED, UNWANTED):
            logprobs = under_token(policy, token, prompt, response)[:-1].log_softmax(-1)
            both.append(logprobs[range(2), response].sum().item())
        gaps.append(both[0] - both[1])
    return float(np.mean(gaps))


@pytest.mark.parametrize(("part", "sign"), [("dapt", 1), ("expert", 1), ("anti-expert", -1)])
def test_a_model_learns_its_class(
    part: str, sign: int, corpus: Path, model: Path, tmp_path: Path
) -> None:
    found = fit(part, corpus, model, tmp_path / part)
    base = load_policy(model, None, "fp32")
    policy = load_policy(model, tmp_path / part / "checkpoint", "fp32")
    assert sign * (preference(policy) - preference(base)) > 2
    assert found["rows"] == 3 * 32 and len(found["steps"]) == 3 * 4
    assert found["steps"][-1]["loss"] < found["steps"][0]["loss"]
    same = [
        torch.equal(one, other)
        for one, other in zip(policy.parameters(), base.parameters(), strict=True)
    ]
    assert any(same) and not all(same)  # one layer of two


@pytest.mark.parametrize(
    ("form", "changed"),
    [
        (EMBEDDING, {}),
        (LINEAR, {"trained_layers": 0, "epochs": 8, "token_learning_rate": 1e-2}),
    ],
    ids=["embedding", "linear"],
)
def test_gedi_learns_both(
    form: RewardTokens, changed: dict[str, Any], corpus: Path, model: Path, tmp_path: Path
) -> None:
    found = fit("gedi", corpus, model, tmp_path / "gedi", form, **changed)
    policy = load_policy(model, tmp_path / "gedi/checkpoint", "fp32")
    wanted, other = (preference(policy, k) for k in (0, 1))
    assert wanted > other + 1
    assert found["rows"] == changed.get("epochs", 3) * 64
    assert found["steps"][-1]["right"] > 0.9 > found["steps"][0]["right"]
    assert read_about(tmp_path / "gedi/checkpoint")["scale"] != pytest.approx(FIRST_SCALE)


@pytest.mark.parametrize("names", [["map"], ["expert-map", "anti-expert-map"]])
def test_maps_learn_their_classes(
    names: list[str], corpus: Path, model: Path, tmp_path: Path
) -> None:
    """Each map separates the classes at its places; their sum does so when decoding."""
    for name in names:
        changed = {"trained_layers": 0, "epochs": 8, "learning_rate": 1e-2}
        found = fit(name, corpus, model, tmp_path / name, LINEAR, **changed)
        assert found["rows"] == 8 * (64 if name == "map" else 32)
        assert found["steps"][-1]["loss"] < found["steps"][0]["loss"]
        policy = load_policy(model, tmp_path / name / "checkpoint", "fp32")
        assert preference(policy, 0) > preference(policy, 1) + 1
    folders = [tmp_path / name / "checkpoint" for name in names]
    prompts = np.random.default_rng(1).integers(20, 90, (10, 2)).tolist()
    steered, base = (
        guided.decoder(model, folders, Place(place=c), "fp32").read(prompts).next_token().logits
        for c in (1.0, 0.0)
    )
    gain = (steered - base).mean(0)
    assert gain[WANTED[0]] > gain[UNWANTED[0]] + 1


def test_codes_that_begin_alike_are_refused(corpus: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="begin with the same token"):
        fit("gedi", corpus, model, tmp_path / "again", codes=["clean", "unheard"])


def test_the_classifier(corpus: Path, model: Path, tmp_path: Path) -> None:
    found = fit("classifier", corpus, model, tmp_path / "classifier")
    assert found["held_out_accuracy"] > 0.5 and found["rows"] == 64  # of six texts
