import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from quark import stages
from quark.config import ConfigError, RewardTokens, Training
from quark.settings import TrainSettings


def write_tokenizer(folder: Path, merges: list[tuple[str, str]]) -> Path:
    """Letters a to d as ids 0 to 3, then the merges; the model ends a text with id 3."""
    words = ["a", "b", "c", "d", *map("".join, merges)]
    bpe = models.BPE({word: i for i, word in enumerate(words)}, merges)
    tokenizer = Tokenizer(bpe)
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"end_ids": [3]}))
    return folder


def test_a_judge_with_the_same_tokenizer_reads_the_ids(tmp_path: Path) -> None:
    model = write_tokenizer(tmp_path / "model", [])
    table: dict[str, list[Any]] = {
        "prompt_ids": [[0], [1], [2]],
        "response_ids": [[1, 2, 3], [3, 1], []],
    }
    prompts, responses = stages._judged_ids(table, model, model)
    assert prompts == [[0], [1], [2]]
    assert responses == [[1, 2], [3, 1], []]  # only a last end id goes


def test_another_judge_reads_the_text_anew(tmp_path: Path) -> None:
    model = write_tokenizer(tmp_path / "model", [])
    judge = write_tokenizer(tmp_path / "judge", [("b", "c")])  # bc is id 4
    table: dict[str, list[Any]] = {"prompt": ["ab", "aa"], "response": ["cb", "bc"]}
    prompts, responses = stages._judged_ids(table, model, judge)
    assert prompts == [[0], [0, 0]]  # "ab" + "cb" = a bc b: bc lies across the boundary
    assert responses == [[4, 1], [4]]


def test_a_judge_needs_something_to_go_on() -> None:
    assert stages._common([1, 2], [3, 2]) == 1
    assert stages._common([1, 2, 3], [1, 2]) == 2


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("iteration", 0, "iteration is 0, these settings need 1"),
        ("quantiles", 4, "quantiles is 4, these settings need 3"),
        ("reward_tokens", {"form": "sink", "first_layer": 1}, "reward_tokens is {'form': 'sink'"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    training: Training, key: str, value: Any, text: str
) -> None:
    form = RewardTokens(form="embedding", first_layer=0)
    settings = TrainSettings(
        version=1,
        stream="s",
        seed=1,
        iteration=2,
        iterations=3,
        quantiles=3,
        reward_tokens=form,
        training=training,
        precision="fp32",
    )
    about = {"iteration": 1, "quantiles": 3, "reward_tokens": form.model_dump()}
    stages._check_resumed(Path("c"), about, settings)
    with pytest.raises(ConfigError, match=f"c: {text}"):
        stages._check_resumed(Path("c"), about | {key: value}, settings)
