"""Attention on the CPU: two matrix products for all rows and heads.

For one new token and about thirty positions, PyTorch's fused kernels take far longer on a CPU than
their arithmetic needs, and they first copy the keys that several heads share. Here the query heads
of a group are stacked, so that one product computes them all. transformers finds it by its name.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED = "grouped"
"""The name of `grouped_attention` in a model's configuration."""

HARMLESS = {
    "cache_position",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "sliding_window",
    "use_cache",
}
"""Arguments from models that repeat what the mask holds, or that change no number."""


class AttentionError(ValueError):
    """A model that needs a form of attention that `grouped_attention` does not compute."""


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Softmax attention, the softmax in float32.

    Args:
        module: the attention layer, for errors.
        query: (rows, heads, time, width).
        key, value: (rows, groups, positions, width); groups divide heads.
        attention_mask: (rows, 1, time, positions), added to the scores.
        dropout: of the weights.
        scaling: of the scores; None: 1 / sqrt(width).
        others: arguments in HARMLESS, or arguments that are None.

    Returns:
        (rows, time, heads, width), and no weights.

    Raises:
        AttentionError: the layer needs more, such as a cap on scores or learnt sinks.
    """
    if unknown := sorted(k for k, v in others.items() if v is not None and k not in HARMLESS):
        raise AttentionError(
            f"{type(module).__name__} needs {', '.join(unknown)}, which attention on the CPU does "
            "not have here: run this model on a GPU, or choose another architecture"
        )
    rows, heads, time, width = query.shape
    groups, positions = key.shape[1], key.shape[2]
    below = query.reshape(rows, groups, -1, width) * (width**-0.5 if scaling is None else scaling)
    scores = (below @ key.transpose(-1, -2)).view(rows, groups, -1, time, positions)
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None]
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    weights = functional.dropout(weights, dropout) if dropout else weights
    read = weights.view(rows, groups, -1, positions) @ value
    return read.view(rows, heads, time, width).transpose(1, 2), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
