"""CTRL: a model that was pretrained with control codes (Keskar et al. 2019).

It continues a control text, such as `Reviews Rating: 5.0`, followed by the prompt. To avoid
repetition, the logit z of every token that it has read, control text and prompt included, is
lowered before temperature and truncation (section 4.1; for z < 0 as in transformers, since the
paper divides for either sign):

    z / theta if z > 0, else z theta

theta is 1.2 in the published sentiment rows (DExperts; protocol 6); 1 lowers nothing. Nothing is
trained. The model has a vocabulary of its own: its tokens are words and pieces of words, whereas
the other methods' are bytes. So 20 tokens are another length of text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quark import config
from quark.config import Precision
from quark.generation.decoding import Decoder, Decoding, NextToken
from quark.models.decode_state import DecodeState, read
from quark.models.lm import Policy, encode, load_model, load_tokenizer


def decoder(
    model: Path, parts: Sequence[Path], settings: config.CTRL, precision: Precision
) -> Decoder:
    """The model under its control text; `parts` is empty.

    Raises:
        ModelError: there is no such model, or its logits are not a linear layer of its states.
    """
    policy = load_model(model, precision, biased=True)
    (control,) = encode(load_tokenizer(model), [settings.control])
    return Controlled(policy, control, settings.penalty)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits (rows, V), lowered where a token was seen; unchanged if the penalty is 1."""
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


class Controlled:
    """A policy that reads a control text before every prompt.

    Args:
        policy: the policy that is decoded; its output layer may have a bias.
        control: token ids of the control text.
        penalty: theta, from 1.
    """

    def __init__(self, policy: Policy, control: Sequence[int], penalty: float) -> None:
        self.policy, self.control, self.penalty = policy, list(control), penalty
        self.models: Sequence[Policy] = [policy]

    def read(self, prompts: Sequence[Sequence[int]]) -> Decoding:
        """Read the control text and then each prompt."""
        conditioned = [[*self.control, *prompt] for prompt in prompts]
        seen = torch.zeros(len(conditioned), self.policy.vocabulary, dtype=torch.bool)
        for row, ids in zip(seen, conditioned, strict=True):
            row[ids] = True
        return _Writing(self, read(self.policy, conditioned), seen.to(self.policy.head.device))


@dataclass
class _Writing:
    """Texts being written; `seen` (rows, V): which tokens each holds."""

    how: Controlled
    reading: DecodeState
    seen: Tensor

    @property
    def hidden(self) -> Tensor:
        return self.reading.hidden

    def next_token(self, forbidden: Sequence[int] = ()) -> NextToken:
        logits: Tensor = self.how.policy.lm.get_output_embeddings()(self.reading.hidden)
        logits = penalised(logits, self.seen, self.how.penalty)
        logits[:, list(forbidden)] = -torch.inf
        return NextToken(logits)

    def select(self, rows: Tensor) -> None:
        self.reading.select(rows)
        self.seen = self.seen[rows]

    def feed(self, ids: Tensor) -> None:
        self.reading.feed(ids[:, None], torch.ones_like(ids, dtype=torch.bool)[:, None])
        self.seen = self.seen.scatter(-1, ids[:, None], True)
