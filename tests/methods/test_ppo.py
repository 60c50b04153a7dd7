import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import moved
from learning import given, sampled
from oracle import LINEAR, SINK, plain_logits, under_token

from quark import config
from quark.config import RewardTokens, Training
from quark.generation.decoding import Plain
from quark.generation.sampler import sample
from quark.methods.ppo import (
    ActorCritic,
    Rollout,
    learner,
    losses,
    next_kl_coef,
    roll_out,
    token_rewards,
)
from quark.models.decode_state import response_hidden
from quark.models.lm import Policy
from quark.models.reference_cache import ReferenceCache
from quark.training.trainer import Rows, choose_parameters

Make = Callable[..., Policy]
SAMPLING = config.load([Path(__file__).parents[2] / "config/config.yaml"]).quark.sampling


@pytest.fixture
def settings(training: Training) -> config.PPO:
    shared = training.model_dump(include=set(config.Optimisation.model_fields))
    return config.PPO.model_validate(
        {
            **shared,
            **{"iterations": 1, "samples": 2, "epochs": 2, "batch": 16, "warmup_steps": 0},
            **{"token_learning_rate": 0.05, "value_learning_rate": 1e-2, "learning_rate": 1e-3},
            **{"gamma": 1, "lam": 0.95, "clip": 0.2, "value_clip": 0.3, "value_coef": 0.1},
            **{"kl_coef": 0.05, "kl_target": None, "kl_adaptation": 0.1, "trained_layers": 0},
        }
    )


def changed(settings: config.PPO, **keys: Any) -> config.PPO:
    return config.PPO.model_validate(settings.model_dump() | keys)


def test_rewards_of_tokens() -> None:
    logprob, ref = torch.tensor([[1.0, 2, 3], [4, 5, 9]]), torch.tensor([[1.0, 1, 1], [1, 1, 1]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    found = token_rewards(logprob, ref, real, torch.tensor([10.0, 20.0]), kl_coef=0.5)
    assert found.tolist() == [[0, -0.5, 9], [-1.5, 18, 0]]


def test_the_losses(settings: config.PPO) -> None:
    """Token by token, in plain Python."""
    torch.manual_seed(0)
    columns = torch.randn(6, 200, dtype=torch.float64) * 0.3
    logprob, value, *rollout = columns
    found = losses(logprob, value, Rollout(*rollout), settings)
    policy = value_loss = clipped = 0.0
    for p, v, old, old_v, advantage, returns in columns.T.tolist():
        ratio = np.exp(p - old)
        policy += max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2))
        near = min(max(v, old_v - 0.3), old_v + 0.3)
        value_loss += 0.5 * max((v - returns) ** 2, (near - returns) ** 2)
        clipped += abs(ratio - 1) > 0.2
    assert found["policy_loss"].item() == pytest.approx(policy)
    assert found["value_loss"].item() == pytest.approx(value_loss)
    assert found["loss"].item() == pytest.approx(policy + 0.1 * value_loss)
    assert 0 < found["clipped"].item() == clipped < 200


FORMS = pytest.mark.parametrize("form", [LINEAR, SINK, None], ids=["linear", "sink", "none"])


