from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import moved
from oracle import EMBEDDING, LINEAR, SINK, under_token
from runs import write_model

from quark.config import ConfigError, LoRA, RewardTokens, Training
from quark.core.seeds import stream
from quark.maths.objective import Coefficients, token_loss
from quark.methods import quark as method
from quark.methods.quark import learn, split_pool, training_order
from quark.models import checkpoint as checkpoints
from quark.models.lm import Policy
from quark.models.lora import add_adapters
from quark.models.reference_cache import ReferenceCache
from quark.training.trainer import Rows, choose_parameters

Make = Callable[..., Policy]


@pytest.fixture
def rows() -> Rows:
    """Eight rows of unlike lengths in three quantiles, one with an end id."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 90, n).tolist() for n in (1, 4, 2, 6, 3, 1, 5, 2)]
    responses = [rng.integers(1, 90, n).tolist() for n in (5, 1, 3, 2, 6, 4, 1, 2)]
    responses[3][-1] = 100
    quantile = np.array([0, 1, 2, 0, 1, 2, 0, 1], dtype=np.int32)
    return Rows([f"row{i}" for i in range(8)], prompts, responses, quantile)


def changed(training: Training, **keys: Any) -> Training:
    return Training.model_validate(training.model_dump() | keys)


def run(policy: Policy, base: Policy, rows: Rows, training: Training, **keys: Any) -> Any:
    arguments = {"iteration": 0, "iterations": 1, "seed_name": "1/test"}
    arguments |= {"cache": None, "resume": None} | keys
    return learn(policy, base, rows, training, precision="fp32", memory_mb=4000, **arguments)


def measure(policy: Policy, held_out: Rows) -> dict[str, float] | None:
    return method.token_gap(
        policy, Policy(policy.lm), held_out, 3, "fp32", "1/test", 4000, ReferenceCache()
    )


def plain_gradients(policy: Policy, base: Policy, rows: Rows, training: Training) -> float:
    """Backward of the mean objective per token from full logits, one row at a time; the loss."""
    weigh = Coefficients(training.kl_coef, training.entropy_coef, training.kl_direction)
    losses = []
    for prompt, response, k in zip(rows.prompts, rows.responses, rows.label, strict=True):
        ids = torch.tensor([[101 + int(k), *prompt, *response]])
        logits = policy.lm(inputs_embeds=policy.embed(ids)).logits[0, len(prompt) : -1]
        base_logits = base.lm(ids[:, 1:]).logits[0, len(prompt) - 1 : -1].detach()
        losses.append(token_loss(logits, base_logits, torch.tensor(response), weigh).loss)
    loss = torch.cat(losses).mean()
    loss.backward()
    return float(loss.detach())


def plain_learn(
    policy: Policy, base: Policy, batches: list[Rows], rates: list[float], training: Training
) -> list[float]:
    """Steps of one Adam at the given factors of its two learning rates, written out."""
    model = list(policy.lm.parameters())
    groups = [{"params": model}, {"params": [policy.reward_tokens.rows]}]
    optimizer = torch.optim.Adam(groups, betas=training.betas, eps=training.eps)
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        optimizer.zero_grad()
        losses.append(plain_gradients(policy, base, batch, training))
        gradients = [p.grad for p in policy.parameters() if p.grad is not None]
        norm = sum(float(g.double().square().sum()) for g in gradients) ** 0.5
        for gradient in gradients:
            gradient *= min(1, (training.max_grad_norm or np.inf) / norm)
        optimizer.param_groups[0]["lr"] = training.learning_rate * rate
        optimizer.param_groups[1]["lr"] = training.token_learning_rate * rate
        optimizer.step()
    return losses


def same_parameters(one: Policy, other: Policy, atol: float) -> None:
    for (name, found), wanted in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=atol, rtol=0, msg=lambda m, n=name: n + m)


# ------------------------------------------------------------------------------- which rows
def pool(iterations: int) -> pa.Table:
    names = [(i, f"p{j}") for i in range(iterations) for j in range(10)]
    return pa.table(
        {
            "row_id": [f"{i}/{p}/0" for i, p in names],
            "prompt_id": [p for _, p in names],
            "prompt_ids": [[1, 2]] * len(names),
            "response_ids": [[3]] * len(names),
            "quantile": pa.array([n % 2 for n in range(len(names))], pa.int32()),
        }
    )


def test_held_out_prompts_are_the_same_in_every_iteration() -> None:
    held_out = []
    for iterations in (1, 3):
        trained, held = split_pool(pool(iterations), held_out_prompts=3, seed=1)
        assert len(trained.ids) == 7 * iterations and len(held.ids) == 3 * iterations
        prompts = [{name.split("/")[1] for name in part.ids} for part in (trained, held)]
        assert not prompts[0] & prompts[1]
        held_out.append(prompts[1])
    assert held_out[0] == held_out[1]
    with pytest.raises(ValueError, match="held_out_prompts = 10 leaves none"):
        split_pool(pool(1), held_out_prompts=10, seed=1)


@pytest.mark.parametrize("late", range(10))
def test_a_prompt_that_comes_late_makes_no_trained_one_held_out(late: int) -> None:
    whole = pool(2)
    there = [i for i, row in enumerate(whole["row_id"].to_pylist()) if row != f"0/p{late}/0"]
    later = whole.take(there)
    first = later.take([i for i, row in enumerate(later["row_id"].to_pylist()) if row[0] == "0"])
    trained, _ = split_pool(first, held_out_prompts=3, seed=1)
    _, held_out = split_pool(later, held_out_prompts=3, seed=1)
    assert len(trained.ids) == 6 and len({name.split("/")[1] for name in held_out.ids}) == 3
    assert not set(trained.ids) & set(held_out.ids)


def test_no_row_twice_before_all_once(training: Training) -> None:
    quantile = np.arange(10, dtype=np.int32) % 5
    order = training_order(quantile, changed(training, sequences=25), stream("order"))
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10))
    assert len(set(order[20:])) == 5
    assert order.tolist() != sorted(order)


def test_quantile_shares(training: Training) -> None:
    quantile = np.repeat(np.arange(3), [10, 10, 4]).astype(np.int32)
    wanted = changed(training, sequences=20, quantile_shares=(0.5, 0, 0.5))
    order = training_order(quantile, wanted, stream("order"))
    assert np.bincount(quantile[order], minlength=3).tolist() == [10, 0, 10]
    times = np.bincount(order, minlength=24)
    assert times[:20].tolist() == [1] * 10 + [0] * 10
    assert sorted(times[20:]) == [2, 2, 3, 3]


# ------------------------------------------------------------------------------- the step
@pytest.mark.parametrize("direction", ["policy_to_base", "base_to_policy"])
@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_learning_equals_plain_steps(
    make_policy: Make,
    rows: Rows,
    training: Training,
    direction: str,
    max_grad_norm: float | None,
) -> None:
    # A large eps: with 1e-8, Adam makes whole steps of gradients that are nothing but rounding.
    training = changed(training, kl_direction=direction, max_grad_norm=max_grad_norm, eps=1e-3)
    base = make_policy(0, seed=1)  # far from the policy, so that the KL counts
    policy, plain = make_policy(), make_policy()
    _, step, curve = run(policy, base, rows, training)

    order = training_order(rows.label, training, stream("1/test", "order")).tolist()
    batches = [rows.take(order[:4]), rows.take(order[4:])]
    losses = plain_learn(plain, base, batches, [0.5, 1.0], training)
    assert step == 2
    np.testing.assert_allclose([s["loss"] for s in curve], losses, rtol=1e-5)  # float32 sums
    # gradients agree to 1e-5 of eps = 1e-3, so a step of 1e-2 agrees to 1e-4 of itself twice over
    same_parameters(policy, plain, atol=2e-6)
    assert not torch.equal(policy.reward_tokens.rows, make_policy().reward_tokens.rows)


def same_gradients(one: Policy, other: Policy) -> None:
    for (name, found), wanted in zip(one.named_parameters(), other.parameters(), strict=True):
        assert found.grad is not None and wanted.grad is not None, name
        # float32 sums in another order; gradients here are at most of size 10
        torch.testing.assert_close(found.grad, wanted.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_micro_batches_add_up(
    make_policy: Make, rows: Rows, training: Training, size: int, checkpointing: bool
) -> None:
    """However they are computed: with activations kept, or computed again in backward."""
    base, policy, plain = make_policy(0, seed=1), make_policy(), make_policy()
    choose_parameters(policy.lm, None, checkpointing)
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    first = "h.0.mlp" if hasattr(policy.lm.base_model, "h") else "layers.0.mlp"
    policy.lm.base_model.get_submodule(first).register_forward_pre_hook(count)
    objective = method._Objective(policy, base, training, "fp32", None)
    parts = [list(range(8))[i : i + size] for i in range(0, 8, size)]
    losses = []
    for part in parts:
        loss = objective(rows.take(part))["loss"] / 24  # response tokens
        loss.backward()
        losses.append(loss.item())
    assert calls == len(parts) * (2 if checkpointing else 1)
    wanted = plain_gradients(plain, base, rows, training)
    assert sum(losses) == pytest.approx(wanted, rel=1e-5)  # float32 sums in another order
    same_gradients(policy, plain)


@pytest.mark.parametrize("form", [EMBEDDING, LINEAR, SINK], ids=lambda form: form.form)
def test_a_memo_changes_nothing_but_the_work(
    make_policy: Make, rows: Rows, training: Training, form: RewardTokens
) -> None:
    """Without a cache, with an empty one, and with a full one, which spares the base model."""
    layers = None if form is EMBEDDING else 0
    # more sequences than rows, so that rows come again; a large eps: as above
    training = changed(training, trained_layers=layers, sequences=20, eps=1e-3)
    policies, curves, cache = [], [], ReferenceCache()
    for known, full in ((None, False), (cache, False), (cache, True)):
        policy = make_policy(form=form)
        base = make_policy(0, seed=1) if form is EMBEDDING else Policy(policy.lm)
        if full:
            silent = [1, 4, 7] if form is LINEAR else []  # rows of the middle quantile
            assert cache.missing(rows.ids) == silent
            base.hidden = None  # type: ignore[method-assign, assignment]
        policies.append(policy)
        curves.append([s["loss"] for s in run(policy, base, rows, training, cache=known)[2]])
    for policy, curve in zip(policies[1:], curves[1:], strict=True):
        np.testing.assert_allclose(curve, curves[0], rtol=1e-5)  # float32, other shapes
        same_parameters(policy, policies[0], atol=5e-6)  # as above, for five steps


def test_only_top_layers_learn(make_policy: Make, rows: Rows, training: Training) -> None:
    policy, before = make_policy(), make_policy()
    moments, *_ = run(policy, make_policy(0), rows, changed(training, trained_layers=1))
    pairs = zip(policy.named_parameters(), before.parameters(), strict=True)
    learnt = {name for (name, now), then in pairs if not torch.equal(now, then)}
    assert "reward_tokens.rows" in learnt and len(learnt) > 5
    assert all(".1." in name for name in learnt - {"reward_tokens.rows"})
    assert learnt <= set(moments)


def test_resumed_iterations_equal_one_run(
    make_policy: Make, rows: Rows, training: Training, tmp_path: Path
) -> None:
    """Two iterations with files between them against four plain steps of a single Adam."""
    training = changed(training, eps=1e-3)  # as above
    model, between = tmp_path / "model", tmp_path / "checkpoint"
    policy, plain, base = make_policy(), make_policy(), make_policy(0)
    write_model(base.lm, model)

    moments, step, _ = run(policy, base, rows, training, iterations=2)
    checkpoints.save(between, policy, moments, form=EMBEDDING, step=step, iteration=0, model=model)
    policy = checkpoints.load_policy(model, between, "fp32")
    resume = checkpoints.load_moments(between), checkpoints.read_about(between)["step"]
    later = {"iteration": 1, "iterations": 2, "seed_name": "2/test"}
    _, step, curve = run(policy, base, rows, training, resume=resume, **later)

    assert step == 4 and [s["step"] for s in curve] == [2, 3]
    orders = [
        training_order(rows.label, training, stream(name, "order")).tolist()
        for name in ("1/test", "2/test")
    ]
    batches = [rows.take(part) for order in orders for part in (order[:4], order[4:])]
    plain_learn(plain, base, batches, [1 / 2, 1, 2 / 3, 1 / 3], training)
    same_parameters(policy, plain, atol=4e-6)  # as above, for four steps


@pytest.mark.parametrize("form", [EMBEDDING, LINEAR, SINK], ids=lambda form: form.form)
def test_tokens_learn_their_quantile(
    make_policy: Make, training: Training, form: RewardTokens
) -> None:
    """The best responses hold token 7, the worst token 9; the others token 8."""
    rng, count = np.random.default_rng(0), 480 if form is LINEAR else 96  # d x d numbers to learn
    quantile = (np.arange(count) % 3).astype(np.int32)
    prompts = rng.integers(20, 90, (count, 3)).tolist()
    responses = [[{0: 7, 1: 8, 2: 9}[int(k)], 30] for k in quantile]
    rows = Rows(list(map(str, range(count))), prompts, responses, quantile)
    held_out, taught = rows.take(range(count // 4)), rows.take(range(count // 4, count))
    policy, base = make_policy(form=form), make_policy(0)
    before = measure(policy, held_out)
    wanted = changed(training, sequences=1600, batch=16, learning_rate=1e-2, max_grad_norm=None)
    if form is LINEAR:
        wanted = changed(wanted, trained_layers=0)
    if form is SINK:
        wanted = changed(wanted, token_learning_rate=0.3)  # in units of the deviation
    run(policy, base, taught, wanted)
    after = measure(policy, held_out)
    assert before is not None and after is not None
    for kind in ("best", "worst"):
        assert after[kind] > max(before[kind], 3 * after[f"{kind}_se"], 1)
    best, worst = (
        sum(under_token(policy, k, prompt, [])[0].softmax(-1) for prompt in held_out.prompts[:20])
        / 20
        for k in (0, 2)
    )
    likely = 0.1 if form is LINEAR else 0.4  # a map has no constant term; the states are random
    assert best[7] > likely > best[9] and worst[9] > likely > worst[7]


def test_the_token_gap_does_not_depend_on_how_layers_were_trained(
    make_policy: Make, rows: Rows, training: Training
) -> None:
    found = []
    for checkpointing in (False, True):
        policy = make_policy()
        run(policy, make_policy(0), rows, changed(training, gradient_checkpointing=checkpointing))
        found.append(measure(policy, rows))
    assert found[0] is not None
    assert found[1] == pytest.approx(found[0], abs=1e-4)  # float32, steps of the same gradients


@pytest.mark.parametrize("form", [EMBEDDING, SINK], ids=lambda form: form.form)
def test_with_adapters_the_base_model_is_the_policys_own(
    make_policy: Make, rows: Rows, training: Training, form: RewardTokens
) -> None:
    """One model with its adapters off, or a second copy of it: the same steps."""
    lora = LoRA(rank=2, alpha=4)
    how = changed(training, lora=lora.model_dump(), learning_rate=1e-2, eps=1e-3)  # as above
    learnt = []
    for shared in (True, False):
        policy = make_policy(form=form)
        add_adapters(policy.lm, lora, None, seed=1)
        base = Policy(policy.lm) if shared else make_policy(0)
        curve = run(policy, base, rows, how)[2]
        learnt.append(policy)
        assert curve[-1]["kl"] > 1e-6, "the second step must have moved away"
    same_parameters(*learnt, atol=1e-6)  # float32 sums in another order
    plain = dict(make_policy(0).lm.named_parameters())
    for name, parameter in learnt[0].lm.named_parameters():
        moved = "lora_" in name
        assert moved or torch.equal(parameter, plain[name.replace(".base_layer", "")]), name


def test_only_the_map_learns(make_policy: Make, rows: Rows, training: Training) -> None:
    policy, before = make_policy(form=LINEAR), make_policy(form=LINEAR)
    moments, *_ = run(policy, Policy(policy.lm), rows, changed(training, trained_layers=0))
    pairs = zip(policy.named_parameters(), before.parameters(), strict=True)
    learned = {name for (name, now), then in pairs if not torch.equal(now, then)}
    assert learned == {"reward_tokens.map"} == set(moments)


@pytest.mark.parametrize("direction", ["policy_to_base", "base_to_policy"])
def test_gradients_of_the_map_equal_plain_ones(
    make_policy: Make, rows: Rows, training: Training, direction: str
) -> None:
    """Against full logits in float64, one row at a time."""
    policy = make_policy(form=LINEAR)
    moved(policy)
    tokens, how = policy.reward_tokens, changed(training, kl_direction=direction)
    objective = method._Objective(policy, Policy(policy.lm), how, "fp32", None)
    loss = objective(rows)["loss"]
    loss.backward()
    weigh = Coefficients(how.kl_coef, how.entropy_coef, how.kl_direction)
    matrix = tokens.map.detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for prompt, response, k in zip(rows.prompts, rows.responses, rows.label, strict=True):
        with torch.no_grad():
            states = policy.lm.base_model(torch.tensor([prompt + response])).last_hidden_state
        h, head = states[0, len(prompt) - 1 : -1].double(), policy.head.detach().double()
        logits = (h + (1 - int(k)) * (h @ matrix)) @ head.T
        total = total + token_loss(logits, h @ head.T, torch.tensor(response), weigh).loss.sum()
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)  # float32 sums
    # of size 100; float32 sums over 24 tokens
    torch.testing.assert_close(tokens.map.grad.double(), matrix.grad, atol=1e-3, rtol=1e-3)


def test_rows_without_gradient_are_left_out(training: Training) -> None:
    quantile = np.repeat(np.arange(3), [10, 10, 4]).astype(np.int32)
    for shares in (None, (0.4, 0.2, 0.4)):
        wanted = changed(training, sequences=20, quantile_shares=shares)
        order = training_order(quantile, wanted, stream("order"), silent=1)
        assert len(order) == 20 and 1 not in quantile[order]
    assert np.bincount(quantile[order]).tolist() == [10, 0, 10]  # of the shares


def test_only_the_sink_learns(make_policy: Make, rows: Rows, training: Training) -> None:
    policy, before = make_policy(form=SINK), make_policy(form=SINK)
    longer = rows._replace(prompts=[[1, *prompt] for prompt in rows.prompts])
    moments, *_ = run(policy, Policy(policy.lm), longer, changed(training, trained_layers=0))
    pairs = zip(policy.named_parameters(), before.parameters(), strict=True)
    learnt = {name for (name, now), then in pairs if not torch.equal(now, then)}
    assert learnt == {"reward_tokens.axis"} == set(moments)


def test_the_token_gap_needs_rows_of_both_kinds(policy: Policy, rows: Rows) -> None:
    assert measure(policy, rows.take([0, 3, 6])) is None


def test_a_share_of_a_quantile_without_rows_is_an_error(training: Training) -> None:
    wanted = changed(training, sequences=4, quantile_shares=[0.5, 0.5])
    with pytest.raises(ValueError, match="2 rows of quantile 1"):
        training_order(np.zeros(4, dtype=np.int32), wanted, stream("order"))


def test_error_of_the_token_gap() -> None:
    values = np.random.default_rng(0).normal(size=20)
    usual = values.std(ddof=1) / 20**0.5
    assert method._clustered_error(values, np.arange(20)) == pytest.approx(usual)
    twice = np.concatenate([values, values])  # the same rows again tell nothing new
    assert method._clustered_error(twice, np.tile(np.arange(20), 2)) == pytest.approx(usual)


def test_more_layers_than_the_model_has(make_policy: Make, rows: Rows, training: Training) -> None:
    with pytest.raises(ConfigError, match="trained_layers = 3, but the model has 2"):
        run(make_policy(), make_policy(0), rows, changed(training, trained_layers=3))
