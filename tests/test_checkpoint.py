import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quark import checkpoint as checkpoints
from quark.lm import ModelError, Policy


def write_model(policy: Policy, folder: Path, sha256: str) -> Path:
    policy.lm.save_pretrained(folder)
    (folder / "manifest.json").write_text(json.dumps({"sha256": sha256}))
    return folder


def test_round_trip(make_policy: Callable[..., Policy], tmp_path: Path) -> None:
    model = write_model(make_policy(0), tmp_path / "model", "abc")
    policy = make_policy(3, seed=1)
    names = {p: name for name, p in policy.named_parameters()}
    optimizer = torch.optim.Adam(names, lr=1e-3)
    policy.hidden(torch.tensor([[101, 5, 6]])).last_hidden_state.sum().backward()
    optimizer.step()
    moments = checkpoints.moments_of(optimizer, names)
    out = tmp_path / "iteration-0" / "checkpoint"
    checkpoints.save(out, policy, moments, step=7, iteration=0, model=model)

    loaded = checkpoints.load_policy(model, out, "fp32")
    for (name, found), wanted in zip(loaded.named_parameters(), policy.parameters(), strict=True):
        assert torch.equal(found, wanted), name
    assert not loaded.training
    again = checkpoints.load_moments(out)
    assert again.keys() == moments.keys()
    for name, state in moments.items():
        assert state.keys() == again[name].keys() == {"exp_avg", "exp_avg_sq"}
        assert all(torch.equal(again[name][kind], value) for kind, value in state.items())
    about = {"iteration": 0, "step": 7, "quantiles": 3, "base_sha256": "abc"}
    assert checkpoints.read_about(out) == about
    assert {f.suffix for f in out.iterdir()} == {".safetensors", ".json"}


def test_untrained_parameters_are_the_base_model(
    make_policy: Callable[..., Policy], tmp_path: Path
) -> None:
    base = make_policy(0)
    model = write_model(base, tmp_path / "model", "abc")
    policy = make_policy(3)
    policy.lm.requires_grad_(False)
    with torch.no_grad():
        policy.head.zero_()  # not trained, so not stored
    checkpoints.save(tmp_path / "made", policy, {}, step=0, iteration=0, model=model)
    loaded = checkpoints.load_policy(model, tmp_path / "made", "fp32")
    assert torch.equal(loaded.head, base.head)
    assert torch.equal(loaded.reward_tokens, policy.reward_tokens)
    assert checkpoints.load_policy(model, None, "fp32").reward_tokens.shape == (0, 32)


def test_refused(make_policy: Callable[..., Policy], tmp_path: Path) -> None:
    model = write_model(make_policy(0), tmp_path / "model", "abc")
    other = write_model(make_policy(0), tmp_path / "other", "def")
    checkpoints.save(tmp_path / "made", make_policy(), {}, step=0, iteration=0, model=model)
    with pytest.raises(ModelError, match=r"made: trained from another base model than .*other"):
        checkpoints.load_policy(other, tmp_path / "made", "fp32")
    with pytest.raises(ModelError, match="none: no checkpoint here"):
        checkpoints.load_policy(model, tmp_path / "none", "fp32")
