"""Count the parameters of models and the operations of their stages.

Only matrix products are counted. A model has N parameters in its layers and H = width x vocabulary
in its head. Forward, a token costs 2N, and 2H more if it is predicted. Backward costs twice as much
for parameters that are trained, and once for those that only pass a gradient on. The samples of a
prompt share its cost.
"""

from dataclasses import dataclass

from quark.config import LoRA, Optimisation, Sampling, Training

TEXT = 5
"""Assumed number of bytes of a token's text."""


@dataclass(frozen=True)
class Size:
    """A model's layers, width, and parameters in its layers and in its head."""

    layers: int
    width: int
    trunk: float
    head: float


# layers and width; a layer of GPT-2 has 12 width ** 2 parameters, without biases
GPT2 = {
    "gpt2": (12, 768),
    "gpt2-medium": (24, 1024),
    "gpt2-large": (36, 1280),
    "gpt2-xl": (48, 1600),
}
KNOWN = {name: Size(n, d, 12 * n * d * d, 50257 * d) for name, (n, d) in GPT2.items()}
KNOWN["ctrl"] = Size(48, 1280, 48 * (4 * 1280**2 + 2 * 1280 * 8192), 246534 * 1280)
KNOWN["smollm2-135m"] = Size(30, 576, 106.2e6, 49152 * 576)


def forward(model: Size, read: int, predicted: int) -> float:
    """Return the FLOP of reading tokens and predicting some of them."""
    return 2 * model.trunk * read + 2 * model.head * predicted


def learning_map(model: Size, predicted: int) -> float:
    """Return the FLOP of training a linear map on a sequence with known hidden states."""
    return 4 * model.head * predicted  # the logits, and their gradient


def learning(model: Size, read: int, predicted: int, how: Optimisation) -> float:
    """Return the FLOP of training on a sequence."""
    gradient = 2 * model.trunk * read + 2 * model.head * predicted  # of the inputs
    weights = 2 * trained(model, how) * read  # fewer for the head, which predicts only some tokens
    weights -= 2 * model.head * (read - predicted) if _whole(how) else 0
    passed = 1.0 if how.trained_layers is None else max(share(model, how), 0.5)
    once = forward(model, read, predicted)
    again = once if how.gradient_checkpointing else 0
    return once + passed * gradient + weights + again


def share(model: Size, how: Optimisation) -> float:
    """Return the share of the layers that is trained."""
    return 1.0 if how.trained_layers is None else min(1.0, how.trained_layers / model.layers)


def _whole(how: Optimisation) -> bool:
    """Whether all parameters are trained."""
    return how.trained_layers is None and _adapters(how) is None


def _adapters(how: Optimisation) -> LoRA | None:
    return how.lora if isinstance(how, Training) else None


def trained(model: Size, how: Optimisation) -> float:
    """Return the number of parameters that are trained."""
    adapters = _adapters(how)
    if adapters is not None:  # the maps of a layer have 18 d rows and columns, as in GPT-2
        return share(model, how) * model.layers * 18 * model.width * adapters.rank
    return share(model, how) * model.trunk + (model.head if _whole(how) else 0)


def sampling(
    prompts: int, samples: int, prompt: int, how: Sampling, model: Size
) -> tuple[int, float, float]:
    """Return the tokens, FLOP and bytes of continuing prompts."""
    new = how.max_new_tokens
    tokens = prompts * samples * new
    flop = prompts * forward(model, prompt, 0) + prompts * samples * forward(model, new, new)
    return tokens, flop, prompts * samples * (prompt + new) * (4 + TEXT)
