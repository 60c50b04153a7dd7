"""The contrastive loss and search against plain loops, on tiny models."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from quark.config import Sampling
from quark.generation.decoding import Decoder, Plain
from quark.generation.sampler import sample
from quark.methods.simctg import ContrastiveSearch, Loss, contrast
from quark.models.lm import Policy
from quark.training.trainer import Rows

Make = Callable[..., Policy]
PROMPTS = [[7], [1, 2, 3, 4, 5], [8, 8, 8]]


def run(decoder: Decoder, sampling: Sampling, prompts: list[list[int]]) -> list[Any]:
    names = [str(prompt) for prompt in prompts]
    fixed: dict[str, Any] = {"seed_name": "1/test", "memory_mb": 4000}
    found = sample(decoder, prompts, names, 1, sampling, **fixed)
    return [ids for _, (ids,) in sorted((place, ids) for place, ids, _ in found)]


@torch.no_grad()
def searched(policy: Policy, prompt: list[int], k: int, alpha: float, how: Sampling) -> list[int]:
    """Contrastive search, the whole text read again for each candidate."""

    def states(text: list[int]) -> torch.Tensor:
        states: torch.Tensor = policy.lm.base_model(torch.tensor([text])).last_hidden_state[0]
        return states

    text = list(prompt)
    while len(text) < len(prompt) + how.max_new_tokens:
        logits = policy.lm(torch.tensor([text])).logits[0, -1]
        if len(text) < len(prompt) + how.min_new_tokens:
            logits[list(policy.end_ids)] = -torch.inf
        probs = logits.softmax(-1)
        worth = {}
        for v in probs.argsort(descending=True)[:k].tolist():
            *past, new = states([*text, v])
            alike = max(float(cosine_similarity(new, old, dim=0)) for old in past)
            worth[v] = (1 - alpha) * float(probs[v]) - alpha * alike
        text.append(max(worth, key=lambda v: worth[v]))
        if text[-1] in policy.end_ids:
            break
    return text[len(prompt) :]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
def test_the_search(make_policy: Make, sampling: Sampling, alpha: float) -> None:
    policy = make_policy(0)
    how = sampling.model_copy(update={"max_new_tokens": 8, "top_p": 1.0})
    found = run(ContrastiveSearch(policy, 4, alpha), how, PROMPTS)
    for prompt, ids in zip(PROMPTS, found, strict=True):
        assert ids == searched(policy, prompt, 4, alpha, how)


def test_alpha_zero_is_greedy(make_policy: Make, sampling: Sampling) -> None:
    policy = make_policy(0)
    greedy = sampling.model_copy(update={"top_k": 1, "top_p": 1.0})
    found = run(ContrastiveSearch(policy, 5, 0.0), greedy, PROMPTS)
    assert found == run(Plain(policy), greedy, PROMPTS)
    assert found != run(ContrastiveSearch(policy, 5, 0.9), greedy, PROMPTS)


def test_batches_change_nothing(make_policy: Make, sampling: Sampling) -> None:
    search = ContrastiveSearch(make_policy(0), 3, 0.6)
    together = run(search, sampling, PROMPTS)
    for prompt, ids in zip(PROMPTS, together, strict=True):
        assert run(search, sampling, [prompt]) == [ids]


def test_the_loss() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 7, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            if i != j:
                near = cosine_similarity(hidden[i].double(), hidden[j].double(), dim=0)
                total = total + (0.5 - 1 + near).clamp(min=0)
    found = contrast(hidden, 0.5)
    assert found.item() == pytest.approx(total.item() / 20, rel=1e-5)  # float32
    assert contrast(hidden, 0.0).item() == pytest.approx(0, abs=1e-6)  # no cosine exceeds 1
    assert contrast(hidden[:1], 0.5).item() == 0
    (grad,) = torch.autograd.grad(found, hidden)
    (wanted,) = torch.autograd.grad(total / 20, hidden)
    torch.testing.assert_close(grad, wanted, atol=1e-6, rtol=1e-4)


def test_the_loss_of_texts(make_policy: Make) -> None:
    policy = make_policy(0)
    prompts, texts = [[100], [100, 7]], [[3, 4, 5, 6], [9, 8]]
    rows = Rows(["a", "b"], prompts, texts, np.zeros(2, dtype=np.int32))
    found = Loss(1.5)(policy, rows, "fp32", 0)  # a margin that every pair is within
    likely = apart = 0.0
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([[*prompt, *text[:-1]]])
        states = policy.lm.base_model(ids).last_hidden_state[0, len(prompt) - 1 :]
        log_p = (states @ policy.head.T).log_softmax(-1)
        likely -= log_p[range(len(text)), text].sum().item()
        apart += len(text) * contrast(states, 1.5).item()
    assert found["lm_loss"].item() == pytest.approx(likely, rel=1e-4)
    assert found["contrast"].item() == pytest.approx(apart, rel=1e-4)
    assert found["loss"].item() == pytest.approx(likely + apart, rel=1e-4)
    found["loss"].backward()
    assert policy.head.grad is not None
