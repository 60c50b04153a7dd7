from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle import EMBEDDING, LINEAR, SINK
from runs import write_model
from safetensors.torch import load_file

from quark.core.files import DamagedError, sha256, sums
from quark.models import checkpoint as checkpoints
from quark.models.lm import ModelError, Policy


def test_round_trip(make_policy: Callable[..., Policy], tmp_path: Path) -> None:
    model = write_model(make_policy(0).lm, tmp_path / "model")
    policy = make_policy(3, seed=1)
    names = {p: name for name, p in policy.named_parameters()}
    optimizer = torch.optim.Adam(names, lr=1e-3)
    policy.hidden(torch.tensor([[101, 5, 6]])).last_hidden_state.sum().backward()
    optimizer.step()
    moments = checkpoints.moments_of(optimizer, names)
    out = tmp_path / "iteration-0" / "checkpoint"
    checkpoints.save(out, policy, moments, form=EMBEDDING, step=7, iteration=0, model=model)

    loaded = checkpoints.load_policy(model, out, "fp32")
    for (name, found), wanted in zip(loaded.named_parameters(), policy.parameters(), strict=True):
        assert torch.equal(found, wanted), name
    assert not loaded.training
    again = checkpoints.load_moments(out)
    assert again.keys() == moments.keys()
    for name, state in moments.items():
        assert state.keys() == again[name].keys() == {"exp_avg", "exp_avg_sq"}
        assert all(torch.equal(again[name][kind], value) for kind, value in state.items())
    assert checkpoints.read_about(out) == {
        "iteration": 0,
        "step": 7,
        "quantiles": 3,
        "reward_tokens": {"form": "embedding", "first_layer": 0},
        "lora": None,
        "trained_layers": None,
        "base_sha256": sha256(model / "model.safetensors"),
        "sha256": sums(out / "optimizer.safetensors", out / "policy.safetensors"),
    }
    assert {f.suffix for f in out.iterdir()} == {".safetensors", ".json"}


def test_untrained_parameters_are_the_base_model(
    make_policy: Callable[..., Policy], tmp_path: Path
) -> None:
    base = make_policy(0)
    model = write_model(base.lm, tmp_path / "model")
    policy = make_policy(3)
    policy.lm.requires_grad_(False)
    with torch.no_grad():
        policy.head.zero_()  # not trained, so not stored
    checkpoints.save(
        tmp_path / "made", policy, {}, form=EMBEDDING, step=0, iteration=0, model=model
    )
    loaded = checkpoints.load_policy(model, tmp_path / "made", "fp32")
    assert torch.equal(loaded.head, base.head)
    assert torch.equal(loaded.reward_tokens.rows, policy.reward_tokens.rows)
    assert checkpoints.load_policy(model, None, "fp32").reward_tokens is None


def test_linear_tokens(linear_policy: Policy, tmp_path: Path) -> None:
    model = write_model(linear_policy.lm, tmp_path / "model")
    linear_policy.lm.requires_grad_(False)
    checkpoints.save(
        tmp_path / "made", linear_policy, {}, form=LINEAR, step=0, iteration=0, model=model
    )
    assert list(load_file(tmp_path / "made/policy.safetensors")) == ["reward_tokens.map"]
    loaded = checkpoints.load_policy(model, tmp_path / "made", "fp32").reward_tokens
    assert loaded.count == 3
    assert torch.equal(loaded.map, linear_policy.reward_tokens.map)


def test_sink_tokens(sink_policy: Policy, tmp_path: Path) -> None:
    model = write_model(sink_policy.lm, tmp_path / "model")
    checkpoints.save(
        tmp_path / "made", sink_policy, {}, form=SINK, step=0, iteration=0, model=model
    )
    loaded = checkpoints.load_policy(model, tmp_path / "made", "fp32").reward_tokens
    assert loaded.count == 3 and loaded.first_layer == 1
    assert torch.equal(loaded.axis, sink_policy.reward_tokens.axis)
    assert torch.equal(loaded.deviation, sink_policy.reward_tokens.deviation)


def test_refused(make_policy: Callable[..., Policy], tmp_path: Path) -> None:
    model = write_model(make_policy(0).lm, tmp_path / "model")
    other = write_model(make_policy(0, seed=1).lm, tmp_path / "other")
    checkpoints.save(
        tmp_path / "made", make_policy(), {}, form=EMBEDDING, step=0, iteration=0, model=model
    )
    with pytest.raises(ModelError, match=r"made: trained from another base model than .*other"):
        checkpoints.load_policy(other, tmp_path / "made", "fp32")
    with pytest.raises(ModelError, match="none: no checkpoint here"):
        checkpoints.load_policy(model, tmp_path / "none", "fp32")


def test_a_damaged_checkpoint_is_refused(
    make_policy: Callable[..., Policy], tmp_path: Path
) -> None:
    model, made = write_model(make_policy(0).lm, tmp_path / "model"), tmp_path / "made"
    policy, fixed = make_policy(), {"form": EMBEDDING, "step": 1, "iteration": 0, "model": model}
    moments = {"reward_tokens.rows": {"exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}}
    checkpoints.save(made, policy, moments, beside={"weight": torch.ones(3)}, **fixed)
    for name, load in (
        ("policy", lambda: checkpoints.load_policy(model, made, "fp32")),
        ("optimizer", lambda: checkpoints.load_moments(made)),
        ("beside", lambda: checkpoints.load_beside(made)),
    ):
        file = made / f"{name}.safetensors"
        load()
        content = bytearray(file.read_bytes())
        content[-1] ^= 1  # one bit of the last number: still a checkpoint, but another one
        file.write_bytes(content)
        with pytest.raises(
            DamagedError, match=rf"{name}\.safetensors: damaged .*--forcerun {made}$"
        ):
            load()


def test_without_reward_tokens_and_with_a_value_head(
    make_policy: Callable[..., Policy], tmp_path: Path
) -> None:
    """DAPT and the experts have no reward tokens; PPO has a value head and notes."""
    model = write_model(make_policy(0).lm, tmp_path / "model")
    policy, value = make_policy(0, seed=1), {"weight": torch.randn(1, 3)}
    fixed = {"form": None, "step": 2, "iteration": 0, "model": model}
    checkpoints.save(tmp_path / "one", policy, {}, **fixed)
    loaded = checkpoints.load_policy(model, tmp_path / "one", "fp32")
    assert loaded.reward_tokens is None
    for found, wanted in zip(loaded.parameters(), policy.parameters(), strict=True):
        assert torch.equal(found, wanted)
    checkpoints.save(tmp_path / "two", policy, {}, beside=value, notes={"kl_coef": 0.5}, **fixed)
    assert torch.equal(checkpoints.load_beside(tmp_path / "two")["weight"], value["weight"])
    assert checkpoints.read_about(tmp_path / "two")["kl_coef"] == 0.5
