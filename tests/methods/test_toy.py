"""docs/adding-a-method.md, followed: a guide that lowers the logits of given tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quark.config import Precision, Sampling, Section
from quark.config.registry import METHODS
from quark.config.spec import MethodSpec
from quark.generation.decoding import Decoder, Decoding, Guided, Plain
from quark.generation.sampler import sample
from quark.models.lm import Policy, load_model
from quark.stages.sample import decoder_for
from quark.stages.settings import SampleSettings

Make = Callable[..., Policy]


class Taboo(Section):
    """Settings: which tokens, and by how much."""

    tokens: tuple[int, ...]
    penalty: float


class TabooGuide:
    """It reads nothing, so there is nothing to select or feed."""

    models: Sequence[Policy] = ()
    within_base = False

    def __init__(self, settings: Taboo) -> None:
        self.settings = settings

    def read(
        self, prompts: Sequence[Sequence[int]], guided: Decoding | None = None
    ) -> "TabooGuide":
        return self

    def adjust(self, logits: Tensor) -> Tensor:
        lowered = logits.clone()
        lowered[:, list(self.settings.tokens)] -= self.settings.penalty
        return lowered

    def select(self, rows: Tensor) -> None:
        pass

    def feed(self, ids: Tensor) -> None:
        pass


def decoder(model: Path, parts: Sequence[Path], settings: Taboo, precision: Precision) -> Decoder:
    """The base model, loaded, under the guide."""
    return Guided(load_model(model, precision), TabooGuide(settings))


def run(decoder: Decoder, sampling: Sampling) -> list[int]:
    fixed: dict[str, Any] = {"seed_name": "1/test", "memory_mb": 4000}
    found = sample(decoder, [[5, 6], [7]], ["a", "b"], 30, sampling, **fixed)
    return [token for each in found for ids in each.ids for token in ids]


def test_it_steers(make_policy: Make, sampling: Sampling) -> None:
    policy = make_policy(0)
    plain = run(Plain(policy), sampling)
    taboo = tuple(sorted(set(plain))[::2])
    assert run(Guided(policy, TabooGuide(Taboo(tokens=taboo, penalty=0))), sampling) == plain
    steered = run(Guided(policy, TabooGuide(Taboo(tokens=taboo, penalty=100))), sampling)
    assert set(steered).isdisjoint(taboo)


def test_the_stage_finds_it_by_its_name(
    make_policy: Make, sampling: Sampling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_policy(0).lm.save_pretrained(tmp_path)
    spec = MethodSpec("Taboo", settings=Taboo, decoder=f"{__name__}:decoder")
    monkeypatch.setitem(METHODS.entries, "taboo", spec)
    fixed: dict[str, Any] = {"version": 1, "stream": "s", "iteration": 0, "prompts": None}
    fixed["prefix"] = None
    settings = SampleSettings(
        **fixed,
        method="base",
        samples=1,
        sampling=sampling,
        precision="fp32",
        cache=False,
        steering=None,
    )
    taboo = Taboo(tokens=(3,), penalty=1)
    steering = settings.model_copy(update={"method": "taboo", "steering": taboo})
    found = decoder_for(steering, tmp_path, [])
    assert isinstance(found, Guided) and isinstance(found.guide, TabooGuide)
    assert isinstance(decoder_for(settings, tmp_path, []), Plain)
    with torch.no_grad():
        steered, plain = (each.read([[5]]).next_token() for each in (found, Plain(found.policy)))
    moved = steered.logits - plain.logits
    expected = torch.zeros_like(moved)
    expected[0, 3] = -1
    assert torch.allclose(moved, expected, atol=1e-6)  # the difference of two float32 logits
