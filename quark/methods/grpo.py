"""GRPO: policy gradients with advantages over a prompt's other samples (Shao et al. 2024).

For a response y of T tokens with reward r in a group of responses to the same prompt,

    A = (r - mean of the group) / deviation of the group
    loss = -1/T sum_t [ min(rho_t A, clip(rho_t, 1 - eps, 1 + eps) A) - beta KL_t ]

    symbol  meaning
    rho_t   p(y_t) / p_old(y_t), p_old being the policy that sampled
    KL_t    q/p - log(q/p) - 1 at y_t, q being the base model: their estimate of KL(p || q), >= 0

Everything is in nats. With `normalise_deviation` and `normalise_length` off it is Dr. GRPO (Liu et
al. 2025, "Understanding R1-Zero-like training"): A is not divided, and the sum is divided by the
round's longest response's length in place of T; its authors divide by a fixed length and leave out
the KL (`kl_coef: 0`). The deviation has `quark.maths.groups.EPSILON` added. Source: DeepSeekMath,
equations 3 and 4 [recalled]. With two samples of a prompt A is about 1 or -1, however small the
difference of the rewards.

There is no value function. The first round uses Quark's samples of the base model; later rounds
sample from the policy that is being trained.

This module imports torch only inside functions, so that Snakemake reads its spec quickly.
"""

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from quark.config.spec import GroupedTraining, RoundSettings, learns_in_rounds
from quark.config.types import NonNegative, Positive
from quark.maths.groups import centred

if TYPE_CHECKING:
    from torch import Tensor

    from quark.training.rounds import Learnt, Round
    from quark.training.trainer import Rows


class GRPOTraining(GroupedTraining):
    """How it learns."""

    clip: Positive = Field(description="eps, the largest change of a token's probability ratio")
    kl_coef: NonNegative = Field(description="beta, of the KL in the loss")
    normalise_deviation: bool = Field(description="divide by the group's deviation")
    normalise_length: bool = Field(description="divide by each response's own length")


class GRPO(RoundSettings):
    """Its settings."""

    training: GRPOTraining


SPEC = learns_in_rounds("grpo", "GRPO", GRPO, look=("#9467BD", "h"))


def losses(
    logprob: "Tensor",
    old: "Tensor",
    ref: "Tensor",
    advantage: "Tensor",
    share: "Tensor",
    settings: GRPOTraining,
) -> "dict[str, Tensor]":
    """The loss and its parts, summed over tokens.

    Args:
        logprob, old, ref: (tokens,) log p in nats under the policy, the one that sampled, the base.
        advantage: (tokens,) of each token's response.
        share: (tokens,) what each token is multiplied by: 1/T.
        settings: clip and beta.
    """
    import torch

    ratio = (logprob - old).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    policy = -torch.minimum(ratio * advantage, clipped * advantage)
    kl = (ref - logprob).exp() - (ref - logprob) - 1
    return {
        "loss": (share * (policy + settings.kl_coef * kl)).sum(),
        "kl": kl.detach().sum(),
        "clipped": ((ratio - 1).abs() > settings.clip).sum(),
    }


def learner(given: "Round", settings: GRPOTraining) -> "Learnt":
    """One round of GRPO.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    import torch

    from quark.training.actor import Actor
    from quark.training.rounds import rows_together, train_round

    actor, together = Actor(given.policy, given.min_new_tokens), rows_together(given, settings)
    old, ref = actor.roll_out(given, together)
    lengths = given.rows.lengths
    advantage = centred(given.reward, given.group, normalise=settings.normalise_deviation)
    alike = centred(given.reward, given.group, normalise=False)
    share = 1 / (lengths if settings.normalise_length else lengths.max().expand(len(lengths)))
    of_rows = {"advantage": torch.from_numpy(advantage).float(), "share": share}
    spread = {name: v.repeat_interleave(lengths).to(old) for name, v in of_rows.items()}
    rows = given.rows._replace(of_tokens={"old": old, "ref": ref, **spread})

    def loss(part: "Rows") -> "dict[str, Tensor]":
        return losses(actor.logprob_now(part, given), settings=settings, **part.of_tokens)

    return train_round(
        actor,
        given,
        settings,
        rows,
        loss,
        summary={
            "kl": float((old - ref).sum()) / len(rows.ids),
            "equal_rewards": float(np.mean(np.abs(alike) < 1e-12)),
        },
        weights=[1] * len(rows.ids),
        micro_batch=together,
    )
