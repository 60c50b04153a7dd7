from typing import Any

import numpy as np
import pytest
import torch
from oracle import plain_logits

from quark.config import Sampling
from quark.core.seeds import stream
from quark.core.shards import WHOLE, Shard
from quark.generation import sampler as module
from quark.generation.decoding import Plain
from quark.generation.sampler import sample, workers_for
from quark.maths.nucleus import UNIFORMS, draw
from quark.models.decode_state import PromptLengthError, response_hidden
from quark.models.lm import Policy

PROMPTS = [[7], [1, 2, 3, 4, 5, 6, 7], [102, 9], [8, 8, 8]]  # 102 is reward token 1
NAMES = ["one", "long", "token", "same"]


def run(policy: Policy, sampling: Sampling, samples: int = 5, **changed: Any) -> Any:
    arguments = {"prompts": PROMPTS, "names": NAMES, "seed_name": "1/test", "memory_mb": 4000}
    arguments |= changed
    found = sample(Plain(policy), samples=samples, sampling=sampling, **arguments)
    return {place: ids for place, ids, _ in found}


@torch.no_grad()
def plain(policy: Policy, prompt: list[int], row: str, sampling: Sampling) -> list[int]:
    """One continuation by full forward passes, without cache, padding or batch."""
    time = sampling.max_new_tokens
    uniforms = stream("1/test", row).random((time, UNIFORMS), dtype=np.float32)
    how = sampling.model_dump(include={"temperature", "top_k", "top_p"})
    written: list[int] = []
    for t in range(time):
        logits = plain_logits(policy, prompt, written)[-1:].clone()
        if t < sampling.min_new_tokens:
            logits[:, policy.end_ids] = -torch.inf
        written.append(int(draw(logits, torch.from_numpy(uniforms[t : t + 1]), **how)))
        if written[-1] in policy.end_ids:
            break
    return written


def test_equals_a_plain_loop(policy: Policy, sampling: Sampling) -> None:
    # Equal token by token: rounding could flip one draw in 1e5, but the seed is fixed.
    policy.lm.generation_config.eos_token_id = list(range(80, 101))
    found = run(policy, sampling)
    for place, (prompt, name) in enumerate(zip(PROMPTS, NAMES, strict=True)):
        expected = [plain(policy, prompt, f"{name}/{j}", sampling) for j in range(5)]
        assert found[place] == expected
        assert len({ids[0] for ids in expected}) > 1  # samples of a prompt differ at once


def test_equals_a_plain_loop_when_steered(linear_policy: Policy, sampling: Sampling) -> None:
    linear_policy.lm.generation_config.eos_token_id = list(range(80, 101))
    linear_policy.steer(-1)
    prompts = [prompt for prompt in PROMPTS if prompt[0] < 101]
    found = run(linear_policy, sampling, prompts=prompts, names=NAMES[:3])
    for place, (prompt, name) in enumerate(zip(prompts, NAMES[:3], strict=True)):
        expected = [plain(linear_policy, prompt, f"{name}/{j}", sampling) for j in range(5)]
        assert found[place] == expected


def test_equals_a_plain_loop_at_the_sink(sink_policy: Policy, sampling: Sampling) -> None:
    sink_policy.lm.generation_config.eos_token_id = list(range(80, 101))
    prompts = [[103, *prompt] for prompt in PROMPTS if prompt[0] < 101]  # the worst of three
    found = run(sink_policy, sampling, prompts=prompts, names=NAMES[:3])
    for place, (prompt, name) in enumerate(zip(prompts, NAMES[:3], strict=True)):
        expected = [plain(sink_policy, prompt, f"{name}/{j}", sampling) for j in range(5)]
        assert found[place] == expected


def test_the_hidden_states_are_those_of_the_response(policy: Policy, sampling: Sampling) -> None:
    policy.lm.generation_config.eos_token_id = list(range(80, 101))
    fixed: dict[str, Any] = {"seed_name": "1/test", "memory_mb": 4000}
    lengths = set()
    for place, ids, hidden in sample(Plain(policy), PROMPTS, NAMES, 5, sampling, **fixed):
        lengths |= set(map(len, ids))
        read = response_hidden(policy, [PROMPTS[place]] * 5, ids)
        torch.testing.assert_close(hidden, read, atol=1e-5, rtol=1e-5)  # float32, other shapes
    assert len(lengths) > 1


