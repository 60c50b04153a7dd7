"""What a learner gets in a round, and what it returns: methods that learn from scored samples.

A learner is a function `learner(given: Round, settings) -> Learnt`, named by `Rounds.learner` in
the method's spec. `quark learn` calls it, and keeps what it returns.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from quark.config import Precision
from quark.models.checkpoint import Moments
from quark.models.lm import Policy
from quark.models.reference_cache import ReferenceCache
from quark.training.trainer import Rows


class Before(NamedTuple):
    """What the iteration before left.

    `moments`, `step`: the optimiser's moments, and the steps taken so far.
    `notes`: its checkpoint.json, with the learner's own notes.
    `beside`: the tensors that the learner kept beside the policy, by name.
    """

    moments: Moments
    step: int
    notes: Mapping[str, Any]
    beside: Mapping[str, Tensor]


class Round(NamedTuple):
    """The scored samples of one round.

    `policy`: sampled the rows; it learns in place, and only what may learn requires a gradient.
    `base`: the frozen model it is kept near to.
    `rows`, `reward`: what was sampled, and each response's reward, (rows,).
    `min_new_tokens`: end ids were impossible in so many first tokens.
    `iteration`: 0, 1, ... `share`: this iteration's share of all iterations' samples.
    `precision`: of matrix products. `seed_name`: of random streams.
    `memory_mb`: bounds the rows of a micro-batch.
    `cache`: the last hidden states of the policy's model, kept when it sampled; it may lack rows.
    `before`: None in the first iteration.
    """

    policy: Policy
    base: Policy
    rows: Rows
    reward: NDArray[np.float64]
    min_new_tokens: int
    iteration: int
    share: float
    precision: Precision
    seed_name: str
    memory_mb: int
    cache: ReferenceCache
    before: Before | None


class Learnt(NamedTuple):
    """What a learner returns.

    `moments`, `step`: the optimiser's moments and steps, from which the next iteration continues.
    `steps`: for each optimiser step its terms by name; `loss` is one of them.
    `summary`: numbers of the round for `training.json`.
    `sequences`: rows trained on, each pass over them counted. `tokens`: their response tokens.
    `notes`, `beside`: what the next iteration finds in `Before`.
    """

    moments: Moments
    step: int
    steps: list[dict[str, float]]
    summary: Mapping[str, float]
    sequences: int
    tokens: int
    notes: Mapping[str, Any] = {}
    beside: Mapping[str, Tensor] = {}


Learner = Callable[[Round, Any], Learnt]
