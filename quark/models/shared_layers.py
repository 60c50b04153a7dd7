"""Models that differ only in their top layers: the layers that they share are run once.

An expert with trained top layers has the lower layers of the base model. So it does not read the
text again: it takes the base model's hidden states after those layers, and runs only its own
layers, which have a cache of their own. The result is the same, bit for bit.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from quark.core.seeds import stream
from quark.models.decode_state import read_padded
from quark.models.lm import Policy, layers_of, pad

PROOF_TOKENS = 64
"""Length of the random text on which the model with shared layers must give equal states."""


class Upper(Policy):
    """The top layers of a policy, which read the states from another policy's lower layers.

    The caller must let the other policy read the same rows and positions first, each time.
    """

    def __init__(self, lm: Any, below: "_Tap") -> None:
        super().__init__(lm)
        self.below = below

    def embed(self, ids: Tensor) -> Tensor:
        """The hidden states (rows, time, d) that the other model had at these ids.

        Raises:
            RuntimeError: the other model did not read them just before.
        """
        hidden = self.below.hidden
        if hidden is None or hidden.shape[:2] != ids.shape:
            raise RuntimeError("the model below must read the same ids first")
        return hidden


class _Tap:
    """The last input of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.hidden: Tensor | None = None
        self.hook = layer.register_forward_pre_hook(self._see)

    def _see(self, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.hidden = arguments[0]


def share_trunk(base: Policy, other: Policy) -> Policy:
    """A policy that gives `other`'s output, if `base` has just read the same text.

    It is `other` itself if the two share no layer, or if the architecture changes the embeddings
    before its first layer, as GPT-2 adds positions. Otherwise `other` must not be used any more:
    its top layers then belong to the new policy.
    """
    layers, others = layers_of(base.lm), layers_of(other.lm)
    same = [_alike(one, two) for one, two in zip(layers, others, strict=True)]
    count = min(next((i for i, alike in enumerate(same) if not alike), len(same)), len(same) - 1)
    if not count or other.reward_tokens is not None or not _alike_beside_layers(base.lm, other.lm):
        return other
    expected = _states(other)
    tap = _Tap(layers[count])
    upper = Upper(_above(other.lm, count), tap)
    if torch.equal(_states(base, upper), expected):
        return upper
    tap.hook.remove()
    _renumber(others[count:], count)
    return other


@torch.no_grad()
def _states(*policies: Policy) -> Tensor:
    """The last policy's last hidden states (tokens, d) of two texts, read by all policies in turn.

    One text is padded, and the last tokens are read with the cache, as in decoding.
    """
    first = policies[0]
    length = min(PROOF_TOKENS, first.context - 1)
    text = stream("trunk", "text").integers(first.vocabulary, size=(2, length + 1)).tolist()
    ids, real = pad([text[0][:-1], text[1][: length // 2]], "left")
    last = torch.tensor([row[-1:] for row in text], device=ids.device)
    found = []
    for reading, states in [read_padded(policy, ids, real) for policy in policies]:
        found = [states[real], reading.feed(last, torch.ones_like(last, dtype=torch.bool))[:, 0]]
    return torch.cat(found)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _alike_beside_layers(one: nn.Module, other: nn.Module) -> bool:
    """Whether embeddings, last norm and head are the same."""
    inside = {id(p) for lm in (one, other) for p in layers_of(lm).parameters()}
    beside = ([p for p in lm.parameters() if id(p) not in inside] for lm in (one, other))
    return all(torch.equal(a, b) for a, b in zip(*beside, strict=True))


def _above(lm: Any, count: int) -> Any:
    """The language model without its lowest layers; it shares all modules with `lm`."""
    upper, trunk = _shallow(lm), _shallow(lm.base_model)
    upper._modules[lm.base_model_prefix] = trunk
    layers = layers_of(lm)
    name = next(key for key, module in trunk._modules.items() if module is layers)
    trunk._modules[name] = layers[count:]
    _renumber(layers[count:], -count)
    upper.config = trunk.config = copy.copy(lm.config)
    upper.config.num_hidden_layers = len(layers) - count
    return upper


def _shallow(module: nn.Module) -> Any:
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    return copied


def _renumber(layers: Any, by: int) -> None:
    """Add `by` to the layers' numbers, by which they find their cache."""
    for module in layers.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx += by
