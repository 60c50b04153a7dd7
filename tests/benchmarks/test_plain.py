"""The plain loops are oracles of the fast code, and do the same work."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracle import plain_logits

from quark.benchmarks import plain
from quark.config import Training
from quark.generation.logprobs import response_logprobs
from quark.maths.nucleus import in_nucleus
from quark.maths.quantiles import quantiles
from quark.methods.quark import learn
from quark.models.lm import Policy
from quark.training.trainer import Rows

Make = Callable[..., Policy]


def test_the_nucleus_is_ours() -> None:
    torch.manual_seed(0)
    logits = torch.randn(50, 30) * 2
    kept = plain._nucleus(logits, 0.8) > -torch.inf
    probs = logits.softmax(-1)
    ours = [in_nucleus(probs, torch.full((50,), token), 0.8) for token in range(30)]
    assert torch.equal(kept, torch.stack(ours, dim=1))


def test_the_sampler_draws_from_the_model(make_policy: Make) -> None:
    policy = make_policy(0)
    torch.manual_seed(0)
    written = plain.sample(policy.lm, [[5, 6, 7], [8]], 2000, 2, 1.0)
    assert len(written) == 4000 and {len(ids) for ids in written} == {2}
    first = torch.bincount(torch.tensor([ids[0] for ids in written[2000:]]), minlength=101) / 2000
    expected = plain_logits(policy, [8], [])[0].softmax(-1)
    # a share of 2000 draws has a standard error of at most .011; five of them
    assert (first - expected).abs().max() < 0.055
    given = [ids[1] for ids in written[:2000] if ids[0] == int(written[0][0])]
    assert len(set(given)) > 1


def test_the_judge_is_ours(make_policy: Make) -> None:
    policy = make_policy(0)
    prompts, responses = [[5, 6, 7], [8]], [[3, 4], [9, 1, 2]]
    ours = response_logprobs(
        policy, prompts, [[r] for r in responses], names=["a", "b"], memory_mb=4000
    )
    for prompt, response, found in zip(prompts, responses, ours, strict=True):
        # float32 means times lengths, in another order
        assert plain.logprob(policy.lm, prompt, response) == pytest.approx(found[0], abs=1e-4)


def test_the_training_step_is_ours(make_policy: Make, training: Training) -> None:
    """Where the reward tokens' rows are those of the ids that stand for them in the plain step."""
    update = {"sequences": 3, "batch": 3, "warmup_steps": 0, "max_grad_norm": None}
    training = training.model_copy(update=update)
    policy, base = make_policy(), make_policy(0, seed=1)
    with torch.no_grad():
        policy.reward_tokens.rows.copy_(policy.embeddings.weight[:3])
    twin = make_policy(0).lm
    prompts, responses = [[5, 6, 7], [8], [9, 10]], [[3, 4], [9, 1, 2], [7]]
    rows = Rows(["a", "b", "c"], prompts, responses, np.arange(3, dtype=np.int32))
    optimizer = torch.optim.Adam(twin.parameters())
    loss = plain.train_step(
        twin,
        base.lm,
        optimizer,
        [[k, *prompt] for k, prompt in enumerate(prompts)],
        responses,
        training.kl_coef,
        training.entropy_coef,
    )
    found = learn(
        policy,
        base,
        rows,
        training,
        iteration=0,
        iterations=1,
        precision="fp32",
        seed_name="test",
        memory_mb=4000,
        cache=None,
        resume=None,
    )
    assert found[2][0]["loss"] == pytest.approx(loss, rel=1e-5)  # float32 sums


def test_the_quantiles_are_ours() -> None:
    rewards = np.random.default_rng(0).permutation(17) / 17
    ours = quantiles(rewards, np.zeros(17, dtype=np.uint64), 5)
    assert plain.quantiles(rewards.tolist(), list("abcdefghijklmnopq"), 5) == ours.tolist()