@FORMS
def test_the_rollout(make_policy: Make, settings: config.PPO, form: RewardTokens | None) -> None:
    """Log-probabilities under policy and base, row by row; what the first epoch starts from."""
    policy, base = (make_policy(1, form=form) if form else make_policy(0, seed=1)), make_policy(0)
    if form is LINEAR:
        moved(policy)
    if form is SINK:
        with torch.no_grad():
            policy.reward_tokens.axis.normal_(generator=torch.Generator().manual_seed(0))
    rows = sampled(policy, 6)
    rows = rows._replace(responses=[r[: 1 + i % 4] for i, r in enumerate(rows.responses)])
    reward = np.linspace(0, 1, 6)
    how: Any = (settings, 0.5, 4)
    actor = ActorCritic(policy)
    rollout, summary = roll_out(actor, given(policy, base, rows, reward), *how)
    cache = ReferenceCache()  # what the sampler leaves
    for prompt, response, name in zip(rows.prompts, rows.responses, rows.ids, strict=True):
        with torch.no_grad():
            told = policy.condition(prompt, 0)
            cache.add([name], [len(response)], response_hidden(policy, [told], [response]))
    cached = given(policy, base, rows, reward, cache=cache)
    again, summary_again = roll_out(actor, cached, *how)
    assert summary_again == pytest.approx(summary, abs=1e-4)
    for one, other in zip(again, rollout, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    found, kl = [], []
    for i, (prompt, response) in enumerate(zip(rows.prompts, rows.responses, strict=True)):
        logits = under_token(policy, 0, prompt, response)[:-1]
        found.append(logits.log_softmax(-1)[range(len(response)), response])
        kl.append((found[-1] - _base(base, rows, i)).sum().item())
    torch.testing.assert_close(rollout.old_logprob, torch.cat(found), atol=1e-4, rtol=1e-4)
    assert summary["kl"] == pytest.approx(np.mean(kl), abs=1e-4)
    assert summary["mean_reward"] == 0.5 and not rollout.old_value.any()
    assert rollout.advantage.mean().abs() < 1e-6 and rollout.advantage.std() == pytest.approx(1)
    # the values are 0: the last token's return is its own reward
    last = np.cumsum([len(response) for response in rows.responses]) - 1
    for i, (logprob, place) in enumerate(zip(found, last.tolist(), strict=True)):
        penalty = 0.5 * (logprob[-1] - _base(base, rows, i)[-1]).item()
        assert rollout.returns[place].item() == pytest.approx(reward[i] - penalty, abs=1e-4)


def test_the_first_advantages_follow_the_rewards(make_policy: Make, settings: config.PPO) -> None:
    """With values that start at the mean reward; from zero they tell the token's position too."""
    policy = make_policy(1, form=LINEAR)
    rows = sampled(policy, 64)
    reward = np.random.default_rng(0).uniform(0.6, 1.0, 64)
    told = np.repeat(reward, rows.lengths.numpy())
    corr = []
    for value in (0.0, float(reward.mean())):
        actor = ActorCritic(policy, value=value)
        rollout, _ = roll_out(actor, given(policy, policy, rows, reward), settings, 0.5, 16)
        corr.append(np.corrcoef(rollout.advantage.numpy(), told)[0, 1])
    # lambda 0.95 shrinks the advantage of the first of four tokens by 0.86, so not quite 1
    assert corr[1] > 0.98 and corr[0] < corr[1]


def test_values_may_move_freely(settings: config.PPO) -> None:
    rollout = Rollout(*(torch.tensor([each]) for each in (-1.0, 0.0, 0.5, 1.0)))
    given = torch.tensor([-1.0]), torch.tensor([0.9])
    free = losses(*given, rollout, changed(settings, value_clip=None))
    assert free["value_loss"].item() == pytest.approx(0.5 * 0.1**2)
    bound = losses(*given, rollout, settings)  # kept within 0.3 of 0
    assert bound["value_loss"].item() == pytest.approx(0.5 * 0.7**2)


@FORMS
def test_the_first_ratios_are_one_under_the_law_that_sampled(
    make_policy: Make, settings: config.PPO, form: RewardTokens | None
) -> None:
    """As the default samples: without end ids in the first three tokens."""
    policy, base = (make_policy(1, form=form) if form else make_policy(0, seed=1)), make_policy(0)
    if form is LINEAR:
        moved(policy)
    ends = list(range(50))  # about every second token
    policy.lm.generation_config.eos_token_id = ends
    writer = copy.deepcopy(policy)
    writer.steer()
    prompts = np.random.default_rng(0).integers(20, 90, (6, 3)).tolist()
    told, names = [writer.condition(ids, 0) for ids in prompts], list(map(str, range(6)))
    fixed: Any = {"seed_name": "1/test", "memory_mb": 4000}
    written = sample(Plain(writer), told, names, 1, SAMPLING, **fixed)
    responses = [each.ids[0] for each in sorted(written, key=lambda each: each.place)]
    rows = Rows(names, prompts, responses, np.zeros(6, dtype=np.int32))
    actor = ActorCritic(policy, SAMPLING.min_new_tokens)
    rollout, summary = roll_out(actor, given(policy, base, rows, np.zeros(6)), settings, 0.5, 4)

    def sampled(logits: torch.Tensor, response: list[int]) -> torch.Tensor:
        logits[:3, ends] = -torch.inf
        return logits[:-1].log_softmax(-1)[range(len(response)), response]

    pairs = list(zip(prompts, responses, strict=True))
    old = torch.cat([sampled(under_token(policy, 0, *pair), pair[1]) for pair in pairs])
    ref = torch.cat([sampled(plain_logits(base, *pair), pair[1]) for pair in pairs])
    # float32 sums in another order, of logits of size 10
    torch.testing.assert_close(rollout.old_logprob, old, atol=1e-4, rtol=1e-4)
    assert summary["kl"] == pytest.approx((old - ref).sum().item() / 6, abs=1e-3)
    with torch.no_grad():
        now = actor.logprob(actor.hidden(rows, "fp32", ReferenceCache()), rows, "fp32")
    torch.testing.assert_close((now - old).exp(), torch.ones(len(old)), atol=1e-4, rtol=0)


def _base(policy: Policy, rows: Rows, i: int) -> torch.Tensor:
    response = rows.responses[i]
    logits = plain_logits(policy, rows.prompts[i], response)[:-1]
    return logits.log_softmax(-1)[range(len(response)), response]


@FORMS
def test_reward_is_learnt(
    make_policy: Make, settings: config.PPO, form: RewardTokens | None
) -> None:
    """Reward for an even first token: their share rises."""
    policy, base = make_policy(1, form=form) if form else make_policy(0), make_policy(0)
    rate = 0.5 if form is SINK else 1e-2  # a sink's numbers are in units of the deviation
    settings = changed(settings, token_learning_rate=rate, learning_rate=1e-2, epochs=8)
    if form is None:
        settings = changed(settings, trained_layers=2)
    rows = sampled(policy, 400)
    rows = rows._replace(responses=[response[:1] for response in rows.responses])
    reward = np.array([float(token % 2 == 0) for (token,) in rows.responses])
    choose_parameters(policy.lm, settings.trained_layers, False)
    learnt = learner(given(policy, base, rows, reward), settings)
    assert len(learnt.steps) == 8 * 25
    assert learnt.summary["mean_reward"] == pytest.approx(reward.mean())
    even = []
    for logits in (partial(plain_logits, base), partial(under_token, policy, 0)):
        distributions = [logits(p, [])[0] for p in rows.prompts[:20]]
        even.append(np.mean([each.softmax(-1)[::2].sum().item() for each in distributions]))
    assert even[1] > even[0] + 0.03


@pytest.mark.parametrize("reward", [0.0, 0.5])
def test_constant_reward_stays_at_the_base(
    make_policy: Make, settings: config.PPO, reward: float
) -> None:
    """With lambda 1 all advantages are equal, and whitened they are 0, whatever the reward.

    beta is 0: policy and base read alike but for rounding, which Adam would blow up.
    """
    policy = make_policy(1, form=LINEAR)
    rows, settings = sampled(policy, 32), changed(settings, kl_coef=0, lam=1)
    policy.lm.requires_grad_(False)
    learnt = learner(given(policy, policy, rows, np.full(32, reward)), settings)
    assert not policy.reward_tokens.map.any()
    assert learnt.beside["bias"].any() == (reward > 0)  # the value learns what is to come


def test_the_penalty_follows_its_target(settings: config.PPO) -> None:
    assert next_kl_coef(0.5, 100.0, settings) == 0.5
    aimed = changed(settings, kl_target=2.0)
    assert next_kl_coef(0.5, 2.0, aimed) == 0.5
    assert next_kl_coef(0.5, 2.2, aimed) == pytest.approx(0.5 * (1 + 0.1 * 0.1))
    assert next_kl_coef(0.5, 100.0, aimed) == pytest.approx(0.5 * 1.02)
    assert next_kl_coef(0.5, 0.0, aimed) == pytest.approx(0.5 * 0.98)
