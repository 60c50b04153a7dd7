"""Adapters: first nothing changes, then W + alpha / rank B A; off, the base model is back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle import EMBEDDING
from runs import write_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from quark.config import ConfigError, LoRA, Training
from quark.models import checkpoint as checkpoints
from quark.models.lm import Policy
from quark.models.lora import adapters_off, add_adapters, has_adapters
from quark.training.trainer import choose_parameters

LORA = LoRA(rank=2, alpha=6)
IDS = torch.arange(8)[None]


def adapted(make_policy: Callable[..., Policy], layers: int | None = None, n: int = 0) -> Policy:
    """A policy whose adapters have learnt something."""
    policy = make_policy(n)
    add_adapters(policy.lm, LORA, layers, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in policy.lm.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    return policy


@torch.no_grad()
def logits(policy: Policy) -> torch.Tensor:
    return policy.lm(IDS).logits


def test_fresh_adapters_change_nothing(make_policy: Callable[..., Policy]) -> None:
    policy, plain = make_policy(0), make_policy(0)
    assert not has_adapters(policy.lm)
    add_adapters(policy.lm, LORA, None, seed=1)
    assert has_adapters(policy.lm)
    assert torch.equal(logits(policy), logits(plain))


def test_a_map_is_w_plus_ba(make_policy: Callable[..., Policy]) -> None:
    """Each adapted map replaced by a plain one of the summed weights: the same logits."""
    policy, plain = adapted(make_policy), make_policy(0)
    found = dict(policy.lm.named_modules())
    changed = 0
    for name, module in plain.lm.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and hasattr(found[name], "lora_A"):
            a, b = found[name].lora_A["default"].weight, found[name].lora_B["default"].weight
            update = LORA.alpha / LORA.rank * b @ a
            module.weight.data += update.T if isinstance(module, Conv1D) else update
            changed += 1
    assert changed >= 8  # four maps and more in each of two layers
    # float32: the update is added to the weights, or to the outputs
    torch.testing.assert_close(logits(policy), logits(plain), atol=1e-5, rtol=1e-5)


def test_off_they_are_the_base_model(make_policy: Callable[..., Policy]) -> None:
    policy, plain = adapted(make_policy), make_policy(0)
    on = logits(policy)
    assert not torch.allclose(on, logits(plain), atol=1e-3)
    with adapters_off(policy.lm):
        assert torch.equal(logits(policy), logits(plain))
    assert torch.equal(logits(policy), on)
    with pytest.raises(KeyError), adapters_off(policy.lm):
        raise KeyError
    assert torch.equal(logits(policy), on)
    with adapters_off(plain.lm):  # there are none
        logits(plain)


def test_only_adapters_of_the_top_layers_learn(make_policy: Callable[..., Policy]) -> None:
    policy = adapted(make_policy, layers=1)
    choose_parameters(policy.lm, 1, checkpointing=False)
    learning = {name for name, p in policy.lm.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name and ".1." in name for name in learning)
    assert all(p.dtype == torch.float32 for n, p in policy.lm.named_parameters() if n in learning)
    with adapters_off(policy.lm):
        pass
    assert learning == {name for name, p in policy.lm.named_parameters() if p.requires_grad}
    with pytest.raises(ConfigError, match="trained_layers = 3, but the model has 2"):
        add_adapters(make_policy(0).lm, LORA, 3, seed=1)


def test_a_checkpoint_holds_them(make_policy: Callable[..., Policy], tmp_path: Path) -> None:
    plain, policy = make_policy(0), adapted(make_policy, layers=1, n=3)
    model = write_model(plain.lm, tmp_path / "model")
    fixed = {"form": EMBEDDING, "step": 1, "iteration": 0, "model": model}
    checkpoints.save(tmp_path / "made", policy, {}, lora=LORA, trained_layers=1, **fixed)
    loaded = checkpoints.load_policy(model, tmp_path / "made", "fp32")
    # float32: a loaded model attends by another kernel
    torch.testing.assert_close(logits(loaded), logits(policy), atol=1e-5, rtol=1e-5)
    assert torch.equal(loaded.reward_tokens.rows, policy.reward_tokens.rows)
    size = (tmp_path / "made/policy.safetensors").stat().st_size
    whole = (model / "model.safetensors").stat().st_size
    assert size < whole / 2  # the model's own parameters are not in it


def test_adapters_need_layers(training: Training) -> None:
    settings = training.model_dump() | {"lora": LORA.model_dump(), "trained_layers": 0}
    with pytest.raises(ValueError, match="lora needs layers"):
        Training.model_validate(settings)
