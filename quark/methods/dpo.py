"""DPO: direct preference optimisation on a prompt's best and worst sample (Rafailov et al. 2023).

    loss = -log sigmoid( beta [ log p(w)/q(w) - log p(l)/q(l) ] )  -  likelihood log p(w) / |w|

w and l are the samples of a prompt with the highest and the lowest reward, p is the policy, q the
base model. Log-probabilities are of whole responses, in nats. Prompts whose samples all have the
same reward give no pair. Source: equation 7 [recalled].

The pairs come from Quark's own samples of the base model and the same scores, so no label and no
further scorer call is needed. Later rounds, if there are any, have pairs of the policy's own
samples (iterated DPO).

The first term compares two responses and says nothing about what is likely in both, so the policy
may lose its fluency. The second one keeps w likely (Pang et al. 2024, equation 1 [recalled]); with
`likelihood` 0 this is DPO.

This module imports torch only inside functions, so that Snakemake reads its spec quickly.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from quark.config.spec import GroupedTraining, RoundSettings, learns_in_rounds
from quark.config.types import NonNegative, Positive
from quark.maths.groups import best_and_worst

if TYPE_CHECKING:
    from torch import Tensor

    from quark.training.rounds import Learnt, Round
    from quark.training.trainer import Rows


class DPOTraining(GroupedTraining):
    """How it learns; `batch` counts pairs."""

    beta: Positive = Field(description="beta, how much the log-ratios weigh")
    likelihood: NonNegative = Field(
        0.0, description="weight of the better sample's -log p, a mean over tokens; 0: pure DPO"
    )


class DPO(RoundSettings):
    """Its settings."""

    training: DPOTraining


SPEC = learns_in_rounds(
    "dpo",
    "DPO",
    DPO,
    look=("#BCBD22", "d"),
    summary=("mean_reward", "pairs"),
    trains_on=lambda config: min(1.0, 2 / config.quark.first_samples),
    whole_distribution=False,
)


def losses(margin: "Tensor", nll: "Tensor", beta: float, likelihood: float) -> "dict[str, Tensor]":
    """The loss, and how many pairs are `right`, summed.

    Args:
        margin: (pairs,) the bracket, in nats.
        nll: (pairs,) the mean -log p(w) of a token, in nats.
        beta: the weight of the margin.
        likelihood: the weight of `nll`.
    """
    from torch.nn.functional import logsigmoid

    loss = likelihood * nll - logsigmoid(beta * margin)
    return {"loss": loss.sum(), "right": (margin > 0).sum(), "nll": nll.sum()}


def learner(given: "Round", settings: DPOTraining) -> "Learnt":
    """One round of DPO.

    Raises:
        ValueError: no prompt has samples of different rewards.
        NonFiniteLossError: the loss is infinite or NaN.
    """
    from quark.training.actor import Actor
    from quark.training.rounds import rows_together, train_round

    actor, together = Actor(given.policy, given.min_new_tokens), rows_together(given, settings)
    best, worst = (rows.tolist() for rows in best_and_worst(given.reward, given.group))
    used = given._replace(rows=given.rows.take([*best, *worst]))
    _, ref = actor.roll_out(used, together)
    rows = used.rows._replace(of_tokens={"ref": ref})
    chosen, other = rows.take(range(len(best))), rows.take(range(len(best), 2 * len(best)))
    index = {name: i for i, name in enumerate(chosen.ids)}

    def ratio(part: "Rows", logprob: "Tensor") -> "Tensor":
        return part.sums(logprob - part.of_tokens["ref"])

    def loss(part: "Rows") -> "dict[str, Tensor]":
        against = other.take([index[name] for name in part.ids])
        now, theirs = (actor.logprob_now(each, given) for each in (part, against))
        margin = ratio(part, now) - ratio(against, theirs)
        nll = -part.sums(now) / part.lengths.clamp(min=1).to(now)
        return losses(margin, nll, settings.beta, settings.likelihood)

    learnt = train_round(
        actor,
        given,
        settings,
        chosen,
        loss,
        summary={"pairs": float(len(best))},
        weights=[1] * len(best),
        rounds_left=settings.iterations - given.iteration,  # each with about as many pairs
        micro_batch=max(1, together // 2),
    )
    tokens = learnt.tokens + settings.epochs * int(other.lengths.sum())
    return learnt._replace(sequences=2 * learnt.sequences, tokens=tokens)
