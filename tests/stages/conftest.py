"""A model on disk, with words of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import write_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from quark.models.lm import Policy


@pytest.fixture
def model(make_policy: Callable[..., Policy], tmp_path: Path) -> Path:
    folder = write_model(make_policy(0).lm, tmp_path / "model", end_ids=[100])
    words = {"clean": 11, "dirty": 12}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="clean"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder
