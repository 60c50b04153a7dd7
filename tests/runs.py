"""A base model on disk, and a run whose policy has moved away from it without any training."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from quark.config import Config, LoRA, RewardTokens, load, overlay
from quark.core.files import sha256, write_json
from quark.data import fetch_model
from quark.models import checkpoint as checkpoints
from quark.models.lm import Policy, load_model
from quark.models.lora import add_adapters
from quark.models.reward_tokens import new_reward_tokens

ROOT = Path(__file__).parents[1]
FORMS = {
    "embedding": RewardTokens(form="embedding"),
    "linear": RewardTokens(form="linear"),
    "sink": RewardTokens(form="sink", first_layer=1),
    "none": RewardTokens(form="none"),
}


def write_model(lm: PreTrainedModel, folder: Path, **about: Any) -> Path:
    """Write a model and its manifest, which holds the checksum of its weights and `about`."""
    lm.save_pretrained(folder)
    write_json(folder / "manifest.json", {"sha256": sha256(folder / "model.safetensors"), **about})
    return folder


def configured(architecture: str, form: str) -> Config:
    """The tiny configuration, in float32, its model of an architecture."""
    paths = [ROOT / "config/config.yaml", ROOT / "config/scale/test.yaml"]
    tiny = {"architecture": architecture, "layers": 2, "width": 32, "heads": 2, "context": 64}
    change = {
        "precision": "fp32",
        "models": {"tiny-gpt2": {"random": {**tiny, "seed": 0}}},
        "quark": {
            "reward_tokens": FORMS[form].model_dump(),
            "explore_place": -1.5 if form == "linear" else 1.0,
            "training": {"trained_layers": 0 if form == "linear" else 1},
        },
        "baselines": {
            "ppo": {"trained_layers": 0 if form == "linear" else 1},
            "gedi": {"training": {"trained_layers": 0 if form == "linear" else 1}},
        },
    }
    return Config.model_validate(overlay(load(paths).model_dump(exclude_unset=True), change))


def moved(folder: Path, architecture: str, form: str, lora: bool = False) -> tuple[Config, Policy]:
    """Write a run to `resources` and `results`; its reward tokens and top layer have moved."""
    config = configured(architecture, form)
    model = folder / "resources/models/tiny-gpt2"
    fetch_model("tiny-gpt2", config.models["tiny-gpt2"], model)
    policy = load_model(model, "fp32")
    how = LoRA(rank=2, alpha=4) if lora else None
    if how is not None:
        add_adapters(policy.lm, how, 1, seed=0)
    if form == "linear":
        policy.lm.requires_grad_(False)
    policy.reward_tokens = new_reward_tokens(policy.lm, 3, FORMS[form], seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            learns = ("reward",) if form == "linear" else ("lora_", "reward", "1.mlp")
            if any(part in name for part in learns):
                parameter.requires_grad_(True)
                parameter.add_(0.3 * torch.randn_like(parameter))
    last = config.quark.iterations - 1
    out = folder / f"results/toxicity/quark/seed-1/iteration-{last}/checkpoint"
    about: dict[str, Any] = {"step": 1, "iteration": last, "model": model}
    kept = None if form == "none" else FORMS[form]
    layers = 0 if form == "linear" else 1
    checkpoints.save(out, policy, {}, form=kept, lora=how, trained_layers=layers, **about)
    return config, checkpoints.load_policy(model, out, "fp32")
