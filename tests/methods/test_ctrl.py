import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import (
    CTRLConfig,
    CTRLLMHeadModel,
    GenerationConfig,
    RepetitionPenaltyLogitsProcessor,
)

from quark import config
from quark.config import Sampling
from quark.generation.sampler import sample
from quark.methods.ctrl import Controlled, decoder, penalised
from quark.models.lm import ModelError, Policy, load_model

CONTROL = [7, 8]
GREEDY = Sampling(temperature=1, top_k=1, top_p=1.0, min_new_tokens=6, max_new_tokens=6)


@pytest.fixture
def ctrl() -> CTRLLMHeadModel:
    """A small CTRL model whose output layer has a bias that matters."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "n_positions": 64}
    lm = CTRLLMHeadModel(CTRLConfig(vocab_size=101, **sizes))
    with torch.no_grad():
        lm.lm_head.weight.normal_(0, 0.3)
        lm.lm_head.bias.normal_(0, 2)
    lm.generation_config = GenerationConfig(eos_token_id=[0], pad_token_id=0)
    return lm.eval()


def greedy(lm: CTRLLMHeadModel, prompts: Sequence[list[int]], penalty: float) -> list[list[int]]:
    who = Controlled(Policy(lm), CONTROL, penalty)
    found = sample(
        who, prompts, list("ab")[: len(prompts)], 1, GREEDY, seed_name="1/t", memory_mb=4000
    )
    return [ids[0] for _, ids, _ in sorted(found)]


@pytest.mark.parametrize("penalty", [1.0, 1.2, 3.0])
def test_writes_what_transformers_writes_after_the_control_text(ctrl, penalty):
    prompts = [[11, 12, 13], [14]]
    for prompt, written in zip(prompts, greedy(ctrl, prompts, penalty), strict=True):
        ids = torch.tensor([CONTROL + prompt])
        want = ctrl.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            repetition_penalty=penalty,
            min_new_tokens=6,
            max_new_tokens=6,
        )
        assert written == want[0, ids.shape[1] :].tolist()


def test_the_penalty_matters(ctrl):
    plain, lowered = (greedy(ctrl, [[11, 12]], penalty)[0] for penalty in (1.0, 3.0))
    assert plain != lowered
    assert len(set(lowered)) > len(set(plain))


def test_penalised_is_the_processor_of_transformers():
    torch.manual_seed(1)
    logits = torch.randn(2, 9)
    ids = torch.tensor([[1, 2, 2], [8, 0, 3]])
    seen = torch.zeros(2, 9, dtype=torch.bool).scatter(1, ids, True)
    want = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone())
    assert torch.equal(penalised(logits, seen, 1.7), want)
    assert torch.equal(penalised(logits, seen, 1.0), logits)


def test_batches_change_nothing(ctrl):
    prompts = [[11, 12, 13], [14]]
    assert greedy(ctrl, prompts, 1.2) == [greedy(ctrl, [p], 1.2)[0] for p in prompts]


def test_only_ctrl_may_have_a_bias(ctrl, tmp_path: Path):
    ctrl.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not \\(last hidden state\\) x"):
        load_model(tmp_path, "fp32")
    assert load_model(tmp_path, "fp32", biased=True).vocabulary == 101


def test_the_decoder_reads_its_control_text(ctrl, tmp_path: Path):
    """CTRL's tokenizer: words, and pieces that end in @@."""
    from transformers import CTRLTokenizer

    words = ["<unk>", "Reviews", "Rating:", "5.0", "good", "film"]
    (tmp_path / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (tmp_path / "merges.txt").write_text(_merges(words[1:]))
    tokenizer = CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    ctrl.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    how = config.CTRL(control="Reviews Rating: 5.0", penalty=1.2)
    made = decoder(tmp_path / "model", [], how, "fp32")
    assert isinstance(made, Controlled)
    assert made.control == [1, 2, 3]


def _merges(words: Sequence[str]) -> str:
    """Byte pairs that put whole words together, letter after letter."""
    lines = ["#version: 0.2"]
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            lines.append(f"{parts[0]} {parts[1]}")
            parts = [parts[0] + parts[1], *parts[2:]]
    return "\n".join(dict.fromkeys(lines)) + "\n"
