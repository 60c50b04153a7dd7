"""PPO: proximal policy optimisation of the reward (Schulman et al. 2017; Ziegler et al. 2019).

An iteration samples responses, scores them and takes several epochs of clipped steps on them. With
old = the policy that sampled and ref = the base model, token t of a response of T tokens has

    reward       r_t = -beta (log old_t - log ref_t)   + [t = T] reward of the response
    advantage    A_t, return R_t                       by generalised advantages (`quark.gae`)
    ratio        w_t = exp(log p_t - log old_t)
    policy loss  max(-A_t w_t, -A_t clip(w_t, 1 - c, 1 + c))
    value loss   1/2 max((V_t - R_t)^2, (V_t' - R_t)^2),  V' = V kept within c_v of its old value

and loss = policy + v value, averaged over tokens. Advantages are whitened over the iteration's
tokens. beta is fixed, or follows the measured KL (Ziegler et al. 2019, section 2.2):

    beta <- beta (1 + k clip(KL / target - 1, -0.2, 0.2))

No PPO code of the Quark authors is public and the paper's settings are recalled (protocol 6). By
default c, c_v, v, beta, gamma and lambda are those of TRL's last PPO trainer; sizes and rates are
our own.

What learns is what learns in Quark: a sink, if that is the form of the reward tokens (there is
one), and layers of the model if `trained_layers` says so. Departure: the value head, one linear map
of the policy's last hidden states, does not shape them.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quark import config
from quark.checkpoint import Moments
from quark.config import Precision
from quark.gae import advantages
from quark.lm import DTYPES, Policy
from quark.memo import Memo
from quark.memory import rows_for_training
from quark.objective import token_logprobs
from quark.progress import track
from quark.reading import check_lengths, response_hidden, with_base
from quark.reward_tokens import SinkTokens
from quark.seeds import stream
from quark.training import (
    Rows,
    Trainer,
    autocast,
    choose_parameters,
    epochs,
    response_tokens,
    steps_of,
)


class Rollout(NamedTuple):
    """What an iteration's responses are worth; all (tokens,), row after row."""

    old_logprob: Tensor
    old_value: Tensor
    advantage: Tensor
    returns: Tensor


