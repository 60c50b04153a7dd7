from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from conftest import moved
from oracle import EMBEDDING, LINEAR

from quark import config
from quark.config import RewardTokens, Sampling, load
from quark.generation.decoding import Guided, GuideProcessor, Plain
from quark.generation.sampler import sample
from quark.methods import gedi as method
from quark.methods.gedi import GeDi
from quark.models.decode_state import response_hidden
from quark.models.lm import Policy
from quark.training.trainer import Rows

SCALE = 3.0
CONFIG = Path(__file__).parents[2] / "config/config.yaml"
PROMPTS = [[7], [1, 2, 3, 4, 5], [8, 8, 8]]
NAMES = ["one", "long", "same"]
Make = Callable[..., Policy]


def settings(**changed: Any) -> config.GeDi:
    training = load([CONFIG]).baselines.gedi.training
    how = {"weight": 5, "filter_p": 0.8, "target_p": 0.6, "class_bias": 0.3} | changed
    return config.GeDi.model_validate({"training": training.model_dump(), **how})


def run(decoder: Any, sampling: Sampling, **changed: Any) -> Any:
    arguments = {"prompts": PROMPTS, "names": NAMES, "seed_name": "1/test", "memory_mb": 4000}
    found = sample(decoder, samples=5, sampling=sampling, **(arguments | changed))
    return {place: ids for place, ids, _ in found}


@torch.no_grad()
def plain_logits(
    base: Policy, classes: Policy, prompt: list[int], response: list[int], how: config.GeDi
) -> np.ndarray:
    """The guided logits in float64, token by token as the official loop filters them."""

    def next_token(policy: Policy, ids: list[int]) -> np.ndarray:
        logits = policy.lm(torch.tensor([ids])).logits[0].double()
        return logits.log_softmax(-1).numpy()

    exponents = []
    for k in (0, 1):
        under = oracle.under_token(classes, k, prompt, response)
        found = under.double().log_softmax(-1).numpy()
        so_far = sum(found[t, token] for t, token in enumerate(response))
        exponents.append(SCALE * (so_far + found[-1]) / (len(response) + 1))
    exponents[0] = exponents[0] + how.class_bias
    log_wanted = exponents[0] - np.logaddexp(*exponents)
    guided = next_token(base, [*prompt, *response])[-1] + how.weight * log_wanted
    probs = np.exp(guided - np.logaddexp.reduce(guided))
    gone, mass = [], 0.0
    for token in np.argsort(log_wanted, kind="stable"):
        mass += probs[token]
        if mass < how.filter_p and log_wanted[token] < np.log(how.target_p):
            gone.append(token)
    guided[gone] = -np.inf
    return guided


def both(make_policy: Make, form: RewardTokens) -> tuple[Policy, Policy]:
    """A base model, and a model of the classes: the same one, if a linear map names them."""
    if form is EMBEDDING:
        return make_policy(0, 0), make_policy(2, 1)
    classes = make_policy(2, 0, LINEAR)
    moved(classes)
    return make_policy(0, 0), classes


@pytest.mark.parametrize("form", [EMBEDDING, LINEAR], ids=lambda form: form.form)
@pytest.mark.parametrize("changed", [{}, {"filter_p": 0.05}, {"target_p": 1.0}, {"weight": 30}])
def test_the_law(make_policy: Make, changed: dict[str, Any], form: RewardTokens) -> None:
    base, classes = both(make_policy, form)
    how = settings(**changed)
    decoding = Guided(base, GeDi(classes, SCALE, how)).read(PROMPTS)
    decoding.select(torch.tensor([2, 0, 1, 1]))
    prompts = [PROMPTS[i] for i in (2, 0, 1, 1)]
    responses: list[list[int]] = [[], [], [], []]
    removed = 0
    with torch.no_grad():
        for tokens in ([3, 4, 5, 6], [9, 8, 7, 6], [1, 1, 2, 2]):
            logits, nucleus_of = decoding.next_token()
            assert nucleus_of is None
            for found, prompt, response in zip(logits, prompts, responses, strict=True):
                wanted = torch.from_numpy(plain_logits(base, classes, prompt, response, how))
                removed += int(wanted.isneginf().sum())
                assert torch.equal(found.isneginf(), wanted.isneginf())
                # float32 logits of size 30 weights, compared as distributions
                torch.testing.assert_close(
                    found.softmax(-1).double(), wanted.softmax(-1), atol=1e-5, rtol=1e-3
                )
            decoding.feed(torch.tensor(tokens))
            responses = [[*r, token] for r, token in zip(responses, tokens, strict=True)]
    assert removed > 20


def test_weight_zero_is_the_base_model(make_policy: Make, sampling: Sampling) -> None:
    base, classes = make_policy(0, 0), make_policy(2, 1)
    off = GeDi(classes, SCALE, settings(weight=0, filter_p=0))
    assert run(Guided(base, off), sampling) == run(Plain(base), sampling)
    on = GeDi(classes, SCALE, settings())
    assert run(Guided(base, on), sampling) != run(Plain(base), sampling)


