"""DExperts, and the contrast of two decoders that guides it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from quark.config import Sampling
from quark.generation.decoding import Contrast, Decoder, Guided, GuideProcessor, Plain
from quark.generation.sampler import sample
from quark.models.lm import Policy

PROMPTS = [[7], [1, 2, 3, 4, 5], [8, 8, 8]]
NAMES = ["one", "long", "same"]
Make = Callable[..., Policy]


def run(decoder: Decoder, sampling: Sampling, samples: int = 5, **changed: Any) -> Any:
    arguments = {"prompts": PROMPTS, "names": NAMES, "seed_name": "1/test", "memory_mb": 4000}
    arguments |= changed
    found = sample(decoder, samples=samples, sampling=sampling, **arguments)
    return {place: ids for place, ids, _ in found}


@torch.no_grad()
def plain_law(models: list[Policy], text: list[int], alpha: float, top_p: float) -> np.ndarray:
    """The next token's distribution in float64, by full passes and sorting."""
    logits = [m.lm(torch.tensor([text])).logits[0, -1].double().numpy() for m in models]
    base = np.exp(logits[0] - logits[0].max())
    base /= base.sum()
    order = np.argsort(-base)
    likelier = np.cumsum(base[order]) - base[order]
    guided = logits[0] + alpha * (logits[1] - logits[2])
    guided[order[likelier >= top_p]] = -np.inf
    distribution = np.exp(guided - guided.max())
    return distribution / distribution.sum()


def contrast(expert: Policy, anti: Policy, alpha: float) -> Contrast:
    return Contrast(Plain(expert), Plain(anti), alpha)


def test_alpha_zero_is_the_base_model(make_policy: Make, sampling: Sampling) -> None:
    base, expert, anti = (make_policy(0, seed) for seed in range(3))
    guide = contrast(expert, anti, alpha=0.0)
    assert run(Guided(base, guide), sampling) == run(Plain(base), sampling)
    assert run(Guided(base, contrast(expert, anti, 1.0)), sampling) != run(Plain(base), sampling)
    same = contrast(expert, expert, alpha=3.0)
    assert run(Guided(base, same), sampling) == run(Plain(base), sampling)


def test_batches_change_nothing(make_policy: Make, sampling: Sampling) -> None:
    base, expert, anti = (make_policy(0, seed) for seed in range(3))
    decoder = Guided(base, contrast(expert, anti, alpha=0.5))
    together = run(decoder, sampling)
    for place, (prompt, name) in enumerate(zip(PROMPTS, NAMES, strict=True)):
        assert run(decoder, sampling, prompts=[prompt], names=[name])[0] == together[place]


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_the_law(make_policy: Make, sampling: Sampling, alpha: float) -> None:
    """Second tokens of many samples against the float64 distribution, given their first token."""
    models = [make_policy(0, seed) for seed in range(3)]
    how = sampling.model_copy(update={"min_new_tokens": 0, "max_new_tokens": 2})
    (samples,) = run(
        Guided(models[0], contrast(*models[1:], alpha)),
        how,
        samples=4000,
        prompts=[[5, 6]],
        names=["p"],
    ).values()
    first = np.bincount([ids[0] for ids in samples], minlength=101)
    token = int(first.argmax())
    for text, counts in (
        ([5, 6], first),
        (
            [5, 6, token],
            np.bincount([i[1] for i in samples if i[0] == token and len(i) > 1], minlength=101),
        ),
    ):
        distribution = plain_law(models, text, alpha, sampling.top_p)
        assert not counts[distribution == 0].any()
        likely = distribution * counts.sum() >= 5
        seen = [*counts[likely], counts[~likely].sum()]
        due = [*(distribution[likely] * counts.sum()), distribution[~likely].sum() * counts.sum()]
        # a wrong one fails by far; the seed is fixed, so a right one passes or fails for good
        assert stats.chisquare(np.array(seen) + 1e-9, np.array(due) + 1e-9).pvalue > 1e-3


def test_in_transformers_generate(make_policy: Make) -> None:
    """The processor's scores are the float64 distribution, while `generate` goes on greedily."""
    models = [make_policy(0, seed) for seed in range(3)]
    models[0].lm.generation_config.eos_token_id = None
    guide = contrast(*models[1:], alpha=0.7)
    written = models[0].lm.generate(
        torch.tensor([[5, 6], [9, 3]]),
        attention_mask=torch.ones(2, 2, dtype=torch.long),
        do_sample=False,
        max_new_tokens=4,
        logits_processor=[GuideProcessor(guide, [[5, 6], [9, 3]], top_p=0.9)],
        output_scores=True,
        return_dict_in_generate=True,
        pad_token_id=0,
    )
    for time, scores in enumerate(written.scores):
        for row, text in enumerate(written.sequences[:, : 2 + time].tolist()):
            wanted = torch.from_numpy(plain_law(models, text, 0.7, 0.9))
            found = scores[row].softmax(-1).double()
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)  # float32 logits
