"""RAFT: plain training on the best samples, round after round (Dong et al. 2023, TMLR).

    loss = -log p(y),  y among the best share of a round's samples

It resembles Quark with the best quantile alone and without the KL penalty. More differs under the
default settings: it samples at place 1, continues its map, and forgets earlier rounds. The best
samples are chosen as Quark sorts them, over all prompts (`within: round`), or among each prompt's
own (`within: prompt`); the paper keeps one of each prompt's [recalled]. With linear reward tokens
the one map learns at place 1.

The first round uses Quark's samples of the base model; later rounds sample from the policy that is
being trained.

This module imports torch only inside functions, so that Snakemake reads its spec quickly.
"""

from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from quark.config.spec import RoundSettings, RoundTraining, learns_in_rounds
from quark.maths.groups import best_first

if TYPE_CHECKING:
    from torch import Tensor

    from quark.training.rounds import Learnt, Round
    from quark.training.trainer import Rows


class RAFTTraining(RoundTraining):
    """How it learns."""

    kept: Annotated[float, Field(gt=0, le=1)] = Field(description="share of the samples it keeps")
    within: Literal["round", "prompt"] = Field(
        description="round: the best of all samples; prompt: the best of each prompt's"
    )


class RAFT(RoundSettings):
    """Its settings."""

    training: RAFTTraining


SPEC = learns_in_rounds(
    "raft",
    "RAFT",
    RAFT,
    look=("#17BECF", "8"),
    summary=("mean_reward", "kept"),
    trains_on=lambda config: cast(RAFT, config.plugin("raft")).training.kept,
    whole_distribution=False,
)


def best(reward: NDArray[np.float64], group: NDArray[np.int64], kept: float) -> NDArray[np.int64]:
    """Places of the best rows of each group, in their order: ceil(kept x size) of each.

    Among equal rewards the first rows are taken.
    """
    order, first, count = best_first(reward, group)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(first, count)
    limit = np.ceil(kept * np.bincount(group)[group] - 1e-9)
    return np.flatnonzero(rank < limit)


def learner(given: "Round", settings: RAFTTraining) -> "Learnt":
    """One round of RAFT.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    from quark.training.actor import Actor
    from quark.training.rounds import rows_together, train_round

    actor = Actor(given.policy, given.min_new_tokens)
    group = given.group if settings.within == "prompt" else np.zeros_like(given.group)
    rows = given.rows.take(best(given.reward, group, settings.kept).tolist())

    def loss(part: "Rows") -> "dict[str, Tensor]":
        return {"loss": -actor.logprob_now(part, given).sum()}

    return train_round(
        actor,
        given,
        settings,
        rows,
        loss,
        summary={"kept": float(len(rows.ids))},
        weights=rows.lengths.tolist(),
        micro_batch=rows_together(given, settings),
    )