def test_batches_change_nothing(make_policy: Make, sampling: Sampling) -> None:
    decoder = Guided(make_policy(0, 0), GeDi(make_policy(2, 1), SCALE, settings(weight=2)))
    together = run(decoder, sampling)
    for place, (prompt, name) in enumerate(zip(PROMPTS, NAMES, strict=True)):
        assert run(decoder, sampling, prompts=[prompt], names=[name])[0] == together[place]


@pytest.mark.parametrize("form", [EMBEDDING, LINEAR], ids=lambda form: form.form)
def test_in_transformers_generate(make_policy: Make, form: RewardTokens) -> None:
    base, classes = both(make_policy, form)
    base.lm.generation_config.eos_token_id = None
    how = settings(weight=2)
    prompts = [[5, 6], [9, 3]]
    written = base.lm.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(2, 2, dtype=torch.long),
        do_sample=False,
        max_new_tokens=3,
        logits_processor=[GuideProcessor(GeDi(classes, SCALE, how), prompts)],
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    for time, scores in enumerate(written.scores):
        for row, text in enumerate(written.sequences[:, : 2 + time].tolist()):
            wanted = torch.from_numpy(plain_logits(base, classes, text[:2], text[2:], how))
            found = scores[row].softmax(-1).double()
            torch.testing.assert_close(found, wanted.softmax(-1), atol=1e-5, rtol=1e-3)


def test_the_loss(make_policy: Make) -> None:
    """Value and gradient against full logits, one row at a time."""
    policy, twin = make_policy(2, 1), make_policy(2, 1)
    prompts, responses = [[5], [6, 7, 8], [9, 1]], [[1, 2, 3], [4], [5, 6]]
    rows = Rows(["a", "b", "c"], prompts, responses, np.array([0, 1, 1], dtype=np.int32))
    classes = method.Classes(policy, SCALE)
    found = method.loss(classes, rows, 0.6, "fp32")
    found["loss"].backward()

    scale = torch.tensor(SCALE, requires_grad=True)
    total = torch.zeros(())
    right = 0
    for prompt, response, label in zip(prompts, responses, rows.label, strict=True):
        means = []
        for k in (0, 1):
            ids = torch.tensor([[*twin.condition(prompt, k), *response]])
            logits = twin.lm(inputs_embeds=twin.embed(ids)).logits
            logprobs = logits[0, len(prompt) : -1].log_softmax(-1)
            means.append(logprobs[range(len(response)), response].mean())
        both = torch.stack(means)
        total = total - 0.6 * both[label] - 0.4 * (scale * both).log_softmax(0)[label]
        right += int(both.argmax()) == label
    total.backward()
    assert found["loss"].item() == pytest.approx(total.item(), rel=1e-5)  # float32 sums
    assert int(found["right"]) == right
    assert classes.log_scale.grad is not None and scale.grad is not None
    assert classes.log_scale.grad.item() == pytest.approx(SCALE * scale.grad.item(), rel=1e-4)
    for one, other in zip(policy.parameters(), twin.parameters(), strict=True):
        if other.grad is None:
            continue
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3)


def test_the_loss_of_linear_classes(make_policy: Make) -> None:
    """Value and gradient against full logits in float64."""
    policy = make_policy(2, 1, LINEAR)
    moved(policy)
    prompts, responses = [[5], [6, 7, 8], [9, 1]], [[1, 2, 3], [4], [5, 6]]
    rows = Rows(["a", "b", "c"], prompts, responses, np.array([0, 1, 1], dtype=np.int32))
    hidden = response_hidden(policy, prompts, responses).detach()
    found = method.loss(method.Classes(policy, SCALE), rows, 0.6, "fp32", hidden)
    found["loss"].backward()
    matrix = policy.reward_tokens.map.detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for prompt, response, label in zip(prompts, responses, rows.label, strict=True):
        with torch.no_grad():
            states = policy.lm.base_model(torch.tensor([prompt + response])).last_hidden_state
        h, head = states[0, len(prompt) - 1 : -1].double(), policy.head.detach().double()
        means = []
        for place in (1, -1):
            logprobs = ((h + place * (h @ matrix)) @ head.T).log_softmax(-1)
            means.append(logprobs[range(len(response)), response].mean())
        several = torch.stack(means)
        total = total - 0.6 * several[label] - 0.4 * (SCALE * several).log_softmax(0)[label]
    total.backward()
    assert found["loss"].item() == pytest.approx(total.item(), rel=1e-4)  # float32 sums
    found_grad = policy.reward_tokens.map.grad.double()
    torch.testing.assert_close(found_grad, matrix.grad, atol=1e-3, rtol=1e-3)  # of size 10
