"""Checkpoints: the parameters that training changed, and the optimiser's state to continue.

    policy.safetensors      reward tokens and trained parameters; the rest is the base model's
    optimizer.safetensors   both moments of Adam
    checkpoint.json         iteration, step, reward tokens, base model, settings, checksums
    beside.safetensors      what a learner keeps beside the policy, such as PPO's value head

Random streams are named, not stored (see `quark.core.seeds`), so there is no generator to save.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from quark.config import ConfigError, LoRA, Precision, RewardTokens
from quark.core.files import DamagedError, again, mend, read_json, sums, verify, whole
from quark.models.distributed import gathered, part_of, rank
from quark.models.lm import ModelError, Policy, load_model
from quark.models.lora import add_adapters
from quark.models.reward_tokens import new_reward_tokens

Moments = dict[str, dict[str, Tensor]]
"""For each parameter its `exp_avg` and `exp_avg_sq`."""


class _About(BaseModel):
    """The keys of every checkpoint.json; a method adds its own settings."""

    model_config = ConfigDict(strict=True)

    iteration: int
    step: int
    quantiles: int = Field(ge=0)
    reward_tokens: RewardTokens | None
    lora: LoRA | None = None
    trained_layers: int | None = None
    base_sha256: str


def save(
    out: Path,
    policy: Policy,
    moments: Moments,
    *,
    form: RewardTokens | None,
    step: int,
    iteration: int,
    model: Path,
    beside: dict[str, Tensor] | None = None,
    notes: dict[str, Any] | None = None,
    lora: LoRA | None = None,
    trained_layers: int | None = None,
) -> None:
    """Write a checkpoint directory, whole or not at all.

    If several processes train, all of them must call this; the first one writes.

    Args:
        out: the directory.
        policy: its reward tokens and all parameters that require a gradient are stored.
        moments: the optimiser's, by parameter name; empty if no training continues from here.
        form: of the reward tokens, if there are any.
        step: optimiser steps taken over all iterations.
        iteration: the iteration that trained it.
        model: directory of the base model.
        beside: tensors that a learner keeps beside the policy, by name.
        notes: further keys of checkpoint.json.
        lora: the adapters, if the model has them.
        trained_layers: how many top layers learn; None: all.
    """
    tokens = policy.reward_tokens
    learnt = {n: p.detach() for n, p in policy.named_parameters() if p.requires_grad}
    trained = {name: gathered(parameter).contiguous() for name, parameter in learnt.items()}
    if rank():
        return
    if tokens is not None:
        stored = tokens.state_dict()
        trained |= {f"reward_tokens.{name}": t.contiguous() for name, t in stored.items()}
    flat = {f"{n}/{key}": value for n, state in moments.items() for key, value in state.items()}
    about = {
        **(notes or {}),
        "iteration": iteration,
        "step": step,
        "quantiles": tokens.count if tokens is not None else 0,
        "reward_tokens": form.model_dump() if form is not None else None,
        "lora": lora.model_dump() if lora is not None else None,
        "trained_layers": trained_layers,
        "base_sha256": base_sha256(model),
    }
    with whole(out) as made:
        made.mkdir()
        save_file(trained, made / "policy.safetensors")
        if flat:
            save_file(flat, made / "optimizer.safetensors")
        if beside:
            save_file(beside, made / "beside.safetensors")
        about["sha256"] = sums(*sorted(made.iterdir()))
        (made / "checkpoint.json").write_text(json.dumps(about, indent=2) + "\n")


def load_policy(
    model: Path, checkpoint: Path | None, precision: Precision, where: torch.device | None = None
) -> Policy:
    """The base model with the trained parameters of a checkpoint.

    Args:
        model: directory of the base model.
        checkpoint: None: the base model itself.
        precision: of the weights.
        where: as in `load_model`.

    Raises:
        ModelError: the checkpoint is missing, or was trained from another base model.
        DamagedError: it differs from what training wrote.
    """
    policy = load_model(model, precision, where=where)
    if checkpoint is None:
        return policy
    about = read_about(checkpoint)
    if about["base_sha256"] != base_sha256(model):
        raise ModelError(f"{checkpoint}: trained from another base model than {model}")
    if about["reward_tokens"] is not None:
        form = RewardTokens.model_validate(about["reward_tokens"])
        policy.reward_tokens = new_reward_tokens(policy.lm, about["quantiles"], form, seed=0)
    if about.get("lora") is not None:
        add_adapters(policy.lm, LoRA.model_validate(about["lora"]), about["trained_layers"], seed=0)
    trained = _tensors(checkpoint, "policy")
    try:
        missing, unknown = policy.load_state_dict(trained, strict=False)
    except RuntimeError as error:  # another shape
        raise ModelError(f"{checkpoint}: does not fit {model}: {error}") from None
    if unknown:
        raise ModelError(f"{checkpoint}: {model} has no parameter {unknown[0]}")
    if lost := [n for n in missing if n.startswith("reward_tokens.") or "lora_" in n]:
        raise ModelError(f"{checkpoint}: holds no {lost[0]}")
    return policy


def load_pair(
    model: Path,
    checkpoint: Path | None,
    precision: Precision,
    frozen: bool,
    where: torch.device | None = None,
) -> tuple[Policy, Policy]:
    """The policy to train and its base model.

    Args:
        model: directory of the base model.
        checkpoint: that training continues from; None: the base model.
        precision: of weights that do not learn; what learns is float32.
        frozen: whether the model's own weights do not learn; then both share them.
        where: as in `load_model`.

    Raises:
        ModelError, DamagedError: as `load_policy`.
    """
    policy = load_policy(model, checkpoint, precision if frozen else "fp32", where)
    base = Policy(policy.lm) if frozen else load_model(model, precision, where=where)
    return policy, base


def _tensors(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint, whose checksum is verified."""
    file = checkpoint / f"{name}.safetensors"
    verify(file, checkpoint / "checkpoint.json", target=checkpoint)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise DamagedError(f"{file}: {error}. {mend(checkpoint)}") from None


