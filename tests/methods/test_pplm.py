import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from quark import config
from quark.config import Sampling
from quark.generation.decoding import Plain
from quark.generation.sampler import sample
from quark.methods.pplm import PPLM, fit_classifier
from quark.models.lm import Policy
from quark.training.trainer import Rows

PROMPTS = [[7, 9], [1, 2, 3, 4, 5], [8, 8, 8], [6]]
NAMES = ["two", "long", "same", "one"]
Make = Callable[..., Policy]


def settings(**changed: Any) -> config.PPLM:
    how = {"step_size": 0.5, "iterations": 3, "gamma": 1.5, "fusion": 0.9, "kl_scale": 0.01}
    return config.PPLM.model_validate({"share": 1, **how, **changed})


def classifier(seed: int = 0) -> Tensor:
    return torch.randn(2, 33, generator=torch.Generator().manual_seed(seed))


def run(decoder: Any, sampling: Sampling, **changed: Any) -> Any:
    arguments = {"prompts": PROMPTS, "names": NAMES, "seed_name": "1/test", "memory_mb": 8000}
    found = sample(decoder, samples=5, sampling=sampling, **(arguments | changed))
    return {place: ids for place, ids, _ in found}


def plain_laws(policy: Policy, text: list[int], prompt: int, how: config.PPLM) -> list[Tensor]:
    """Log-probabilities after the prompt, one text in float64, as the official loop goes."""
    lm = copy.deepcopy(policy.lm).double()
    weights = classifier().double()
    embeddings = lm.get_input_embeddings().weight

    def step(past: list[Tensor] | None, **inputs: Any) -> Any:
        cache = DynamicCache()
        for i, layer in enumerate(past or []):
            cache.update(layer[0], layer[1], i)
        read = lm(past_key_values=cache, use_cache=True, output_hidden_states=True, **inputs)
        new = [torch.stack([layer.keys, layer.values]) for layer in read.past_key_values.layers]
        return read.logits[0, -1].log_softmax(-1), new, read.hidden_states[-1][0]

    distributions, past = [], None
    for end in range(prompt, len(text) + 1):
        ids = torch.tensor([text[:end]])
        last = ids[:, -1:]
        if past is None and end > 1:
            past = [p.detach() for p in step(None, input_ids=ids[:, :-1])[1]]
        log_q, unmoved, hidden = step(None, input_ids=ids)
        log_q, unmoved = log_q.detach(), [p.detach() for p in unmoved]
        if past is None:
            log_p, past, _ = step(None, input_ids=last)
        else:
            shifts = [torch.zeros_like(p) for p in past]
            for _ in range(how.iterations):
                shifts = [s.detach().requires_grad_() for s in shifts]
                moved = [p + s for p, s in zip(past, shifts, strict=True)]
                log_p, _, now = step(moved, input_ids=last)
                soft = log_p.exp() @ embeddings
                ahead = step(unmoved, inputs_embeds=soft[None, None])[2]
                seen = hidden[:-1].sum(0).detach() + now[0].detach() + ahead[0]
                scores = weights[:, :-1] @ (seen / (end + 1)) + weights[:, -1]
                loss = -scores.log_softmax(-1)[0]
                loss = loss + how.kl_scale * (log_p.exp() * (log_p - log_q)).sum()
                gradients = torch.autograd.grad(loss, shifts)
                shifts = [
                    s - how.step_size * g / g.norm() ** how.gamma
                    for s, g in zip(shifts, gradients, strict=True)
                ]
            moved = [p + s.detach() for p, s in zip(past, shifts, strict=True)]
            log_p, past, _ = step(moved, input_ids=last)
        past = [p.detach() for p in past]
        fused = how.fusion * log_p + (1 - how.fusion) * log_q
        distributions.append(fused.log_softmax(-1).detach())
    return distributions


