"""Guided Quark on tiny models: embedded reward tokens in three passes, linear ones in one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle import EMBEDDING, LINEAR, SINK, steered_logits
from runs import write_model

from quark.config import Place, RewardTokens, Sampling
from quark.generation.decoding import Decoder, Guided, GuideProcessor, Plain
from quark.generation.sampler import sample
from quark.methods.guided import decoder
from quark.models.checkpoint import save
from quark.models.lm import ModelError, Policy

Make = Callable[..., Policy]
FORMS = pytest.mark.parametrize("form", [EMBEDDING, LINEAR, SINK], ids=lambda form: form.form)


def trained(make_policy: Make, folder: Path, form: RewardTokens, tokens: int = 3) -> Policy:
    """A policy far from its base model, both on disk: `base` and `checkpoint`."""
    policy = make_policy(tokens, 0, form)
    write_model(policy.lm, folder / "base", end_ids=list(policy.end_ids))
    torch.manual_seed(1)
    if form is LINEAR:
        policy.lm.requires_grad_(False)
    with torch.no_grad():
        for parameter in filter(lambda p: p.requires_grad, policy.parameters()):
            parameter += 0.1 * torch.randn_like(parameter)
    save(
        folder / "checkpoint",
        policy,
        {},
        form=form if tokens else None,
        step=1,
        iteration=0,
        model=folder / "base",
    )
    return policy


def load(folder: Path, place: float) -> Decoder:
    return decoder(folder / "base", [folder / "checkpoint"], Place(place=place), "fp32")


def run(decoder: Decoder, sampling: Sampling) -> list[Any]:
    fixed: dict[str, Any] = {"seed_name": "1/test", "memory_mb": 4000}
    return [each.ids for each in sample(decoder, [[5, 6], [7]], ["a", "b"], 20, sampling, **fixed)]


@pytest.mark.parametrize("form", [EMBEDDING, SINK], ids=lambda form: form.form)
def test_the_law(make_policy: Make, tmp_path: Path, form: RewardTokens) -> None:
    """After any tokens, base + c/2 (best - worst), each row read on its own."""
    policy, base = trained(make_policy, tmp_path, form), make_policy(0)
    prompts, continuations = [[5, 6, 7], [9]], [[3, 4], [8, 1]]
    decoding = load(tmp_path, place=3.0).read(prompts)

    def alone(who: Policy, k: int | None, row: int, time: int) -> torch.Tensor:
        reading = Plain(who, k).read([prompts[row]])
        for token in continuations[row][:time]:
            reading.feed(torch.tensor([token]))
        return reading.next_token().logits[0].double()

    with torch.no_grad():
        for time in range(3):
            given = decoding.next_token()
            assert given.nucleus_of is not None
            for row in range(2):
                plain = alone(base, None, row, time)
                wanted = plain + 1.5 * (alone(policy, 0, row, time) - alone(policy, 2, row, time))
                # float32 logits of a few units
                torch.testing.assert_close(given.logits[row].double(), wanted, atol=2e-4, rtol=1e-4)
                torch.testing.assert_close(given.nucleus_of[row].double(), plain, atol=2e-4, rtol=0)
            if time < 2:
                decoding.feed(torch.tensor([ids[time] for ids in continuations]))


@FORMS
def test_place_zero_is_the_base_model(
    make_policy: Make, sampling: Sampling, tmp_path: Path, form: RewardTokens
) -> None:
    trained(make_policy, tmp_path, form)
    plain = run(Plain(make_policy(0)), sampling)
    assert run(load(tmp_path, 0.0), sampling) == plain
    assert run(load(tmp_path, 1.0), sampling) != plain


def test_linear_tokens_take_one_pass(make_policy: Make, tmp_path: Path) -> None:
    policy = trained(make_policy, tmp_path, LINEAR)
    guided = load(tmp_path, 3.0)
    assert len(guided.models) == 1
    decoding = guided.read([[5, 6, 7], [9]])
    decoding.feed(torch.tensor([3, 8]))
    given = decoding.next_token()
    assert given.nucleus_of is not None
    for row, (prompt, token) in enumerate((([5, 6, 7], 3), ([9], 8))):
        wanted, plain = (steered_logits(policy, prompt, [token], c)[-1] for c in (3.0, 0.0))
        # float32 logits of a few units
        torch.testing.assert_close(given.logits[row].double(), wanted, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(given.nucleus_of[row].double(), plain, atol=1e-3, rtol=1e-4)


def test_generate_guides_as_the_sampler_does(make_policy: Make, tmp_path: Path) -> None:
    """Without the guided policy's own decoding, the guide reads the texts itself."""
    trained(make_policy, tmp_path, LINEAR)
    guided = load(tmp_path, 3.0)
    assert isinstance(guided, Guided)
    processor = GuideProcessor(guided.guide, [[5, 6, 7], [9, 4, 2]])
    decoding = guided.read([[5, 6, 7], [9, 4, 2]])
    ids = torch.tensor([[5, 6, 7], [9, 4, 2]])
    for token in ([3, 8], [1, 1]):
        given = decoding.next_token()
        assert given.nucleus_of is not None
        # the same float32 products, in another order
        torch.testing.assert_close(
            processor(ids, given.nucleus_of), given.logits, atol=1e-4, rtol=1e-5
        )
        decoding.feed(torch.tensor(token))
        ids = torch.cat([ids, torch.tensor(token)[:, None]], dim=1)


def test_a_policy_without_reward_tokens_is_refused(make_policy: Make, tmp_path: Path) -> None:
    trained(make_policy, tmp_path, EMBEDDING, tokens=0)
    with pytest.raises(ModelError, match=r"checkpoint: holds no reward tokens"):
        load(tmp_path, 1.0)
