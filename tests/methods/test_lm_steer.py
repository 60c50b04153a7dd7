"""LM-Steer and DExperts with maps, against float64 arithmetic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import LINEAR, steered_logits
from runs import write_model

from quark.config import Place
from quark.methods import guided, lm_steer
from quark.models.checkpoint import save
from quark.models.decode_state import response_hidden
from quark.models.lm import ModelError, Policy, load_model
from quark.models.reward_tokens import LinearTokens, new_reward_tokens
from quark.training.trainer import Rows


@pytest.fixture
def model(make_policy: Callable[..., Policy], tmp_path: Path) -> Path:
    return write_model(make_policy(0).lm, tmp_path / "model", end_ids=[100])


TEXTS = Rows(["a", "b"], [[20, 21], [22]], [[7, 8, 9], [10, 11]], np.array([0, 1], dtype=np.int32))


def with_map(model: Path, seed: int) -> Policy:
    policy = load_model(model, "fp32")
    policy.lm.requires_grad_(False)
    tokens = policy.reward_tokens = new_reward_tokens(policy.lm, 2, LINEAR, seed=0)
    assert isinstance(tokens, LinearTokens)
    torch.manual_seed(seed)
    torch.nn.init.normal_(tokens.map, std=0.05)
    return policy


def test_the_loss_has_each_text_at_the_place_of_its_class(model: Path) -> None:
    policy = with_map(model, 1)
    hidden = response_hidden(policy, TEXTS.prompts, TEXTS.responses)
    found = lm_steer.loss(policy, TEXTS, hidden, "fp32")["loss"]
    expected = 0.0
    for prompt, response, label in zip(TEXTS.prompts, TEXTS.responses, TEXTS.label, strict=True):
        log_p = steered_logits(policy, prompt, response, 1.0 - 2.0 * label)[:-1].log_softmax(-1)
        expected -= log_p[range(len(response)), response].sum().item()
    assert found.item() == pytest.approx(expected, rel=1e-5)  # float32 against float64


def test_maps_of_two_parts_add_up(model: Path, tmp_path: Path) -> None:
    made = [with_map(model, seed) for seed in (1, 2)]
    for i, policy in enumerate(made):
        save(tmp_path / str(i), policy, {}, form=LINEAR, step=1, iteration=0, model=model)
    decoder = guided.decoder(model, [tmp_path / "0", tmp_path / "1"], Place(place=2.5), "fp32")
    found = decoder.read([[20, 21]]).next_token().logits[0].double()
    base = steered_logits(made[0], [20, 21], [], 0.0)[0]
    moved = [steered_logits(policy, [20, 21], [], 2.5)[0] for policy in made]
    expected = moved[0] + moved[1] - base
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)  # float32 against float64


def test_a_part_without_linear_tokens_cannot_be_added(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "0", with_map(model, 1), {}, form=LINEAR, step=1, iteration=0, model=model)
    plain = load_model(model, "fp32")
    save(tmp_path / "1", plain, {}, form=None, step=1, iteration=0, model=model)
    with pytest.raises(ModelError, match="only linear reward tokens can be added"):
        guided.decoder(model, [tmp_path / "0", tmp_path / "1"], Place(place=1.0), "fp32")
