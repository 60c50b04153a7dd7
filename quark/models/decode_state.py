"""Run a model over prompts, and continue from there with its cache of keys and values.

The sampler, the judge and the trainers read prompts here, so embedded reward tokens and sinks are
handled in one place.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from quark.models.lm import Policy, pad
from quark.models.reward_tokens import SinkTokens


class PromptLengthError(ValueError):
    """A prompt that is empty, or leaves no room for its continuation in the model's context."""


def check_lengths(
    policy: Policy, prompts: Sequence[Sequence[int]], names: Sequence[str], new_tokens: int
) -> None:
    """Refuse an empty prompt, and one too long for `new_tokens` more.

    Raises:
        PromptLengthError: names the first such prompt.
    """
    for name, ids in zip(names, prompts, strict=True):
        token = int(bool(ids) and ids[0] >= policy.vocabulary)
        room = policy.context - new_tokens - token
        if not 0 < len(ids) - token <= room:
            raise PromptLengthError(
                f"prompt {name} has {len(ids) - token} tokens, but needs 1 to {room} to have "
                "room in the model's context: drop or change it in the prompts' source"
            )


@dataclass
class DecodeState:
    """The state of a policy after reading: rows of one batch, each with its cache.

    `hidden` (rows, d): last hidden state of the last position read, which predicts the next token.
    `real` (rows, time): which positions of the cache are not padding.
    `position` (rows, 1): the last position's number in its text.
    """

    policy: Policy
    cache: Any
    hidden: Tensor
    real: Tensor
    position: Tensor

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        self.cache.batch_select_indices(rows)
        self.hidden, self.real = self.hidden[rows], self.real[rows]
        self.position = self.position[rows]

    def fork(self) -> "DecodeState":
        """A copy of this state; to feed the copy does not change this state."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]  # feed replaces their tensors
        return replace(self, cache=cache)

    def feed(self, ids: Tensor, real: Tensor) -> Tensor:
        """Read further ids; both (rows, time), padded on the right; return last hidden states."""
        return self.feed_embedded(self.policy.embed(ids), real)

    def feed_embedded(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Read further tokens, given as embeddings (rows, time, d)."""
        self.real = torch.cat([self.real, real], dim=1)
        steps = torch.arange(1, embedded.shape[1] + 1, device=embedded.device)
        read = self.policy.lm.base_model(
            inputs_embeds=embedded,
            attention_mask=self.real,
            position_ids=self.position + steps,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + embedded.shape[1]
        hidden: Tensor = read.last_hidden_state
        self.hidden = hidden[:, -1]
        return hidden


def read(policy: Policy, prompts: Sequence[Sequence[int]]) -> DecodeState:
    """Read prompts, all with or all without a reward token's id (V + k) before them.

    Prompts are padded on the left, so that all continuations start in the same column.
    """
    if _at_the_sink(policy, prompts):
        return _read_with_sink(policy, prompts)
    return _read(policy, *pad(prompts, "left"))


def _at_the_sink(policy: Policy, prompts: Sequence[Sequence[int]]) -> bool:
    """Whether the prompts begin with reward tokens that shift the attention sink."""
    return isinstance(policy.reward_tokens, SinkTokens) and prompts[0][0] >= policy.vocabulary


def _read(policy: Policy, ids: Tensor, real: Tensor) -> DecodeState:
    return read_padded(policy, ids, real)[0]


def read_padded(policy: Policy, ids: Tensor, real: Tensor) -> tuple[DecodeState, Tensor]:
    """Read ids (rows, time), real or padding; also return all last hidden states (.., d)."""
    position = (real.cumsum(-1) - 1).clamp(min=0)
    read = policy.hidden(ids, attention_mask=real, position_ids=position, use_cache=True)
    last = (real * torch.arange(real.shape[1], device=real.device)).argmax(-1)
    states: Tensor = read.last_hidden_state
    hidden = states[torch.arange(len(ids), device=ids.device), last]
    place = real.sum(-1, keepdim=True) - 1
    return DecodeState(policy, read.past_key_values, hidden, real, place), states


def _read_with_sink(policy: Policy, prompts: Sequence[Sequence[int]]) -> DecodeState:
    """Read all but the last token plainly, shift the first position, read the last token."""
    reading, left = _read_all_but_last(policy, [ids[1:] for ids in prompts])
    _shift(policy, reading, prompts)
    last = torch.tensor([[ids[-1]] for ids in prompts], device=policy.head.device)
    plain = reading.hidden
    reading.feed(last, left)
    reading.hidden = torch.where(left, reading.hidden, plain)
    return reading


def _shift(policy: Policy, reading: DecodeState, prompts: Sequence[Sequence[int]]) -> None:
    """Shift the first position of each row by its prompt's reward token."""
    named = [ids[0] - policy.vocabulary for ids in prompts]
    tokens = cast(SinkTokens, policy.reward_tokens)
    tokens.shift(reading.cache, torch.tensor(named, device=policy.head.device))


def _read_all_but_last(
    policy: Policy, prompts: Sequence[Sequence[int]]
) -> tuple[DecodeState, Tensor]:
    """Read plain prompts without their last token; also return (rows, 1) whether one is left.

    A prompt of one token is read whole; the shift then takes effect from the second new token.
    Padding comes after the first token, so that the first position of all rows is column 0.
    """
    device = policy.head.device
    first = torch.tensor([[ids[0]] for ids in prompts], device=device)
    rest, real = pad([ids[1:-1] for ids in prompts], "left")
    ids = torch.cat([first, rest], dim=1)
    real = torch.cat([torch.ones_like(first, dtype=torch.bool), real], dim=1)
    reading = _read(policy, ids, real)
    left = torch.tensor([[len(ids) > 1] for ids in prompts], device=device)
    reading.position = reading.position - (~left).long()
    return reading, left


def response_hidden(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    owner: Sequence[int] | None = None,
) -> Tensor:
    """The last hidden states (all response tokens, d) that predict the responses, row after row.

    Args:
        policy: the model.
        prompts: token ids, reward token included.
        responses: token ids, at least one in all.
        owner: for each response the index of its prompt; None: each prompt has one response.
    """
    if owner is None and not _at_the_sink(policy, prompts):
        return _in_one_pass(policy, prompts, responses)
    reading = read(policy, prompts)
    if owner is not None:
        reading.select(torch.tensor(owner, device=reading.hidden.device))
    ids, real = pad(responses, "right")
    hidden = reading.hidden[:, None]
    if ids.shape[1] > 1:
        hidden = torch.cat([hidden, reading.feed(ids[:, :-1], real[:, :-1])], dim=1)
    return hidden[real]


def _in_one_pass(
    policy: Policy, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> Tensor:
    """Prompt and response read as one text, without a cache."""
    ids, real = pad([[*p, *r[:-1]] for p, r in zip(prompts, responses, strict=True)], "right")
    predicting = torch.zeros_like(real)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        predicting[row, len(prompt) - 1 : len(prompt) - 1 + len(response)] = True
    read = policy.hidden(ids, attention_mask=real, use_cache=False)
    hidden: Tensor = read.last_hidden_state
    return hidden[predicting]
