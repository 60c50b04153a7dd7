from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from quark.models.lm import ModelError, Policy, load_model, pad


def test_a_reward_token_is_a_row_before_the_prompt(policy: Policy) -> None:
    assert policy.vocabulary == 101 and policy.context == 64
    assert policy.condition([5, 6], None) == [5, 6]
    ids = policy.condition([5, 6], 1)
    assert ids == [102, 5, 6]
    embedded = policy.embed(torch.tensor([ids]))[0]
    matrix = policy.lm.get_input_embeddings().weight
    torch.testing.assert_close(
        embedded, torch.stack([policy.reward_tokens.rows[1], matrix[5], matrix[6]])
    )


def test_base_is_unchanged_by_reward_tokens(make_policy: Callable[..., Policy]) -> None:
    base, policy = make_policy(0), make_policy(3)
    ids = torch.tensor([[5, 6, 7]])
    found = policy.hidden(ids).last_hidden_state @ policy.head.T
    plain = base.lm(ids).logits
    assert found.shape[-1] == 101  # a reward token has no logit
    # one product of 32 numbers in another order
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-5)
    conditioned = policy.hidden(torch.tensor([policy.condition([5, 6, 7], 0)])).last_hidden_state
    assert not torch.allclose(conditioned[:, -1] @ policy.head.T, plain[:, -1], atol=0.1)


def test_gradient_reaches_only_the_tokens_that_were_read(policy: Policy) -> None:
    policy.embed(torch.tensor([policy.condition([5], 1)])).sum().backward()
    assert policy.reward_tokens.rows.grad is not None
    assert policy.reward_tokens.rows.grad.sum(1).tolist() == [0, 32, 0]


def test_end_ids(policy: Policy) -> None:
    ids = {"gpt2": [100], "llama": [99, 100]}
    assert policy.end_ids == ids[policy.lm.config.model_type]
    policy.lm.generation_config.eos_token_id = None
    assert policy.end_ids == []


def test_scaled_logits_are_refused(policy: Policy) -> None:
    policy.check_head("fine")
    torch.manual_seed(0)
    config = CohereConfig(
        vocab_size=101,
        num_hidden_layers=1,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        logit_scale=0.0625,
        initializer_range=0.3,
        eos_token_id=100,
    )
    with pytest.raises(ModelError, match="scaled: its logits are not"):
        Policy(CohereForCausalLM(config).eval()).check_head("scaled")


def test_load_model(policy: Policy, tmp_path: Path) -> None:
    policy.lm.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model", "fp32")
    assert torch.equal(loaded.head, policy.head) and not loaded.training
    assert loaded.reward_tokens is None
    assert load_model(tmp_path / "model", "bf16").head.dtype == torch.bfloat16
    with pytest.raises(ModelError, match="nowhere: no model here"):
        load_model(tmp_path / "nowhere", "fp32")


def test_pad() -> None:
    ids, real = pad([[1, 2, 3], [4]], "left")
    assert ids.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert real.tolist() == [[True] * 3, [False, False, True]]
    ids, real = pad([[1, 2, 3], [4]], "right")
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert real.tolist() == [[True] * 3, [True, False, False]]
