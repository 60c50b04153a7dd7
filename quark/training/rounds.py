"""What a learner gets in a round, and what it returns: methods that learn from scored samples.

A learner is a function `learner(given: Round, settings) -> Learnt`, named by `Rounds.learner` in
the method's spec. `quark learn` calls it, and keeps what it returns. Most learners roll out (see
`quark.training.actor`), weigh each token, and call `train_round`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from quark.config import Optimisation, Precision
from quark.config.spec import RoundTraining
from quark.core.seeds import stream
from quark.models.checkpoint import Moments
from quark.models.decode_state import check_lengths
from quark.models.lm import Policy
from quark.models.memory import rows_for_training
from quark.models.reference_cache import ReferenceCache
from quark.training.trainer import Rows, Trainer, epochs, steps_of


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
    `group`: (rows,) rows with the same number continue the same prompt.
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
    group: NDArray[np.int64]
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


def rows_together(given: Round, settings: Optimisation) -> int:
    """How many rows of a round fit into memory together.

    Raises:
        PromptLengthError: a row is longer than the model's context.
    """
    rows = given.rows
    conditioned = [given.policy.condition(prompt, 0) for prompt in rows.prompts]
    check_lengths(given.policy, conditioned, rows.ids, int(max(rows.lengths)))
    return rows_for_training(
        given.policy,
        given.base,
        max(rows.whole_lengths),
        given.memory_mb,
        settings.gradient_checkpointing,
    )


def train_round(
    module: nn.Module,
    given: Round,
    settings: RoundTraining,
    rows: Rows,
    loss: Callable[[Rows], dict[str, Tensor]],
    *,
    summary: Mapping[str, float],
    weights: Sequence[int],
    micro_batch: int,
    rate: Callable[[str], float] | None = None,
    rounds_left: int | None = None,
) -> Learnt:
    """Train a module on a round's rows; the learning rate decays over all rounds.

    Args:
        module: its parameters that require a gradient learn; it contains the policy.
        given: the round.
        settings: the optimiser's numbers, and how many passes over the rows.
        rows: the round's rows, with `of_tokens`.
        loss: sums over some rows, by name; `loss` is minimised.
        summary: numbers of the round; the mean reward is added.
        weights: (rows,) what each row adds to the divisor of a batch's sums: its tokens, or 1.
        micro_batch: rows that fit into memory together.
        rate: the learning rate of a parameter, by its name; None: the settings' rates of reward
            tokens and of the model.
        rounds_left: this and later rounds, if all have as many steps; None: a round's steps are in
            proportion to its samples.

    Returns:
        What the learner returns, without notes and tensors beside the policy.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    steps = steps_of(len(rows.ids), settings.batch, settings.epochs)
    total = max(steps, round(steps / given.share))
    if rounds_left is not None:
        total = (given.before.step if given.before else 0) + rounds_left * steps
    rates = {True: settings.token_learning_rate, False: settings.learning_rate}
    trainer = Trainer(
        module,
        settings,
        rate or (lambda name: rates["reward_tokens" in name]),
        total_steps=total,
        lengths=rows.whole_lengths,
        micro_batch=micro_batch,
        resume=given.before and (given.before.moments, given.before.step),
    )
    curve = epochs(
        trainer,
        rows,
        loss,
        count=settings.epochs,
        weights=weights,
        rng=stream(given.seed_name, "order"),
        what=f"train {given.iteration}",
    )
    return Learnt(
        trainer.moments,
        trainer.taken,
        curve,
        {"mean_reward": float(given.reward.mean()), **summary},
        sequences=settings.epochs * len(rows.ids),
        tokens=settings.epochs * int(rows.lengths.sum()),
    )
