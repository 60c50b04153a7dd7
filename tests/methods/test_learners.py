"""GRPO, RLOO, DPO, KTO and RAFT: their losses by hand, and what they learn on a tiny model."""

import math
from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest
import torch
from conftest import moved
from learning import given, numbers, sampled, settings
from oracle import LINEAR, under_token

from quark.config.spec import RoundTraining
from quark.maths.groups import best_and_worst
from quark.methods import dpo, grpo, kto, raft, rloo
from quark.models.lm import Policy
from quark.training.rounds import Learnt
from quark.training.trainer import Rows

Make = Callable[..., Policy]
METHODS = ("grpo", "rloo", "dpo", "kto", "raft")


def learn(
    method: str, policy: Policy, rows: Rows, reward: np.ndarray, how: RoundTraining
) -> Learnt:
    """One round; four samples of each prompt follow one another."""
    policy.lm.requires_grad_(False)
    group = np.arange(len(reward)) // 4
    round_ = given(policy, policy, rows, reward, group=group)
    learnt: Learnt = import_module(f"quark.methods.{method}").learner(round_, how)
    return learnt


# ------------------------------------------------------------------------------- losses by hand
def test_grpo() -> None:
    logprob, old, ref, advantage, share = numbers(5, 200)
    how = settings("grpo", clip=0.2, kl_coef=0.5)
    found = grpo.losses(logprob, old, ref, advantage, share, how)
    loss = divergence = clipped = 0.0
    for p, o, q, a, s in zip(
        *(x.tolist() for x in (logprob, old, ref, advantage, share)), strict=True
    ):
        ratio = math.exp(p - o)
        kl = math.exp(q - p) - (q - p) - 1
        loss += s * (0.5 * kl - min(ratio * a, min(max(ratio, 0.8), 1.2) * a))
        divergence += kl
        clipped += abs(ratio - 1) > 0.2
    assert found["loss"].item() == pytest.approx(loss)
    assert found["kl"].item() == pytest.approx(divergence)
    assert 0 < found["clipped"].item() == clipped < 200


def test_rloo() -> None:
    logprob, old, advantage = numbers(3, 200)
    found = rloo.losses(logprob, old, advantage, 0.2)
    loss = 0.0
    for p, o, a in zip(logprob.tolist(), old.tolist(), advantage.tolist(), strict=True):
        ratio = math.exp(p - o)
        loss -= min(ratio * a, min(max(ratio, 0.8), 1.2) * a)
    assert found["loss"].item() == pytest.approx(loss)
    assert 0 < found["clipped"].item() < 200


def test_rloo_begins_as_reinforce() -> None:
    """At equal policies the gradient by log p is minus the advantage."""
    logprob, advantage = numbers(2, 20)
    logprob.requires_grad_()
    rloo.losses(logprob, logprob.detach(), advantage, 0.2)["loss"].backward()
    torch.testing.assert_close(logprob.grad, -advantage)


@pytest.mark.parametrize("likelihood", [0.0, 0.5])
def test_dpo(likelihood: float) -> None:
    margin, nll = numbers(2, 50)
    found = dpo.losses(margin, nll, 0.7, likelihood)
    plain = sum(math.log1p(math.exp(-0.7 * m)) for m in margin.tolist())
    plain += likelihood * sum(nll.tolist())
    assert found["loss"].item() == pytest.approx(plain)
    assert found["right"].item() == sum(m > 0 for m in margin.tolist())


@pytest.mark.parametrize("kl", [-0.5, 0.0, 0.2])
def test_kto(kl: float) -> None:
    ratio, side = numbers(2, 50)
    found = kto.losses(ratio, side.sign(), kl, 0.7)
    z, loss, right = max(0.0, kl), 0.0, 0
    for r, wanted in zip(ratio.tolist(), (side > 0).tolist(), strict=True):
        value = 0.7 * (r - z if wanted else z - r)
        loss += 1 - 1 / (1 + math.exp(-value))
        right += value > 0
    assert found["loss"].item() == pytest.approx(loss)
    assert found["right"].item() == right


def test_kto_of_the_first_round_has_no_kl(make_policy: Make) -> None:
    """The policy is the base model: ratios and z are 0, each loss is 1/2; later z is the KL."""
    for first in (True, False):
        policy = make_policy(1, form=LINEAR)
        if not first:
            moved(policy)
        rows = sampled(policy, 16)
        reward = np.tile([0.1, 0.9, 0.3, 0.5], 4)
        learnt = learn("kto", policy, rows, reward, settings("kto", batch=8, epochs=1))
        if first:
            assert learnt.summary["kl"] == 0 and learnt.steps[0]["loss"] == 0.5
            assert learnt.sequences == 8  # two of each prompt
        else:
            assert learnt.summary["kl"] != 0


def test_pairs_are_the_best_and_the_worst_of_a_prompt() -> None:
    reward = np.array([0.5, 0.9, 0.5, 0.9, 0.2, 0.7, 0.7])
    group = np.array([3, 3, 3, 3, 1, 1, 0])  # the prompt of the last row has one sample
    best, worst = best_and_worst(reward, group)
    assert best.tolist() == [5, 1] and worst.tolist() == [4, 2]


