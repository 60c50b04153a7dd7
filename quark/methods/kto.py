"""KTO: each sample is wanted or unwanted, without pairs (Ethayarajh et al. 2024, ICML).

    loss = 1 - sigmoid( beta (r - z) )  of a wanted response y
           1 - sigmoid( beta (z - r) )  of an unwanted one
    r = log p(y)/q(y),   z = max(0, KL(p || q)),   p the policy, q the base model

Wanted are the samples of a prompt with the highest reward, unwanted those with the lowest, as in
DPO; prompts whose samples all have the same reward are left out. So there are equally many of each,
and both have the weight 1. Log-probabilities are of whole responses, in nats. Source: section 4.1
and equation 8 [recalled].

Departure: the paper estimates z anew in each batch, from responses put after other prompts. Here z
is estimated once for a round, from the round's samples, which the policy drew when the round began:
the mean of log p(y)/q(y). If the samples are truncated (top-p), this is not quite the KL. In the
first round the policy is the base model, so z is 0.

This module imports torch only inside functions, so that Snakemake reads its spec quickly.
"""

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from quark.config.spec import GroupedTraining, RoundSettings, learns_in_rounds
from quark.config.types import Positive
from quark.maths.groups import best_and_worst

if TYPE_CHECKING:
    from torch import Tensor

    from quark.training.rounds import Learnt, Round
    from quark.training.trainer import Rows


class KTOTraining(GroupedTraining):
    """How it learns."""

    beta: Positive = Field(description="beta, how much the log-ratios weigh")


class KTO(RoundSettings):
    """Its settings."""

    training: KTOTraining


SPEC = learns_in_rounds(
    "kto",
    "KTO",
    KTO,
    look=("#98DF8A", "$k$"),
    trains_on=lambda config: min(1.0, 2 / config.quark.first_samples),
)


def losses(ratio: "Tensor", wanted: "Tensor", kl: float, beta: float) -> "dict[str, Tensor]":
    """The loss, and how many ratios are on the right side of z, summed.

    Args:
        ratio: (rows,) r in nats.
        wanted: (rows,) 1 for a wanted response, -1 for an unwanted one.
        kl: the estimate of KL(p || q) in nats; below 0 it counts as 0.
        beta: the weight of the ratios.
    """
    away = wanted * (ratio - max(0.0, kl))
    return {"loss": (1 - (beta * away).sigmoid()).sum(), "right": (away > 0).sum()}


def learner(given: "Round", settings: KTOTraining) -> "Learnt":
    """One round of KTO.

    Raises:
        ValueError: no prompt has samples of different rewards.
        NonFiniteLossError: the loss is infinite or NaN.
    """
    import torch

    from quark.training.actor import Actor
    from quark.training.rounds import rows_together, train_round

    actor, together = Actor(given.policy, given.min_new_tokens), rows_together(given, settings)
    best, worst = (rows.tolist() for rows in best_and_worst(given.reward, given.group))
    old, ref = actor.roll_out(given, together)
    kl = float(given.rows.sums(old - ref).double().mean())
    used = given.rows._replace(of_tokens={"ref": ref}).take([*best, *worst])
    rows = used._replace(label=np.repeat(np.array([0, 1], dtype=np.int32), len(best)))

    def loss(part: "Rows") -> "dict[str, Tensor]":
        ratio = part.sums(actor.logprob_now(part, given) - part.of_tokens["ref"])
        wanted = torch.from_numpy(1 - 2 * part.label).to(ratio)
        return losses(ratio, wanted, kl, settings.beta)

    return train_round(
        actor,
        given,
        settings,
        rows,
        loss,
        summary={"kl": kl},
        weights=[1] * len(rows.ids),
        rounds_left=settings.iterations - given.iteration,  # each with about as many rows
        micro_batch=together,
    )
