import numpy as np
import pytest
import torch
from oracle import plain_logits

from quark.core.shards import Shard
from quark.generation import logprobs as module
from quark.generation.logprobs import response_logprobs, text_features
from quark.models.decode_state import PromptLengthError
from quark.models.lm import ModelError, Policy

PROMPTS = [[7], [1, 2, 3, 4, 5, 6, 7], [102, 9], [8, 8, 8]]  # 102 is reward token 1
RESPONSES: list[list[list[int]]] = [[[3, 4, 5, 100], [], [9]], [[1, 2]], [], [[5], [6, 7, 8]]]
NAMES = ["one", "long", "token", "same"]


@torch.no_grad()
def plain(policy: Policy, prompt: list[int], response: list[int]) -> float:
    """One full forward pass in float64, summed token by token."""
    log_p = plain_logits(policy, prompt, response).log_softmax(-1)
    return sum(float(log_p[t, token]) for t, token in enumerate(response))


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_equals_a_plain_pass(policy: Policy, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", rows)
    responses = [*RESPONSES[:2], [[4, 4], [5]], RESPONSES[3]]
    found = response_logprobs(policy, PROMPTS, responses, names=NAMES, memory_mb=4000)
    policy.double()
    for prompt, several, sums in zip(PROMPTS, responses, found, strict=True):
        assert sums.dtype == np.float64
        expected = [plain(policy, prompt, response) for response in several]
        # two layers in float32 round logits of size 10 by some 1e-6; at most four are summed
        np.testing.assert_allclose(sums, expected, atol=1e-4)
    assert found[0][1] == 0


def test_the_union_of_shards_is_the_whole(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    fixed = {"names": NAMES, "memory_mb": 4000}
    whole = np.concatenate(response_logprobs(policy, PROMPTS, RESPONSES, **fixed))
    parts = [
        np.concatenate(response_logprobs(policy, PROMPTS, RESPONSES, shard=Shard(i, 2), **fixed))
        for i in (1, 2)
    ]
    there = ~np.isnan(parts)
    assert (there.sum(axis=0) == 1).all() and there.any(axis=1).all()
    assert np.nansum(parts, axis=0).tolist() == whole.tolist()  # bit for bit


def test_shards_with_different_memory_lose_nothing(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    fixed = {"names": NAMES, "memory_mb": 4000}
    parts = []
    for number, room in ((1, 1), (2, 100)):
        monkeypatch.setattr(module, "rows_for_sampling", lambda *_, room=room: room)
        shard = Shard(number, 2)
        found = response_logprobs(policy, PROMPTS, RESPONSES, shard=shard, **fixed)
        parts.append(~np.isnan(np.concatenate(found)))
    assert np.sum(parts, axis=0).tolist() == [1] * 6


def test_a_broken_model_is_named_with_its_prompt(policy: Policy) -> None:
    with torch.no_grad():
        policy.head[3] = torch.nan
    with pytest.raises(ModelError, match="prompt one: a response's likelihood is not finite"):
        response_logprobs(policy, PROMPTS[:1], RESPONSES[:1], names=NAMES[:1], memory_mb=4000)


def test_no_response(policy: Policy) -> None:
    found = response_logprobs(policy, PROMPTS, RESPONSES, names=NAMES, memory_mb=4000)
    assert [len(sums) for sums in found] == [3, 1, 0, 2]
    empty = [[[]], [[], []], [], [[]]]
    found = response_logprobs(policy, PROMPTS, empty, names=NAMES, memory_mb=4000)
    assert [sums.tolist() for sums in found] == [[0], [0, 0], [], [0]]


def test_reward_token_counts(policy: Policy) -> None:
    prompts = [policy.condition([5, 6], token) for token in (None, 0, 1)]
    responses = [[[7, 8]]] * 3
    found = response_logprobs(policy, prompts, responses, names=list("abc"), memory_mb=4000)
    assert len({float(sums[0]) for sums in found}) == 3


def test_prompt_too_long(policy: Policy) -> None:
    with pytest.raises(PromptLengthError, match="prompt odd has 62 tokens"):
        response_logprobs(policy, [[1] * 62], [[[1, 2, 3]]], names=["odd"], memory_mb=4000)


@pytest.mark.parametrize("rows", [1, 2, 256])
def test_features_are_each_texts_last_state(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", rows)
    texts = [[7, 8, 9], [1], [2, 3, 4, 5, 6]]
    found = text_features(policy, texts, memory_mb=4000)
    for text, feature in zip(texts, found, strict=True):
        with torch.no_grad():
            states = policy.lm.base_model(torch.tensor([text])).last_hidden_state[0]
        # float32, padded or not
        np.testing.assert_allclose(feature, states[-1].numpy(), atol=1e-5)
