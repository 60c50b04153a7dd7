"""A language model from which Quark unlearned something, told so by a shifted attention sink.

    model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

The model is the one it was made from, but for a constant that is added to keys and values of the
first position, in the upper layers. The last token of the prompt and all that is written see it;
the rest of the prompt is read as the original model reads it. A prompt of one token is read
plainly, and what follows its first new token is told. So is a whole text, `model(ids).logits`:
its first token is the prompt.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers import LlamaConfig as BaseConfig
from transformers import LlamaForCausalLM as BaseModel


class QuarkConfig(BaseConfig):
    """The original configuration with `quark_first_layer` and `quark_shape`, those of the shift."""

    model_type = "quark"


class QuarkForCausalLM(BaseModel):
    """The original model under its best reward token."""

    config_class = QuarkConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        # (layers, keys and values, heads, head width)
        self.quark_shift = nn.Parameter(torch.zeros(config.quark_shape), requires_grad=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **arguments: Any,
    ) -> Any:
        """As the original model's; what is read at once is padded on the left if at all.

        A call that asks for a cache, as `generate` does, reads a prompt. Any other call, or one
        with labels, reads a whole text as if its first token were the prompt.
        """
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                labels=labels,
                use_cache=use_cache,
                **arguments,
            )
        if input_ids is None:
            raise ValueError("a text is given as input_ids, not as embeddings")
        cache = DynamicCache(config=self.config) if past_key_values is None else past_key_values
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        places = (real.long().cumsum(-1) - 1).clamp(min=0) if position_ids is None else position_ids
        keep = arguments.pop("logits_to_keep", 0)
        arguments.pop("cache_position", None)
        first, length = real.long().argmax(-1), input_ids.shape[1]
        told = first + 1  # the column from which a row sees its shift
        if labels is None and (use_cache or past_key_values is not None):
            told = told.clamp(min=length - 1)
        logits, start = [], 0
        for end in sorted({*told.tolist(), length}):
            part = slice(start, end)
            read = super().forward(
                input_ids=input_ids[:, part],
                attention_mask=real[:, :end],
                position_ids=places[:, part],
                past_key_values=cache,
                use_cache=True,
                **arguments,
            )
            self._shift(cache, first, told == end)
            logits.append(read.logits)
            start = end
        kept = slice(-keep, None) if isinstance(keep, int) else keep  # 0 keeps all
        read.logits = torch.cat(logits, dim=1)[:, kept]
        if labels is None:
            return read
        width = self.config.vocab_size
        loss = self.loss_function(read.logits, labels, vocab_size=width, **arguments)
        return type(read)(loss=loss, **read)

    def _shift(self, cache: Any, first: Tensor, chosen: Tensor) -> None:
        """Shift the first position of the chosen rows."""
        rows = chosen.nonzero().squeeze(-1)
        if not len(rows):
            return
        layers = cache.layers[self.config.quark_first_layer :]
        for layer, (key, value) in zip(layers, self.quark_shift, strict=True):
            layer.keys = _moved(layer.keys, rows, first[rows], key)
            layer.values = _moved(layer.values, rows, first[rows], value)


def _moved(states: Tensor, rows: Tensor, places: Tensor, shift: Tensor) -> Tensor:
    """`states` (rows, heads, time, width), one place of some rows moved by (heads, width)."""
    moved = states.clone()
    moved[rows, :, places] += shift.to(states.dtype)
    return moved