@pytest.mark.parametrize("rows", [1, 10])
def test_batches_change_nothing(
    policy: Policy, sampling: Sampling, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    expected = run(policy, sampling)
    monkeypatch.setattr(module, "MAX_ROWS", rows)
    assert run(policy, sampling) == expected
    monkeypatch.undo()
    monkeypatch.setattr(module, "rows_for_sampling", lambda *_: rows)
    assert run(policy, sampling) == expected


def test_the_union_of_shards_is_the_whole(
    policy: Policy, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 10)  # two prompts in a batch
    parts = [run(policy, sampling, shard=Shard(i, 3)) for i in (1, 2, 3)]
    assert sorted(map(len, parts)) == [0, 2, 2]
    assert {place: ids for part in parts for place, ids in part.items()} == run(policy, sampling)


def test_shards_with_different_memory_lose_nothing(
    policy: Policy, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    found: list[int] = []
    for number, room in ((1, 5), (2, 100)):  # one prompt at a time, and as many as may be
        monkeypatch.setattr(module, "rows_for_sampling", lambda *_, room=room: room)
        found += run(policy, sampling, shard=Shard(number, 2))
    assert sorted(found) == [0, 1, 2, 3]


def test_processes_only_where_all_have_work_and_memory(
    policy: Policy, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAN_FORK", True)
    monkeypatch.setattr(module, "MAX_ROWS", 10)  # two prompts in a batch: two batches

    def workers(threads: int, shard: Shard = WHOLE) -> int:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return workers_for(Plain(policy), PROMPTS, 5, sampling, memory_mb=4000, shard=shard)

    assert [workers(threads) for threads in (1, 2, 3, 4)] == [1, 2, 2, 1]  # two of four would idle
    assert workers(2, Shard(1, 2)) == 1
    for room, expected in ((19, 1), (20, 2)):
        monkeypatch.setattr(module, "rows_for_sampling", lambda *_, room=room: room)
        assert workers(2) == expected
    monkeypatch.setattr(module, "CAN_FORK", False)
    assert workers(2) == 1


def test_order_of_prompts_changes_nothing(policy: Policy, sampling: Sampling) -> None:
    expected = run(policy, sampling)
    turned = run(policy, sampling, prompts=PROMPTS[::-1], names=NAMES[::-1])
    assert sorted(turned) == [0, 1, 2, 3]
    assert [turned[3 - place] for place in range(4)] == [expected[place] for place in range(4)]


def test_a_stream_has_its_name(policy: Policy, sampling: Sampling) -> None:
    assert run(policy, sampling, seed_name="2/test") != run(policy, sampling)


def test_end_ids(policy: Policy, sampling: Sampling) -> None:
    ends = set(range(60))  # about every second token
    policy.lm.generation_config.eos_token_id = sorted(ends)
    responses = [ids for several in run(policy, sampling, samples=20).values() for ids in several]
    lengths = [len(ids) for ids in responses]
    assert min(lengths) == sampling.min_new_tokens + 1 and max(lengths) > min(lengths)
    for ids in responses:
        assert not ends & set(ids[:-1])  # cut after the first; none before the minimum
        assert ids[-1] in ends or len(ids) == sampling.max_new_tokens


def test_no_end_id(policy: Policy, sampling: Sampling) -> None:
    policy.lm.generation_config.eos_token_id = None
    assert {len(ids) for several in run(policy, sampling).values() for ids in several} == {8}


@pytest.mark.parametrize("length", [0, 57])
def test_prompt_too_long(policy: Policy, sampling: Sampling, length: int) -> None:
    text = f"prompt odd has {length} tokens, but needs 1 to 56"
    with pytest.raises(PromptLengthError, match=text):
        run(policy, sampling, prompts=[[1], [1] * length], names=["fine", "odd"])
    assert len(run(policy, sampling, prompts=[[1] * 56], names=["full"])[0]) == 5
