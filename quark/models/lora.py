"""Low-rank adapters (Hu et al. 2022), for models too large to train whole.

Each linear map W of the trained layers becomes W + alpha / rank B A; A and B learn, in
float32, and W is frozen. So the base model is the same model with its adapters off, and the KL
penalty needs no second copy of it. B starts at zero: at first nothing changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from quark.config import ConfigError, LoRA
from quark.models.lm import layers_of


def add_adapters(lm: nn.Module, lora: LoRA, trained_layers: int | None, seed: int) -> None:
    """Add adapters to every linear map in the top layers of a language model.

    Args:
        lm: changed in place.
        lora: their rank and scale.
        trained_layers: how many layers get them; None: all.
        seed: of A.

    Raises:
        ConfigError: the model has fewer layers.
    """
    layers = top_layers(lm, trained_layers)
    names = {module: name for name, module in lm.named_modules()}
    maps = [m for layer in layers for m in layer.modules() if isinstance(m, nn.Linear | Conv1D)]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=[names[m] for m in maps],
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in maps),  # GPT-2's maps are transposed
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, lm)
    for name, parameter in lm.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        parameter.requires_grad_("lora_" in name)


def top_layers(lm: nn.Module, count: int | None) -> list[nn.Module]:
    """A language model's top layers; None: all.

    Raises:
        ConfigError: it has fewer.
    """
    layers = list(layers_of(lm))
    if count is not None and count > len(layers):
        raise ConfigError(f"trained_layers = {count}, but the model has {len(layers)}")
    return layers if count is None else layers[len(layers) - count :]


def has_adapters(lm: nn.Module) -> bool:
    """Whether a language model has any."""
    return any(isinstance(module, BaseTunerLayer) for module in lm.modules())


@contextmanager
def adapters_off(lm: nn.Module) -> Iterator[None]:
    """A context in which a language model runs without its adapters: it is the base model."""
    adapted = [module for module in lm.modules() if isinstance(module, BaseTunerLayer)]
    for module in adapted:
        module.enable_adapters(False)
    try:
        yield
    finally:
        for module in adapted:
            module.enable_adapters(True)


def merge_adapters(lm: nn.Module) -> None:
    """Merge adapters into the linear maps that they change; the result is a plain model."""
    parents = {name: module for name, module in lm.named_modules()}
    for name, module in parents.items():
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(parents[parent], attribute, module.get_base_layer())
