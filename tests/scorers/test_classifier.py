"""A text-classification model as a scorer, against one text at a time."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from quark.config import Classifier as Settings
from quark.core.files import read_json
from quark.data import ResourceError
from quark.data.classifiers import fetch_classifier
from quark.data.models import _byte_tokenizer
from quark.scorers import classifier as module
from quark.scorers.classifier import Classifier, ClassifierError

SEVERAL = "multi_label_classification"
PROMPTS = ["The film ", "I ", "", "It was such a long and winding road that "]
RESPONSES = ["is fine.", "", "bad", "nobody knew where it went in the end."]


def config() -> BertConfig:
    return BertConfig(
        vocab_size=257,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,  # labels far from even
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
    )


@pytest.fixture
def local(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    BertForSequenceClassification(config()).save_pretrained(tmp_path / "local")
    tokenizer = _byte_tokenizer(64)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    tokenizer.save_pretrained(tmp_path / "local")
    return tmp_path / "local"


def settings(local: Path, **changed: Any) -> Settings:
    reads = {"label": "POSITIVE", "whole": True, "tokens": 32} | changed
    return Settings.model_validate({"local": str(local), "licence": "none", "reads": reads})


def scorer(local: Path, **changed: Any) -> Classifier:
    how, out = settings(local, **changed), local.parent / "fetched"
    fetch_classifier("mine", how, out)
    return Classifier("mine", how.reads, out)


@pytest.mark.parametrize("whole", [True, False])
def test_against_one_text_at_a_time(
    local: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    made = scorer(local, whole=whole)
    found = made.score(PROMPTS, RESPONSES)
    model = BertForSequenceClassification.from_pretrained(local).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(local)
    for prompt, response, score in zip(PROMPTS, RESPONSES, found, strict=True):
        ids = tokenizer(prompt + response if whole else response)["input_ids"][:32]
        if ids:  # this tokenizer adds nothing to an empty text
            with torch.no_grad():
                distribution = model(torch.tensor([ids])).logits[0].softmax(-1)
            # float32, padded or not
            assert score == pytest.approx(distribution[1].item(), abs=1e-5)
    assert len(set(found.round(6).tolist())) > 2
    assert made.name == "mine"
    assert made.version == read_json(local.parent / "fetched/manifest.json")["sha256"][:12]


def test_each_label_by_itself(local: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(local, problem_type=SEVERAL)
    model.save_pretrained(local)
    with pytest.raises(ClassifierError, match="alone is false, but each label is judged"):
        scorer(local)
    found = scorer(local, alone=True).score(PROMPTS[:1], RESPONSES[:1])
    ids = PreTrainedTokenizerFast.from_pretrained(local)(PROMPTS[0] + RESPONSES[0])["input_ids"]
    with torch.no_grad():
        odds = model.eval()(torch.tensor([ids[:32]])).logits[0, 1].item()
    assert found[0] == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-5)  # float32


def test_no_texts_and_lists_of_unequal_length(local: Path) -> None:
    made = scorer(local)
    assert made.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 prompts, but 2 responses"):
        made.score(["a"], ["b", "c"])


def test_what_the_model_cannot_do_is_named(local: Path) -> None:
    with pytest.raises(ClassifierError, match=r"label is 'GOOD', .*'NEGATIVE', 'POSITIVE'"):
        scorer(local, label="GOOD")
    with pytest.raises(ClassifierError, match="tokens is 65, the model reads 64"):
        scorer(local, tokens=65)


def test_a_model_without_a_head_is_refused(local: Path) -> None:
    BertModel(config()).save_pretrained(local)
    with pytest.raises(ResourceError, match=r"classifiers\.mine: local lacks \d+ weights"):
        fetch_classifier("mine", settings(local), local.parent / "fetched")
    assert not (local.parent / "fetched").exists()


def test_a_classifier_is_not_random() -> None:
    random = {"architecture": "gpt2", "layers": 1, "width": 4, "heads": 1, "context": 4, "seed": 0}
    reads = {"label": "a", "whole": True, "tokens": 1}
    with pytest.raises(ValueError, match="of the hub or local"):
        Settings.model_validate({"random": random, "reads": reads, "licence": "none"})
