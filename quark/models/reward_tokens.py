"""Reward tokens: three ways to condition a policy on a quantile.

    form        under quantile k                                              what is learned
    embedding   row k of a matrix precedes the prompt's embeddings            K x d numbers
    linear      logits = (h + c_k h W) E', the language model is frozen       d x d numbers
    sink        keys and values of the prompt's first position move by c_k B  2 x layers x width

`embedding` is the paper's form. The official code enlarges the embedding matrix; here the K rows
are a separate matrix. So policy and base model share one vocabulary, a reward token can never be
sampled, and no softmax has to exclude it.

`linear` is the form of LM-Steer (Han et al. 2024, "Word embeddings are steers for language models",
ACL), which trains it on labelled text; here Quark's loss trains it.

    symbol  meaning                                                          shape
    h       last hidden states of the frozen base model                      (tokens, d)
    E       output embeddings of the base model                              (V, d)
    W       the map; zero before training: every token gives the base model  (d, d)
    c_k     place of quantile k: +1 (best) to -1 (worst) in equal steps      scalar

The frozen model's hidden states of a text are the same under every token. So training needs only
the hidden states that sampling computed, and the policy under one token is a standard model with
output embeddings E (I + c W)' (`merged_head`). Places beyond 1 are allowed when decoding: logits at
place c are base + c/2 (best - worst), an extrapolation.

`sink` is our own form, for the repetition task. A linear map's shift depends on h alone, and on
that task it hardly learned to avoid repeating earlier text (docs/negative-results.md). Causal
language models attend to the first position when no other position is relevant (Xiao et al. 2024,
"Efficient streaming language models with attention sinks"), so a shift there affects all later
positions. It is prefix-tuning (Li & Liang 2021) without an added position. At B = 0 the policy is
the base model; places are -1 (best) to +1 (worst). The shift affects the last position of the
prompt and the response; the base model reads the rest of the prompt unshifted.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from quark.config import ConfigError, RewardTokens
from quark.core.seeds import stream

MEASURED_TOKENS = 256
"""Length of the random text on which the deviation of keys and values is measured."""


class EmbeddingTokens(nn.Module):
    """K rows of the embeddings' width d: zero at first, then drawn like the embeddings.

    Args:
        count: K.
        embeddings: the model's (V, d) embedding matrix.
    """

    def __init__(self, count: int, embeddings: Tensor) -> None:
        super().__init__()
        self.count = count
        self.rows = nn.Parameter(torch.zeros(count, embeddings.shape[1], device=embeddings.device))

    @torch.no_grad()
    def draw(self, embeddings: Tensor, seed: int) -> None:
        """Draw each dimension from a normal with the embedding matrix's mean and deviation."""
        normal = torch.from_numpy(stream("reward tokens", seed).standard_normal(self.rows.shape))
        embeddings = embeddings.float()
        self.rows.copy_(embeddings.mean(0) + embeddings.std(0) * normal.to(embeddings))


class LinearTokens(nn.Module):
    """One linear map of the last hidden state, and K places on its axis.

    Args:
        count: K; with one token its place is +1.
        head: the model's (V, d) output embeddings; only width and device are used.
    """

    place: Tensor

    def __init__(self, count: int, head: Tensor) -> None:
        super().__init__()
        self.count = count
        width = head.shape[1]
        self.map = nn.Parameter(torch.zeros(width, width, device=head.device))
        places = [1 - 2 * k / max(1, count - 1) for k in range(count)]
        self.register_buffer("place", torch.tensor(places, device=head.device), persistent=False)

    @property
    def silent(self) -> int | None:
        """The quantile whose place is 0, the base model's; None if K is even."""
        return self.count // 2 if self.count % 2 and self.count > 1 else None

    def shift(self, hidden: Tensor, place: Tensor | float) -> Tensor:
        """Return c h W in float32, (tokens, d): the shift of the last hidden states h.

        Args:
            hidden: (tokens, d) last hidden states of the base model, of any precision.
            place: c, one number, or one for each token, (tokens,).
        """
        if isinstance(place, Tensor):
            place = place[..., None]
        return place * (hidden.float() @ self.map)

    @torch.no_grad()
    def merged_head(self, head: Tensor, place: float) -> Tensor:
        """Return E (I + c W)', the output embeddings (V, d) of a standard model at place c."""
        whole = head.float()
        return (whole + place * (whole @ self.map.T)).to(head.dtype)