def test_raft_keeps_the_best() -> None:
    reward = np.array([0.5, 0.9, 0.5, 0.9, 0.2, 0.7])
    group = np.array([1, 1, 1, 1, 0, 0])
    assert raft.best(reward, group, 0.5).tolist() == [1, 3, 5]
    assert raft.best(reward, np.zeros(6, dtype=int), 0.5).tolist() == [1, 3, 5]
    assert raft.best(reward, np.zeros(6, dtype=int), 0.1).tolist() == [1]
    assert raft.best(reward, group, 1.0).tolist() == list(range(6))


# ------------------------------------------------------------------------------------- learners
@pytest.mark.parametrize("method", METHODS)
def test_reward_is_learnt(method: str, make_policy: Make) -> None:
    """Reward for an even first token: their share rises."""
    policy = make_policy(1, form=LINEAR)
    rows = sampled(policy, 400)
    same = [rows.prompts[i - i % 4] for i in range(400)]
    rows = rows._replace(prompts=same, responses=[response[:1] for response in rows.responses])
    reward = np.array([float(token % 2 == 0) for (token,) in rows.responses])
    changed = {"kept": 0.5, "within": "round"} if method == "raft" else {}
    learnt = learn(method, policy, rows, reward, settings(method, epochs=8, **changed))
    assert learnt.steps[-1]["loss"] < learnt.steps[0]["loss"]
    assert learnt.summary["mean_reward"] == pytest.approx(reward.mean())
    even = []
    for place in (0.0, 1.0):
        policy_at = make_policy(1, form=LINEAR)
        with torch.no_grad():
            policy_at.reward_tokens.map.copy_(place * policy.reward_tokens.map)
        found = [under_token(policy_at, 0, prompt, [])[0].softmax(-1) for prompt in same[::20]]
        even.append(np.mean([each[::2].sum().item() for each in found]))
    assert even[1] > even[0] + 0.03


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_equal_rewards_leave_the_base_model(method: str, make_policy: Make) -> None:
    policy = make_policy(1, form=LINEAR)
    rows = sampled(policy, 32)
    how = settings(method, kl_coef=0.0)
    learn(method, policy, rows, np.full(32, 0.5), how)
    assert not policy.reward_tokens.map.any()


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_pairs_need_a_difference(method: str, make_policy: Make) -> None:
    policy = make_policy(1, form=LINEAR)
    with pytest.raises(ValueError, match="no prompt has two samples of different rewards"):
        learn(method, policy, sampled(policy, 8), np.full(8, 0.5), settings(method))


def test_dpo_keeps_the_better_sample_likely(make_policy: Make) -> None:
    """The first step's `nll`, by the base model's logits of each better sample, a mean of each."""
    policy = make_policy(1, form=LINEAR)
    rows = sampled(policy, 8)
    rows = rows._replace(responses=[r[: 1 + i % 4] for i, r in enumerate(rows.responses)])
    plain = []
    for better in (1, 4):
        ids = torch.tensor([*rows.prompts[better], *rows.responses[better]])
        with torch.no_grad():
            logprob = policy.lm(ids[None]).logits[0, :-1].log_softmax(-1)
        own = logprob.gather(-1, ids[1:, None])[-len(rows.responses[better]) :]
        plain.append(-own.mean().item())
    reward = np.array([0.1, 0.9, 0.3, 0.5, 0.8, 0.2, 0.2, 0.4])
    learnt = learn("dpo", policy, rows, reward, settings("dpo", batch=2, epochs=1, likelihood=1.0))
    assert learnt.steps[0]["nll"] == pytest.approx(sum(plain) / 2, abs=1e-4)  # float32


@pytest.mark.parametrize("of_length", [True, False])
def test_grpo_divides_by_a_length(of_length: bool, make_policy: Make) -> None:
    """The first step's loss, row by row: ratios are 1, so it is -A times the row's share."""
    policy = make_policy(1, form=LINEAR)
    moved(policy)
    rows = sampled(policy, 8)
    rows = rows._replace(responses=[r[: 1 + i % 4] for i, r in enumerate(rows.responses)])
    reward = np.array([0.1, 0.9, 0.3, 0.5, 0.8, 0.2, 0.2, 0.4])
    how = settings("grpo", batch=8, epochs=1, kl_coef=0.0, normalise_length=of_length)
    learnt = learn("grpo", policy, rows, reward, how)
    plain = 0.0
    for first in (0, 4):
        own = reward[first : first + 4]
        for i, r in enumerate(own):
            share = 1 if of_length else (1 + (first + i) % 4) / 4
            plain -= share * (r - own.mean()) / (own.std() + 1e-4)
    assert learnt.steps[0]["loss"] == pytest.approx(plain / 8, abs=1e-4)  # float32


@pytest.mark.parametrize("method", ["grpo", "rloo", "dpo", "kto"])
def test_later_rounds_need_two_samples_of_a_prompt(method: str) -> None:
    with pytest.raises(ValueError, match="samples must be at least 2"):
        settings(method, iterations=2, samples=1)
    settings(method, iterations=1, samples=1)
