"""Hidden states of the texts that a method learns from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from quark.models import reference_cache
from quark.models.decode_state import response_hidden
from quark.models.lm import Policy
from quark.training.fitting import Texts, reader
from quark.training.trainer import Rows

ROWS = Rows(
    ["a", "b", "c"],
    [[20, 21], [22], [23, 24, 25]],
    [[7, 8, 9], [10, 11], [12]],
    np.array([0, 1, 0], dtype=np.int32),
)
STATES = 6 * 32 * 4
"""Bytes of the states: tokens, width of the tiny model, bytes of a number."""


@pytest.mark.parametrize(
    ("passes", "memory", "kept"),
    [(1, 1e9, False), (2, 8 * STATES, True), (2, 8 * STATES - 8, False)],
)
def test_states_are_kept_for_several_passes_if_they_fit(
    passes: int,
    memory: float,
    kept: bool,
    make_policy: Callable[..., Policy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = make_policy(0)
    assert policy.head.shape[1] == 32
    texts = Texts(Path(), ROWS, "part", None, "fp32", "s", 1)
    texts = texts._replace(memory_mb=memory / 1e6)  # type: ignore[arg-type]  # a tiny memory
    seen: list[list[list[int]]] = []

    def counted(policy: Policy, prompts: list[list[int]], responses: list[list[int]]) -> Tensor:
        seen.append(prompts)
        return response_hidden(policy, prompts, responses)

    monkeypatch.setattr(reference_cache, "response_hidden", counted)
    read = reader(policy, texts, passes)
    for chosen in ([0, 1], [2], [2, 0]):
        part = ROWS.take(chosen)
        found, expected = read(part), response_hidden(policy, part.prompts, part.responses)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)  # read in another batch
        assert not found.requires_grad
    first, second, third = ROWS.prompts
    assert seen == [[first, second], [third], *([] if kept else [[third, first]])]
