"""PPO: proximal policy optimisation of the reward (Schulman et al. 2017; Ziegler et al. 2019).

An iteration samples responses, scores them and takes several epochs of clipped steps on them. With
old = the policy that sampled and ref = the base model, token t of a response of T tokens has

    reward       r_t = -beta (log old_t - log ref_t)   + [t = T] reward of the response
    advantage    A_t, return R_t                       by generalised advantages (`quark.maths.gae`)
    ratio        w_t = exp(log p_t - log old_t)
    policy loss  max(-A_t w_t, -A_t clip(w_t, 1 - c, 1 + c))
    value loss   1/2 max((V_t - R_t)^2, (V_t' - R_t)^2),  V' = V kept within c_v of its old value,
                 or 1/2 (V_t - R_t)^2 without c_v

and loss = policy + v value, averaged over tokens. All distributions are as in sampling: without end
ids in the first `min_new_tokens` tokens; the configuration refuses other temperatures than 1, top-k
and top-p. Advantages are whitened over the iteration's tokens. V starts at the mean reward of the
first samples. From zero it would need several iterations to reach it, and until then advantages
would depend on the token's position more than on the response's reward. beta is fixed, or follows
the measured KL (Ziegler et al. 2019, section 2.2):

    beta <- beta (1 + k clip(KL / target - 1, -0.2, 0.2))

No PPO code of the Quark authors is public and the paper's settings are recalled (protocol 6). By
default c, v, beta, gamma and lambda are those of TRL's last PPO trainer, which has c_v 0.2; sizes
and rates are our own.

The same parameters learn as in Quark: with linear reward tokens one map of the frozen model's last
hidden states, or one sink; and the layers that `trained_layers` names. Departure: the value head is
one linear map of the model's last hidden states, and its gradient does not change them.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from quark import config
from quark.config import Precision
from quark.maths.gae import advantages
from quark.models.lm import Policy
from quark.training.actor import Actor
from quark.training.rounds import Learnt, Round, rows_together, train_round
from quark.training.trainer import Rows


class Rollout(NamedTuple):
    """An iteration's responses under the old policy; all (tokens,), row after row."""

    old_logprob: Tensor
    old_value: Tensor
    advantage: Tensor
    returns: Tensor


class ActorCritic(Actor):
    """An actor, and a value head on its model's last hidden states.

    Args:
        policy: the policy.
        min_new_tokens: of sampling: end ids are impossible in so many first tokens.
        value: the head's output for every token before training.
    """

    def __init__(self, policy: Policy, min_new_tokens: int = 0, value: float = 0.0) -> None:
        super().__init__(policy, min_new_tokens)
        self.value = nn.Linear(policy.head.shape[1], 1, device=policy.head.device)
        nn.init.zeros_(self.value.weight)
        nn.init.constant_(self.value.bias, value)

    def worth(self, hidden: Tensor) -> Tensor:
        """Values (tokens,) of last hidden states (tokens, d), which get no gradient from them."""
        value: Tensor = self.value(hidden.detach().float())
        return value.squeeze(-1)

    def measured(
        self, hidden: Tensor, base: Policy, rows: Rows, how: Precision
    ) -> tuple[Tensor, ...]:
        """Log p under the policy and under the base model, and the value; (tokens,) each."""
        return *super().measured(hidden, base, rows, how), self.worth(hidden)


def token_rewards(
    logprob: Tensor, ref_logprob: Tensor, real: Tensor, reward: Tensor, kl_coef: float
) -> Tensor:
    """Reward of each token, (rows, time): the KL penalty, and at the last token the response's.

    Args:
        logprob, ref_logprob: (rows, time) in nats, under the old policy and the base model.
        real: (rows, time) bool, padded on the right.
        reward: (rows,) of each response.
        kl_coef: beta.
    """
    penalty = -kl_coef * (logprob - ref_logprob) * real
    last = real.sum(-1, keepdim=True) - 1
    return penalty.scatter_add(-1, last, reward[:, None])