class SinkTokens(nn.Module):
    """One axis in the keys and values of the first position, in layers from `first_layer` on.

    Args:
        count: K.
        first_layer: layers below it are unchanged.
        deviation: (layers, 2) standard deviations of each layer's keys and values; the unit of B.
        shape: (heads, head width) of a key.
    """

    deviation: Tensor
    place: Tensor

    def __init__(
        self, count: int, first_layer: int, deviation: Tensor, shape: tuple[int, int]
    ) -> None:
        super().__init__()
        self.count = count
        self.first_layer = first_layer
        zeros = torch.zeros(len(deviation), 2, *shape, device=deviation.device)
        self.axis = nn.Parameter(zeros)
        self.register_buffer("deviation", deviation)
        place = torch.linspace(-1, 1, count, device=deviation.device)
        self.register_buffer("place", place, persistent=False)

    def shift(self, cache: Any, quantile: Tensor) -> None:
        """Shift the first position of a cache.

        Args:
            cache: keys and values (rows, heads, time, width) of every layer.
            quantile: (rows,) the quantile of each row's reward token.
        """
        place = self.place[quantile][:, None, None, None]
        scaled = self.axis * self.deviation[:, :, None, None]
        for layer, (key, value) in zip(cache.layers[self.first_layer :], scaled, strict=True):
            layer.keys = _shift_first(layer.keys, place * key[:, None])
            layer.values = _shift_first(layer.values, place * value[:, None])


def _shift_first(states: Tensor, shift: Tensor) -> Tensor:
    """`states` (rows, heads, time, width), its first position moved by (rows, heads, 1, width)."""
    return torch.cat([states[:, :, :1] + shift.to(states.dtype), states[:, :, 1:]], dim=2)


def new_reward_tokens(
    lm: PreTrainedModel, count: int, how: RewardTokens, seed: int
) -> EmbeddingTokens | LinearTokens | SinkTokens | None:
    """Reward tokens for `lm` before any training; None if their form is none.

    Args:
        lm: the language model they belong to.
        count: K.
        how: their form.
        seed: of the drawn rows.

    Raises:
        ConfigError: the model has no layer `how.first_layer`.
    """
    if how.form == "none":
        return None
    if how.form == "linear":
        return LinearTokens(count, cast(nn.Linear, lm.get_output_embeddings()).weight)
    if how.form == "embedding":
        embeddings = cast(nn.Embedding, lm.get_input_embeddings()).weight
        tokens = EmbeddingTokens(count, embeddings)
        tokens.draw(embeddings, seed)
        return tokens
    deviation, shape = _measure(lm)
    if how.first_layer >= len(deviation):
        raise ConfigError(
            f"quark.reward_tokens.first_layer is {how.first_layer}, but the model's layers are "
            f"0 to {len(deviation) - 1}"
        )
    return SinkTokens(count, how.first_layer, deviation[how.first_layer :], shape)


@torch.no_grad()
def _measure(lm: PreTrainedModel) -> tuple[Tensor, tuple[int, int]]:
    """Deviations (layers, 2) of keys and values after the first position; (heads, head width)."""
    vocabulary = cast(nn.Embedding, lm.get_input_embeddings()).num_embeddings
    length = min(MEASURED_TOKENS, getattr(lm.config, "max_position_embeddings", MEASURED_TOKENS))
    text = stream("reward tokens", "text").integers(vocabulary, size=(1, length))
    ids = torch.from_numpy(text).to(lm.device)
    layers = lm.base_model(ids, use_cache=True).past_key_values.layers
    states = [(layer.keys, layer.values) for layer in layers]
    deviation = [[s[:, :, 1:].float().std() for s in pair] for pair in states]
    heads, width = states[0][0].shape[1], states[0][0].shape[3]
    return torch.stack([torch.stack(pair) for pair in deviation]), (heads, width)
