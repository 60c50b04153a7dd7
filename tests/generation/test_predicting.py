"""Predictions of real text against a row-by-row oracle."""

from collections.abc import Callable

import pytest
import torch
from conftest import moved
from oracle import EMBEDDING, LINEAR, SINK, plain_logits

from quark.generation.decoding import Contrast, Guided, Plain
from quark.generation.predicting import predict
from quark.models.decode_state import PromptLengthError
from quark.models.lm import Policy

Make = Callable[..., Policy]
PROMPTS = [[7, 8], [1, 2, 3, 4, 5], [9]]
TEXTS = [[4, 4, 5], [6], [1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("memory_mb", [4000, 1501])
@pytest.mark.parametrize("tokens", [None, "embedding", "linear", "sink"])
def test_against_the_oracle(make_policy: Make, tokens: str | None, memory_mb: int) -> None:
    forms = {"embedding": EMBEDDING, "linear": LINEAR, "sink": SINK}
    policy = make_policy(form=forms[tokens]) if tokens else make_policy(0)
    if tokens == "sink":
        with torch.no_grad():
            policy.reward_tokens.axis.normal_(generator=torch.Generator().manual_seed(0))
    if tokens == "linear":
        moved(policy)
        policy.steer()
    told = [policy.condition(prompt, 0) for prompt in PROMPTS]
    names = [str(prompt) for prompt in PROMPTS]
    found = sorted(predict(Plain(policy), told, TEXTS, names, memory_mb=memory_mb))
    assert [each.place for each in found] == [0, 1, 2]
    for each, prompt, text in zip(found, told, TEXTS, strict=True):
        log_p = plain_logits(policy, prompt, text)[:-1].double().log_softmax(-1)
        assert each.ids == log_p.argmax(-1).tolist()
        # float32 logits of another order of sums
        assert each.nll == pytest.approx(-float(log_p[range(len(text)), text].sum()), rel=1e-4)


def test_a_guide_has_its_say(make_policy: Make) -> None:
    policy, wanted, unwanted = (make_policy(0, seed=seed) for seed in (0, 1, 2))
    guide = Contrast(Plain(wanted), Plain(unwanted), 0.7)
    (found,) = predict(Guided(policy, guide), [[7]], [[4, 5]], ["p"], memory_mb=4000)
    base, up, down = (plain_logits(each, [7], [4, 5])[:-1] for each in (policy, wanted, unwanted))
    log_p = (base + 0.7 * (up - down)).log_softmax(-1)
    assert found.ids == log_p.argmax(-1).tolist()
    assert found.nll == pytest.approx(-float(log_p[[0, 1], [4, 5]].sum()), rel=1e-4)


def test_a_text_that_does_not_fit_is_named(make_policy: Make) -> None:
    with pytest.raises(PromptLengthError, match="prompt long has 60 tokens"):
        list(predict(Plain(make_policy(0)), [[1] * 60], [[2] * 9], ["long"], memory_mb=4000))