def load_beside(checkpoint: Path) -> dict[str, Tensor]:
    """The tensors that a learner keeps beside the policy; empty if it keeps none."""
    kept = "beside.safetensors" in read_about(checkpoint)["sha256"]
    return _tensors(checkpoint, "beside") if kept else {}


def load_moments(checkpoint: Path) -> Moments:
    """The optimiser's moments by parameter name."""
    moments: Moments = {}
    for key, value in _tensors(checkpoint, "optimizer").items():
        name, _, kind = key.rpartition("/")
        moments.setdefault(name, {})[kind] = value
    return moments


def read_about(checkpoint: Path) -> dict[str, Any]:
    """The content of checkpoint.json.

    Raises:
        ModelError: there is no checkpoint.
        DamagedError: checkpoint.json differs from what training wrote.
    """
    file = checkpoint / "checkpoint.json"
    if not file.exists():
        raise ModelError(f"{checkpoint}: no checkpoint here; `quark train` makes it")
    about: dict[str, Any] = read_json(file)
    try:
        _About.model_validate(about)
    except ValidationError as error:
        raise DamagedError(f"{file}: {error}. {mend(checkpoint)}") from None
    return about


def check_resumed(checkpoint: Path, about: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to continue from a checkpoint of other settings or of another iteration.

    Raises:
        ConfigError: a setting or the iteration differs.
    """
    for key, value in wanted.items():
        older = value if key == "precision" else None  # older code did not store this key
        if (found := about.get(key, older)) != value:
            raise ConfigError(
                f"{checkpoint}: {key} is {found}, these settings need {value}. "
                f"Make it again with them: {again(checkpoint)}"
            )


def base_sha256(model: Path) -> str:
    """The checksum of a base model's weights, from its manifest."""
    return str(read_json(model / "manifest.json")["sha256"])


def moments_of(optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> Moments:
    """An Adam optimiser's moments by parameter name."""
    return {
        names[parameter]: {kind: gathered(state[kind]) for kind in ("exp_avg", "exp_avg_sq")}
        for parameter, state in optimizer.state.items()
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, names: dict[Tensor, str], moments: Moments, step: int
) -> None:
    """Put stored moments back, as if the optimiser had taken `step` steps itself.

    Raises:
        ModelError: a parameter has no stored moments.
    """
    for parameter, name in names.items():
        if name not in moments:
            raise ModelError(f"the checkpoint did not train {name}: its trained layers differ")
        stored = {kind: part_of(value, parameter) for kind, value in moments[name].items()}
        taken = torch.tensor(float(step), device=parameter.device)  # where fused Adam needs it
        optimizer.state[parameter] = {"step": taken, **stored}
