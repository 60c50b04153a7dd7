"""CAA on tiny models, against plain sums over texts and against shifted embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import write_model
from safetensors.torch import load_file

from quark.config import Sampling
from quark.generation import sampler
from quark.generation.decoding import Decoder, Plain
from quark.generation.sampler import sample
from quark.methods import caa
from quark.models.lm import Policy, load_model
from quark.training.fitting import Texts
from quark.training.trainer import Rows

ROWS = Rows(
    ["a", "b", "c"],
    [[20, 21], [22], [23, 24, 25]],
    [[7, 8, 9], [10, 11], [12]],
    np.array([0, 1, 0], dtype=np.int32),
)
PROMPTS = [[20, 21, 22], [23], [24, 25]]


@pytest.fixture
def model(make_policy: Callable[..., Policy], tmp_path: Path) -> Path:
    directory: Path = write_model(make_policy(0).lm, tmp_path / "model", end_ids=[100])
    return directory


@pytest.fixture
def vectors(model: Path, tmp_path: Path) -> Path:
    caa.fit(Texts(model, ROWS, "vectors", None, "fp32", "s", 1000), None, tmp_path / "vectors")
    return tmp_path / "vectors"


def load(model: Path, vectors: Path, depth: float, strength: float) -> Decoder:
    settings = caa.Settings(depth=depth, strength=strength)
    return caa.decoder(model, [vectors], settings, "fp32")


def test_a_vector_is_the_difference_of_the_classes(model: Path, vectors: Path) -> None:
    lm = load_model(model, "fp32").lm
    means = []
    for prompt, response in zip(ROWS.prompts, ROWS.responses, strict=True):
        with torch.no_grad():
            read = lm(torch.tensor([prompt + response]), output_hidden_states=True)
        means.append(torch.stack([h[0, len(prompt) :].mean(0) for h in read.hidden_states[:-1]]))
    expected = (means[0] + means[2]) / 2 - means[1]
    found = load_file(vectors / "vectors.safetensors")["vectors"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # float32, padded and not


def test_before_the_first_layer_it_shifts_the_embeddings(model: Path, vectors: Path) -> None:
    """After some tokens: all that predict the response are shifted, the prompt's others are not."""
    decoding = load(model, vectors, 0.4, 40.0).read(PROMPTS)
    fed = [[7, 8, 9], [10, 11, 12]]
    for ids in fed:
        decoding.next_token()
        decoding.feed(torch.tensor(ids))
    found = decoding.next_token().logits
    vector = load_file(vectors / "vectors.safetensors")["vectors"][0]
    lm = load_model(model, "fp32").lm
    for row, prompt in enumerate(PROMPTS):
        text = [*prompt, *(ids[row] for ids in fed)]
        embedded = lm.get_input_embeddings()(torch.tensor([text])).detach().clone()
        plain = lm(inputs_embeds=embedded).logits[0, -1]
        embedded[:, len(prompt) - 1 :] += 40.0 * vector
        expected = lm(inputs_embeds=embedded).logits[0, -1]
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=0)  # with a cache, padded
        assert (expected - plain).abs().max() > 0.05


def test_a_layer_changes_what_follows_it(model: Path, vectors: Path) -> None:
    first, second, base = (
        load(model, vectors, *how).read(PROMPTS).next_token().logits
        for how in ((0.4, 40.0), (0.5, 40.0), (0.5, 0.0))
    )
    assert not torch.allclose(first, second, atol=1e-3)
    assert not torch.allclose(second, base, atol=1e-3)


def run(decoder: Decoder) -> list[Any]:
    how: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 0.9}
    sampling = Sampling(**how, min_new_tokens=2, max_new_tokens=8, penalty_alpha=0)
    fixed: dict[str, Any] = {"seed_name": "1/test", "memory_mb": 4000}
    written = sample(decoder, PROMPTS, ["a", "b", "c"], 10, sampling, **fixed)
    return [each.ids for each in sorted(written, key=lambda each: each.place)]


def test_strength_0_is_the_base_model(model: Path, vectors: Path) -> None:
    assert run(load(model, vectors, 0.5, 0.0)) == run(Plain(load_model(model, "fp32")))


def test_batches_change_nothing(
    model: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = load(model, vectors, 0.5, 20.0)
    together = run(decoder)
    monkeypatch.setattr(sampler, "MAX_ROWS", 10)  # one prompt in a batch
    assert run(decoder) == together
