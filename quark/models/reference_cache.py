"""A cache of the base model's last hidden states for sampled responses.

The base model is frozen and a response never changes, so these hidden states are computed once.
Sampling computes them anyway when it runs the frozen base model: in iteration 0, and with linear
reward tokens in every iteration. The others are computed when a row is first trained on; if several
processes train, those of the first process are kept. The cache holds hidden states, not logits: d
numbers a token instead of V. In float16 or bfloat16, 2 million responses of 20 tokens take 46 GB at
width 576 and 102 GB at width 1280; `reference_cache: false` keeps none.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from quark.core.files import verify, whole
from quark.models.decode_state import response_hidden
from quark.models.lm import Policy
from quark.models.lora import adapters_off


class ReferenceCache:
    """Last hidden states of the base model that predict a row's response, by row id.

    Args:
        files: files that `save` wrote; their data are read from disk when needed.

    Raises:
        DamagedError: a file differs from what its stage wrote.
    """

    def __init__(self, files: Sequence[Path] = ()) -> None:
        self._new: dict[str, Tensor] = {}
        self._hidden: dict[str, Tensor] = {}
        for file in files:
            self._hidden |= _load(file)

    @classmethod
    def gather(cls, files: Sequence[Path]) -> "ReferenceCache":
        """The content of several files in one cache, to save it as one file."""
        cache = cls()
        for file in files:
            cache._new |= _load(file)
        cache._hidden = dict(cache._new)
        return cache

    def missing(self, rows: Sequence[str]) -> list[int]:
        """The indices of the rows that are not in the cache yet."""
        return [i for i, row in enumerate(rows) if row not in self._hidden]

    def add(self, rows: Sequence[str], lengths: Sequence[int], hidden: Tensor) -> None:
        """Add hidden (all tokens, d) of rows, one after another, each of so many tokens."""
        parts = hidden.detach().cpu().split(list(lengths))
        added = dict(zip(rows, parts, strict=True))
        self._new |= added
        self._hidden |= added

    def get(self, rows: Sequence[str], device: torch.device) -> Tensor:
        """Hidden (all tokens, d) of the rows, one after another."""
        return torch.cat([self._hidden[row] for row in rows]).to(device)

    @torch.no_grad()
    def of(
        self,
        base: Policy,
        ids: Sequence[str],
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
    ) -> Tensor:
        """Hidden (all tokens, d) of rows, one after another; `base` reads those that are missing.

        Args:
            base: the frozen base model; adapters are switched off.
            ids: of the rows.
            prompts, responses: their token ids, without a reward token.
        """
        if unread := self.missing(ids):
            new = [responses[i] for i in unread]
            with adapters_off(base.lm):
                hidden = response_hidden(base, [prompts[i] for i in unread], new)
            self.add([ids[i] for i in unread], list(map(len, new)), hidden)
        return self.get(ids, base.head.device)

    def save(self, out: Path) -> None:
        """Write the added rows, whole or not at all."""
        hidden = list(self._new.values())
        tensors = {
            "hidden": torch.cat(hidden) if hidden else torch.empty(0),
            "lengths": torch.tensor([len(part) for part in hidden], dtype=torch.long),
        }
        with whole(out) as made:
            save_file(tensors, made, metadata={"rows": json.dumps(list(self._new))})


def _load(file: Path) -> dict[str, Tensor]:
    verify(file, file.with_name(f"{file.name.split('.')[0]}.json"))
    with safe_open(file, framework="pt") as content:
        rows = json.loads(content.metadata()["rows"])
    tensors = load_file(file)
    return dict(zip(rows, tensors["hidden"].split(tensors["lengths"].tolist()), strict=True))
