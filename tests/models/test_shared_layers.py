"""Models that share their lower layers read together: the same bits, less work."""

from collections.abc import Callable

import pytest
import torch

from quark.config import Sampling
from quark.generation.decoding import Contrast, Guided, Plain
from quark.generation.sampler import sample
from quark.models.lm import Policy
from quark.models.shared_layers import Upper, share_trunk

Make = Callable[..., Policy]
PROMPTS = [[7], [1, 2, 3, 4, 5], [8, 8, 8]]


def expert(make_policy: Make, seed: int) -> Policy:
    """The base model with another top layer."""
    policy = make_policy(0)
    other = dict(make_policy(0, seed).named_parameters())
    for name, parameter in policy.named_parameters():
        if ".1." in name:
            parameter.data.copy_(other[name])
    return policy


def continued(
    base: Policy, experts: list[Policy], sampling: Sampling
) -> dict[int, list[list[int]]]:
    decoder = Guided(base, Contrast(*map(Plain, experts), 2.0))
    fixed = {"seed_name": "1/test", "memory_mb": 4000}
    names = ["one", "long", "same"]
    return {place: ids for place, ids, _ in sample(decoder, PROMPTS, names, 5, sampling, **fixed)}


def test_the_same_texts_bit_for_bit(make_policy: Make, sampling: Sampling) -> None:
    base, experts = make_policy(0), [expert(make_policy, seed) for seed in (1, 2)]
    expected = continued(base, experts, sampling)
    assert expected != continued(base, experts[::-1], sampling)
    shared = [share_trunk(base, policy) for policy in experts]
    assert continued(base, shared, sampling) == expected


def test_shared_layers_are_not_run_again(make_policy: Make) -> None:
    base, other = make_policy(0), expert(make_policy, 1)
    shared = share_trunk(base, other)
    if not isinstance(shared, Upper):  # GPT-2 adds positions, so its layers cannot be cut off
        assert base.lm.config.model_type == "gpt2" and shared is other
        layers = [m.layer_idx for m in other.lm.modules() if hasattr(m, "layer_idx")]
        assert layers == sorted(layers) and layers[0] == 0
        return
    assert shared.lm.config.num_hidden_layers == 1
    assert other.lm.config.num_hidden_layers == base.lm.config.num_hidden_layers == 2
    run = []
    other.lm.base_model.layers[0].register_forward_pre_hook(lambda *_: run.append(0))
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        base.hidden(ids)
        shared.hidden(ids)
        assert not run
        with pytest.raises(RuntimeError, match="must read the same ids first"):
            shared.hidden(ids[:, :2])


def test_what_differs_on_a_longer_text_is_not_shared(
    make_policy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here an Upper that is wrong from the fifth token on; nothing of the attempt is left."""
    base, other = make_policy(0), expert(make_policy, 1)
    embed = Upper.embed

    def wrong(self: Upper, ids: torch.Tensor) -> torch.Tensor:
        hidden = embed(self, ids).clone()
        hidden[:, 4:] += 1
        return hidden

    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    with torch.no_grad():
        before = other.hidden(ids).last_hidden_state
        monkeypatch.setattr(Upper, "embed", wrong)
        assert share_trunk(base, other) is other
        assert torch.equal(other.hidden(ids).last_hidden_state, before)
    assert not any(module._forward_pre_hooks for module in base.lm.modules())


def test_what_cannot_be_shared_is_left_alone(make_policy: Make) -> None:
    base = make_policy(0)
    stranger = make_policy(0, 1)
    assert share_trunk(base, stranger) is stranger
    moved = expert(make_policy, 1)
    moved.head.data[0, 0] += 1
    assert share_trunk(base, moved) is moved
    told = make_policy(3)
    assert share_trunk(base, told) is told