class Actor(nn.Module):
    """A policy, and a value head on its last hidden states."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.value = nn.Linear(policy.head.shape[1], 1, device=policy.head.device)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], how: Precision
    ) -> tuple[Tensor, Tensor]:
        """Log p (nats) and value of each response token, both (tokens,), row after row."""
        hidden, logprob = response_tokens(self.policy, prompts, responses, how)
        return logprob, self.worth(hidden)

    def worth(self, hidden: Tensor) -> Tensor:
        """Values (tokens,) of last hidden states (tokens, d), which they do not shape."""
        value: Tensor = self.value(hidden.detach().float())
        return value.squeeze(-1)


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
    logprob: Tensor, value: Tensor, rollout: Rollout, settings: config.PPO
) -> dict[str, Tensor]:
    """The loss and its parts, summed over tokens; all arguments (tokens,)."""
    ratio = (logprob - rollout.old_logprob).exp()
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    policy = torch.maximum(-rollout.advantage * ratio, -rollout.advantage * clipped)
    near = rollout.old_value + (value - rollout.old_value).clamp(
        -settings.value_clip, settings.value_clip
    )
    worst = torch.maximum((value - rollout.returns).square(), (near - rollout.returns).square())
    value_loss = 0.5 * worst
    return {
        "loss": (policy + settings.value_coef * value_loss).sum(),
        "policy_loss": policy.detach().sum(),
        "value_loss": value_loss.detach().sum(),
        "clipped": ((ratio - 1).abs() > settings.clip).sum(),
    }


def next_kl_coef(kl_coef: float, kl: float, settings: config.PPO) -> float:
    """Beta for the next iteration, given this one's KL in nats per response."""
    if settings.kl_target is None:
        return kl_coef
    error = min(max(kl / settings.kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + settings.kl_adaptation * error)


def learn(
    actor: Actor,
    base: Policy,
    rows: Rows,
    reward: NDArray[np.float64],
    settings: config.PPO,
    *,
    kl_coef: float,
    iteration: int,
    precision: Precision,
    seed_name: str,
    memory_mb: int,
    resume: tuple[Moments, int] | None,
    memo: Memo | None = None,
) -> tuple[Moments, int, list[dict[str, float]], dict[str, float]]:
    """Train the actor in place for one iteration.

    Args:
        actor: its policy sampled the rows.
        base: the frozen model that the penalty keeps the policy near.
        rows: what was sampled.
        reward: (rows,) of each response.
        settings: sizes, rates and weights.
        kl_coef: beta.
        iteration: 0, 1, ..., for the progress bar.
        precision: of matrix products.
        seed_name: seed, task, method, iteration and stage.
        memory_mb: bounds the rows of a micro-batch.
        resume: the optimiser's moments and step after the iteration before.
        memo: what the policy made of the rows when it sampled them; else they are read again.

    Returns:
        The optimiser's moments and step, the terms of each step, and of the rollout its mean
        reward, KL to the base model (nats per response) and share of explained variance.

    Raises:
        NonFiniteLossError: the loss is infinite or NaN.
    """
    policy = actor.policy
    choose_parameters(policy.lm, settings.trained_layers, settings.gradient_checkpointing)
    token = None if policy.reward_tokens is None else 0
    prompts = [policy.condition(prompt, token) for prompt in rows.prompts]
    check_lengths(policy, prompts, rows.ids, max(map(len, rows.responses)))
    told = rows._replace(prompts=prompts)
    lengths = [len(p) + len(r) for p, r in zip(told.prompts, rows.responses, strict=True)]
    micro_batch = rows_for_training(
        policy, base, max(lengths), memory_mb, settings.gradient_checkpointing
    )
    rollout, summary = _roll_out(
        actor, base, told, rows.prompts, reward, settings, kl_coef, precision, micro_batch, memo
    )
    rates = {"value": settings.value_learning_rate, "lm": settings.learning_rate}
    rates["reward_tokens"] = settings.token_learning_rate
    steps = steps_of(len(rows.ids), settings.batch, settings.epochs) * settings.iterations
    trainer = Trainer(
        actor,
        settings,
        lambda name: rates[name.removeprefix("policy.").split(".")[0]],
        total_steps=steps,
        lengths=lengths,
        micro_batch=micro_batch,
        resume=resume,
    )
    tokens = [len(response) for response in rows.responses]
    first = np.concatenate([[0], np.cumsum(tokens)])
    place = {row: i for i, row in enumerate(rows.ids)}

    def loss(part: Rows) -> dict[str, Tensor]:
        logprob, value = actor(part.prompts, part.responses, precision)
        own = [range(first[place[row]], first[place[row] + 1]) for row in part.ids]
        chosen = torch.tensor([i for span in own for i in span], device=logprob.device)
        return losses(logprob, value, Rollout(*(each[chosen] for each in rollout)), settings)

    curve = epochs(
        trainer,
        told,
        loss,
        count=settings.epochs,
        weights=tokens,
        rng=stream(seed_name, "order"),
        what=f"train {iteration}",
    )
    return trainer.moments, trainer.taken, curve, summary


@torch.no_grad()
def _roll_out(
    actor: Actor,
    base: Policy,
    told: Rows,
    plain: list[list[int]],
    reward: NDArray[np.float64],
    settings: config.PPO,
    kl_coef: float,
    precision: Precision,
    batch: int,
    memo: Memo | None = None,
) -> tuple[Rollout, dict[str, float]]:
    """What the responses are worth to the policy that wrote them; the base reads `plain`."""
    order = sorted(range(len(told.ids)), key=lambda i: len(plain[i]))
    time = max(map(len, told.responses))
    logprob, ref, value = (torch.zeros(len(told.ids), time) for _ in range(3))
    lengths = torch.tensor([len(response) for response in told.responses])
    real = torch.arange(time) < lengths[:, None]
    starts = range(0, len(order), batch)
    for start in track(starts, "roll out"):
        places = order[start : start + batch]
        responses = [told.responses[i] for i in places]
        own = real[places]
        part, read_plain = told.take(places), [plain[i] for i in places]
        hidden, base_hidden = _of_both(actor.policy, base, part, read_plain, precision, memo)
        targets = torch.tensor([i for r in responses for i in r], device=hidden.device)
        found = token_logprobs(hidden.to(DTYPES[precision]), actor.policy.head, targets)
        under_base = token_logprobs(base_hidden, base.head, targets)
        for full, flat in ((logprob, found), (ref, under_base), (value, actor.worth(hidden))):
            rows = torch.zeros(len(places), time)
            rows[own] = flat.float().cpu()
            full[places] = rows
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
    device = actor.policy.head.device
    parts = (logprob[real], value[real], whitened, returns[real])
    return Rollout(*(part.to(device) for part in parts)), summary


def _of_both(
    policy: Policy,
    base: Policy,
    told: Rows,
    plain: list[list[int]],
    precision: Precision,
    memo: Memo | None,
) -> tuple[Tensor, Tensor]:
    """Last hidden states (tokens, d) of policy and base; what both read alike is read once."""
    responses, tokens = told.responses, policy.reward_tokens
    by_sink = base.lm is policy.lm and isinstance(tokens, SinkTokens)
    if memo is not None and not memo.missing(told.ids):
        hidden = memo.get(told.ids, policy.head.device)
        if by_sink and not cast(SinkTokens, tokens).axis.any():  # the policy is the base model
            return hidden, hidden
        return hidden, response_hidden(base, plain, responses)
    with autocast(policy, precision):
        if by_sink:
            return with_base(policy, told.prompts, responses, range(len(plain)))
        hidden = response_hidden(policy, told.prompts, responses)
    return hidden, response_hidden(base, plain, responses)
