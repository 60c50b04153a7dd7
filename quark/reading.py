"""Read prompts under their reward tokens, and go on from there.

The sampler, the judge, the gauge and the trainer all read prompts here, so there is one place that
knows where a reward token stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quark.lm import Policy, pad
from quark.reward_tokens import SinkTokens


class PromptLengthError(ValueError):
    """A prompt that is empty, or leaves no room for its continuation in the model's context."""


def check_lengths(
    policy: Policy, prompts: Sequence[Sequence[int]], names: Sequence[str], new_tokens: int
) -> None:
    """Refuse a prompt that is too short, or too long for `new_tokens` more.

    Raises:
        PromptLengthError: names the first such prompt.
    """
    sink = isinstance(policy.reward_tokens, SinkTokens)
    for name, ids in zip(names, prompts, strict=True):
        token = int(bool(ids) and ids[0] >= policy.vocabulary)
        least = 2 if sink and token else 1
        room = policy.context - new_tokens - token
        if not least <= len(ids) - token <= room:
            raise PromptLengthError(
                f"prompt {name} has {len(ids) - token} tokens, but needs {least} to {room} to have "
                "room in the model's context: drop or change it in the prompts' source"
            )


@dataclass
class Reading:
    """What a policy has read: rows of one batch, each with its cache.

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

    def feed(self, ids: Tensor, real: Tensor) -> Tensor:
        """Read on: ids and real (rows, time), padded on the right; last hidden states."""
        self.real = torch.cat([self.real, real], dim=1)
        steps = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        read = self.policy.hidden(
            ids,
            attention_mask=self.real,
            position_ids=self.position + steps,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.position = self.position + ids.shape[1]
        hidden: Tensor = read.last_hidden_state
        self.hidden = hidden[:, -1]
        return hidden


def read(policy: Policy, prompts: Sequence[Sequence[int]]) -> Reading:
    """Read prompts, all with or all without a reward token's id (V + k) before them.

    Prompts are padded on the left, so that what follows stands in the same columns.
    """
    tokens = policy.reward_tokens
    if isinstance(tokens, SinkTokens) and prompts[0][0] >= policy.vocabulary:
        return _read_with_sink(policy, tokens, prompts)
    return _read(policy, *pad(prompts, "left"))


def _read(policy: Policy, ids: Tensor, real: Tensor) -> Reading:
    position = (real.cumsum(-1) - 1).clamp(min=0)
    read = policy.hidden(ids, attention_mask=real, position_ids=position, use_cache=True)
    hidden = read.last_hidden_state[:, -1]
    return Reading(policy, read.past_key_values, hidden, real, position[:, -1:])


def _read_with_sink(
    policy: Policy, tokens: SinkTokens, prompts: Sequence[Sequence[int]]
) -> Reading:
    """Read all but the last token plainly, shift the first position, read the last token.

    Padding stands after the first token, so that the first position of all rows is column 0.
    """
    device = policy.head.device
    quantile = torch.tensor([ids[0] - policy.vocabulary for ids in prompts], device=device)
    first = torch.tensor([[ids[1]] for ids in prompts], device=device)
    rest, real = pad([ids[2:-1] for ids in prompts], "left")
    ids = torch.cat([first, rest], dim=1)
    reading = _read(policy, ids, torch.cat([torch.ones_like(first, dtype=torch.bool), real], dim=1))
    tokens.shift(reading.cache, quantile)
    last = torch.tensor([[ids[-1]] for ids in prompts], device=device)
    reading.feed(last, torch.ones_like(last, dtype=torch.bool))
    return reading


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
        owner: for each response the place of its prompt; None: each prompt has one response.
    """
    reading = read(policy, prompts)
    if owner is not None:
        reading.select(torch.tensor(owner, device=reading.hidden.device))
    ids, real = pad(responses, "right")
    hidden = reading.hidden[:, None]
    if ids.shape[1] > 1:
        hidden = torch.cat([hidden, reading.feed(ids[:, :-1], real[:, :-1])], dim=1)
    return hidden[real]