@pytest.mark.parametrize("changed", [{}, {"gamma": 1.0, "kl_scale": 2.0, "fusion": 0.5}])
def test_the_law(make_policy: Make, changed: dict[str, Any]) -> None:
    policy, how = make_policy(0), settings(**changed)
    tokens = torch.tensor([[3, 4, 5, 6, 7], [9, 8, 7, 6, 5]])  # two for each row
    rows = [2, 0, 1, 1, 3]
    wanted = []
    for row, place in enumerate(rows):
        text = [*PROMPTS[place], *tokens[:, row].tolist()]
        wanted.append(torch.stack(plain_laws(policy, text, len(PROMPTS[place]), how)))
    decoding = PPLM(policy, classifier(), how).read(PROMPTS)
    decoding.select(torch.tensor(rows))
    for time in range(3):
        found = decoding.next_token().logits.log_softmax(-1).double()
        expected = torch.stack([distributions[time] for distributions in wanted])
        # float32 gradients, divided by their norm, three times over
        torch.testing.assert_close(found.exp(), expected.exp(), atol=1e-4, rtol=1e-2)
        plain = policy.lm(torch.tensor([PROMPTS[1]])).logits[0, -1].double().softmax(-1)
        if time == 0:
            assert (found[2].exp() - plain).abs().max() > 1e-2  # it moved
        if time < 2:
            decoding.feed(tokens[time])


def test_step_zero_is_the_base_model(make_policy: Make, sampling: Sampling) -> None:
    policy = make_policy(0)
    off = PPLM(policy, classifier(), settings(step_size=0))
    assert run(off, sampling) == run(Plain(policy), sampling)
    assert run(PPLM(policy, classifier(), settings()), sampling) != run(Plain(policy), sampling)


def test_batches_change_nothing(make_policy: Make, sampling: Sampling) -> None:
    # gamma 1: a larger power blows rounding up where a gradient is small
    decoder = PPLM(make_policy(0), classifier(), settings(step_size=0.1, gamma=1))
    together = run(decoder, sampling)
    for place, (prompt, name) in enumerate(zip(PROMPTS, NAMES, strict=True)):
        assert run(decoder, sampling, prompts=[prompt], names=[name])[0] == together[place]


def test_it_moves_towards_the_class(make_policy: Make) -> None:
    """The wanted class's score of the expected text rises, and falls with the classes turned."""
    policy = make_policy(0)
    rises = []
    for weights in (classifier(), classifier().flip(0)):
        decoding = PPLM(policy, weights, settings(step_size=0.05, kl_scale=0)).read(PROMPTS[1:2])
        zero = [torch.zeros(2, *layer.keys.shape) for layer in decoding.moved.cache.layers]
        log_q = decoding.next_token().logits.log_softmax(-1)
        shifts = decoding._shifts(log_q)
        rises.append(decoding._loss(zero, log_q).item() - decoding._loss(shifts, log_q).item())
    assert min(rises) > 0


def test_the_classifier(make_policy: Make) -> None:
    """Class 0 holds token 7 three times, class 1 token 9; both among noise."""
    rng = np.random.default_rng(0)
    label = (np.arange(200) % 2).astype(np.int32)
    prompts = rng.integers(20, 90, (200, 2)).tolist()
    noise = [rng.integers(20, 90, n).tolist() for n in rng.integers(0, 3, 200)]
    responses = [[*ids, *([9 if k else 7] * 3)] for ids, k in zip(noise, label, strict=True)]
    rows = Rows(list(map(str, range(200))), prompts, responses, label)
    policy = make_policy(0)
    weights, accuracy = fit_classifier(policy, rows, batch=32)
    assert weights.shape == (2, 33) and accuracy > 0.8
    text = torch.tensor([[*prompts[0], *responses[0]]])
    mean = policy.lm.base_model(text).last_hidden_state[0].mean(0).detach()
    scores = weights[:, :-1] @ mean + weights[:, -1]
    assert scores[0] > scores[1]
