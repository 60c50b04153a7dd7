"""RLOO: REINFORCE with the other samples as baseline (Ahmadian et al. 2024, ACL).

For a response y with reward r in a group of responses to the same prompt,

    R = r - beta log [ p_old(y) / q(y) ]        the KL to the base model q is part of the reward
    A = R - mean of R over the other responses of the group
    loss = -min(rho A, clip(rho, 1 - eps, 1 + eps) A),    rho = p(y) / p_old(y)

p_old is the policy that sampled. The whole response is one action: p(y) is the product over its
tokens. At rho = 1 the gradient is REINFORCE's, A times that of -log p(y). Everything is in nats.
Source: "Back to basics", equations 5 to 7 [recalled]. The paper has no clipped ratio, nor has the
default. In the first round the policy that drew the samples is the base model, so this KL is 0.

There is no value function. The first round uses Quark's samples of the base model; later rounds
sample from the policy that is being trained.

This module imports torch only inside functions, so that Snakemake reads its spec quickly.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from quark.config.spec import GroupedTraining, RoundSettings, learns_in_rounds
from quark.config.types import NonNegative, Positive
from quark.maths.groups import leave_one_out

if TYPE_CHECKING:
    from torch import Tensor

    from quark.training.rounds import Learnt, Round
    from quark.training.trainer import Rows


class RLOOTraining(GroupedTraining):
    """How it learns."""

    clip: Positive | None = Field(
        description="eps, the largest change of a response's probability ratio; null: any"
    )
    kl_coef: NonNegative = Field(description="beta, of the KL in the reward")


class RLOO(RoundSettings):
    """Its settings."""

    training: RLOOTraining


SPEC = learns_in_rounds("rloo", "RLOO", RLOO, look=("#7F7F7F", "p"))


def losses(
    logprob: "Tensor", old: "Tensor", advantage: "Tensor", clip: float | None
) -> "dict[str, Tensor]":
    """The loss and its parts, summed over responses.

    Args:
        logprob, old: (rows,) log p of the responses in nats, under the policy and the one that
            sampled.
        advantage: (rows,).
        clip: eps; None: the ratio is not clipped.
    """
    import torch

    ratio = (logprob - old).exp()
    if clip is None:
        return {"loss": -(ratio * advantage).sum()}
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return {
        "loss": -torch.minimum(ratio * advantage, clipped * advantage).sum(),
        "clipped": ((ratio - 1).abs() > clip).sum(),
    }


def learner(given: "Round", settings: RLOOTraining) -> "Learnt":
    """One round of RLOO.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    import torch

    from quark.training.actor import Actor
    from quark.training.rounds import rows_together, train_round

    actor, together = Actor(given.policy, given.min_new_tokens), rows_together(given, settings)
    old, ref = actor.roll_out(given, together)
    kl = given.rows.sums(old - ref).double().cpu().numpy()
    advantage = leave_one_out(given.reward - settings.kl_coef * kl, given.group)
    lengths = given.rows.lengths
    of_row = torch.from_numpy(advantage).float().repeat_interleave(lengths).to(old)
    rows = given.rows._replace(of_tokens={"old": old, "advantage": of_row})

    def loss(part: "Rows") -> "dict[str, Tensor]":
        now, before = actor.logprob_now(part, given), part.of_tokens["old"]
        first = (part.lengths.cumsum(0) - part.lengths).to(before.device)
        own = part.of_tokens["advantage"][first]
        return losses(part.sums(now), part.sums(before), own, settings.clip)

    return train_round(
        actor,
        given,
        settings,
        rows,
        loss,
        summary={"kl": float(kl.mean())},
        weights=[1] * len(rows.ids),
        micro_batch=together,
    )
