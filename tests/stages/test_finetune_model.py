"""A model trained further, from file to file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import plain_logits
from runs import write_model
from transformers import PreTrainedTokenizerFast

from quark.config import ConfigError, ModelSource, load
from quark.core import schemas
from quark.core.files import sha256
from quark.data.models import _byte_tokenizer
from quark.models.lm import Policy, load_model
from quark.stages.finetune_model import finetune_stage
from quark.stages.settings import FinetuneSettings

HOW = load([Path(__file__).parents[2] / "config/config.yaml"]).baselines.dapt
TEXTS = ["ABCDE", "ABC", "", "ABCDEFG"] * 8  # their bytes' ids lie within the tiny model's


@pytest.fixture
def model(make_policy: Callable[..., Policy], tmp_path: Path) -> Path:
    policy = make_policy(0)
    folder = write_model(policy.lm, tmp_path / "model", end_ids=list(policy.end_ids))
    tokenizer = _byte_tokenizer(64)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    n = len(TEXTS)
    columns: dict[str, Any] = {"prompt_id": list(map(str, range(n))), "text": TEXTS}
    columns |= {"source": ["t"] * n, "toxicity": [None] * n, "toxic": [False] * n}
    schemas.write(tmp_path / "train.parquet", schemas.PROMPTS, columns)
    return tmp_path / "train.parquet"


def settings(**changed: Any) -> FinetuneSettings:
    training = HOW.model_dump() | {"batch": 8, "learning_rate": 3e-3, "epochs": 6}
    training |= {"trained_layers": None, "warmup_steps": 0}
    how = {"model": "m", "texts": "t", "rows": None, "tokens": 5, "training": training} | changed
    source = ModelSource.model_validate({"finetuned": how, "licence": "none"})
    return FinetuneSettings(version=1, name="new", source=source, precision="fp32")


def test_it_learns_the_texts_and_is_a_model_like_any(
    model: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    finetune_stage(settings(), model, texts, out, tmp_path / "training.json", memory_mb=4000)
    before, after = load_model(model, "fp32"), load_model(out, "fp32")
    assert after.end_ids == before.end_ids
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    learnt = tokenizer("ABCD")["input_ids"]

    def loss(policy: Policy) -> float:
        logprobs = plain_logits(policy, [policy.end_ids[0]], learnt)[:-1].log_softmax(-1)
        return -float(logprobs[range(len(learnt)), learnt].mean())

    assert loss(after) < 0.5 * loss(before)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["name"] == "new" and manifest["sha256"] == sha256(out / "model.safetensors")
    training = json.loads((tmp_path / "training.json").read_text())
    assert training["rows"] == 6 * 24 and training["tokens"] == 6 * 8 * (5 + 3 + 5)  # cut at 5
    assert len(training["steps"]) == 6 * 3


def test_only_the_top_layer_where_that_is_asked(model: Path, texts: Path, tmp_path: Path) -> None:
    how = settings().source.finetuned
    assert how is not None
    training = how.training.model_dump() | {"trained_layers": 1, "epochs": 1}
    finetune_stage(
        settings(training=training),
        model,
        texts,
        tmp_path / "new",
        tmp_path / "training.json",
        memory_mb=4000,
    )
    same = [
        torch.equal(one, other)
        for one, other in zip(
            load_model(model, "fp32").parameters(),
            load_model(tmp_path / "new", "fp32").parameters(),
            strict=True,
        )
    ]
    assert any(same) and not all(same)
    assert np.mean(same) > 0.3


def test_what_cannot_be_trained(model: Path, texts: Path, tmp_path: Path) -> None:
    local = ModelSource.model_validate({"local": "x", "licence": "none"})
    fetched = FinetuneSettings(version=1, name="new", source=local, precision="fp32")
    with pytest.raises(ConfigError, match=r"models\.new is not fine-tuned"):
        finetune_stage(
            fetched, model, texts, tmp_path / "new", tmp_path / "training.json", memory_mb=4000
        )
    empty = schemas.read(texts, schemas.PROMPTS).to_pydict() | {"text": [""] * len(TEXTS)}
    schemas.write(texts, schemas.PROMPTS, empty)
    with pytest.raises(ConfigError, match=r"models\.new\.finetuned: .* holds no text"):
        finetune_stage(
            settings(), model, texts, tmp_path / "new", tmp_path / "training.json", memory_mb=4000
        )


@pytest.mark.parametrize(
    ("changed", "terms"),
    [
        ({"margin": 0.5}, {"lm_loss", "contrast"}),
        (
            {
                "unlikelihood": {
                    "alpha": 1.0,
                    "sequence_share": 0.5,
                    "ngram": 2,
                    "prefix": 2,
                    "continuation": 4,
                }
            },
            {"lm_loss", "token_loss", "sequence_loss"},
        ),
    ],
)
def test_other_objectives(
    model: Path, texts: Path, tmp_path: Path, changed: dict[str, Any], terms: set[str]
) -> None:
    summary = tmp_path / "training.json"
    finetune_stage(settings(**changed), model, texts, tmp_path / "new", summary, memory_mb=4000)
    steps = json.loads(summary.read_text())["steps"]
    assert terms <= set(steps[0]) and all(np.isfinite(step["loss"]) for step in steps)
    for step in steps:
        assert step["loss"] == pytest.approx(sum(step[term] for term in terms), rel=1e-5)
    likely = [step["lm_loss"] for step in steps if step["lm_loss"]]
    assert likely[-1] < likely[0]


def test_texts_that_do_not_fit_are_refused(model: Path, texts: Path, tmp_path: Path) -> None:
    how = {"alpha": 1.0, "sequence_share": 0.5, "ngram": 2, "prefix": 2, "continuation": 62}
    with pytest.raises(ConfigError, match="texts of 65 tokens are read, the model's context is 64"):
        finetune_stage(
            settings(unlikelihood=how),
            model,
            texts,
            tmp_path / "new",
            tmp_path / "training.json",
            memory_mb=4000,
        )


def test_checkpointing_has_no_cache_to_continue_from() -> None:
    how = {"alpha": 1.0, "sequence_share": 0.5, "ngram": 2, "prefix": 2, "continuation": 4}
    training = HOW.model_dump() | {"gradient_checkpointing": True}
    with pytest.raises(ValueError, match="gradient_checkpointing needs unlikelihood"):
        settings(unlikelihood=how, training=training)
    settings(unlikelihood=how | {"sequence_share": 0}, training=training)