def losses(
    logprob: Tensor, value: Tensor, rollout: Rollout, settings: config.PPOTraining
) -> dict[str, Tensor]:
    """The loss and its parts, summed over tokens; all arguments (tokens,)."""
    ratio = (logprob - rollout.old_logprob).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    policy = torch.maximum(-rollout.advantage * ratio, -rollout.advantage * clipped)
    error = (value - rollout.returns).square()
    if settings.value_clip is not None:
        step = (value - rollout.old_value).clamp(-settings.value_clip, settings.value_clip)
        error = torch.maximum(error, (rollout.old_value + step - rollout.returns).square())
    value_loss = 0.5 * error
    return {
        "loss": (policy + settings.value_coef * value_loss).sum(),
        "policy_loss": policy.detach().sum(),
        "value_loss": value_loss.detach().sum(),
        "clipped": ((ratio - 1).abs() > settings.clip).sum(),
    }


def next_kl_coef(kl_coef: float, kl: float, settings: config.PPOTraining) -> float:
    """Beta for the next iteration, given this one's KL in nats per response."""
    if settings.kl_target is None:
        return kl_coef
    error = min(max(kl / settings.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + settings.kl_adaptation * error)


def learner(given: Round, settings: config.PPOTraining) -> Learnt:
    """One iteration of PPO on scored samples.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    actor = ActorCritic(given.policy, given.min_new_tokens, value=float(given.reward.mean()))
    kl_coef = settings.kl_coef
    if given.before is not None:
        kl_coef = given.before.notes["kl_coef"]
        actor.value.load_state_dict(given.before.beside)
    rows, together = given.rows, rows_together(given, settings)
    rollout, summary = roll_out(actor, given, settings, kl_coef, together)
    rates = {"value": settings.value_learning_rate, "lm": settings.learning_rate}
    rates["reward_tokens"] = settings.token_learning_rate

    def loss(part: Rows) -> dict[str, Tensor]:
        hidden = actor.hidden(part, given.precision, given.cache)
        logprob, value = actor.logprob(hidden, part, given.precision), actor.worth(hidden)
        return losses(logprob, value, Rollout(**part.of_tokens), settings)

    learnt = train_round(
        actor,
        given,
        settings,
        rows._replace(of_tokens=rollout._asdict()),
        loss,
        summary=summary,
        rate=lambda name: rates[name.removeprefix("policy.").split(".")[0]],
        weights=rows.lengths.tolist(),
        micro_batch=together,
    )
    notes = {"kl_coef": next_kl_coef(kl_coef, summary["kl"], settings)}
    return learnt._replace(notes=notes, beside=actor.value.state_dict())


@torch.no_grad()
def roll_out(
    actor: ActorCritic, given: Round, settings: config.PPOTraining, kl_coef: float, batch: int
) -> tuple[Rollout, dict[str, float]]:
    """What a round's rows were under the policy that sampled them.

    Args:
        actor: this policy, with its value head.
        given: the rows and their rewards.
        settings: discount and lambda of the advantages.
        kl_coef: beta.
        batch: rows read together.

    Returns:
        Log-probabilities, values, advantages and returns; and the mean reward, the KL to the base
        model (nats per response) and the share of explained variance.
    """
    lengths, reward = given.rows.lengths, given.reward
    real = torch.arange(max(lengths)) < lengths[:, None]

    def padded(values: Tensor) -> Tensor:
        return torch.zeros(real.shape).masked_scatter(real, values.cpu())

    logprob, ref, value = map(padded, actor.roll_out(given, batch))
    rewards = token_rewards(logprob, ref, real, torch.from_numpy(reward).float(), kl_coef)
    advantage, returns = advantages(rewards, value, real, gamma=settings.gamma, lam=settings.lam)
    kept = advantage[real]
    whitened = (kept - kept.mean()) * (kept.var() + 1e-8).rsqrt()
    residual = (returns - value)[real]
    summary = {
        "mean_reward": float(reward.mean()),
        "kl": float(((logprob - ref) * real).sum(-1).mean()),
        "kl_coef": kl_coef,
        "explained_variance": float(1 - residual.var() / (returns[real].var() + 1e-8)),
    }
    parts = (logprob[real], value[real], whitened, returns[real])
    return Rollout(*(part.to(given.base.head.device) for part in parts)), summary
