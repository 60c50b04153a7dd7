import copy
import re
from collections.abc import Callable, Sequence

import pytest
import torch

from quark.models.lm import Policy
from quark.models.memory import rows_for_sampling, rows_for_training, within_memory


def rows_with_base(policy: Policy, tokens: int, memory_mb: int) -> int:
    return rows_for_training(policy, Policy(policy.lm), tokens, memory_mb, False)


def rows_decoded(policy: Policy, tokens: int, memory_mb: int) -> int:
    return rows_for_sampling([policy], tokens, memory_mb)


ways = pytest.mark.parametrize("rows_for", [rows_decoded, rows_with_base])


@ways
def test_more_memory_more_rows(rows_for: Callable[..., int], policy: Policy) -> None:
    assert rows_for(policy, 20, 4000) > rows_for(policy, 20, 2000) > 0
    assert rows_for(policy, 20, 2000) > rows_for(policy, 40, 2000)


@ways
def test_the_memory_an_error_asks_for_is_enough(
    rows_for: Callable[..., int], policy: Policy
) -> None:
    with pytest.raises(MemoryError, match=r"100 MB granted, .*raise mem_mb") as caught:
        rows_for(policy, 4000, 100)
    found = re.search(r"(\d+) MB needed", str(caught.value))
    assert found and rows_for(policy, 4000, int(found[1])) >= 1


def test_bytes_of_a_row(policy: Policy) -> None:
    width = {"gpt2": 32, "llama": 16}[
        policy.lm.config.model_type
    ]  # 2 of 4 heads are keys' in llama
    row = 2 * 2 * width * 4 * 1000 + 6 * 4 * 101  # keys and values, 2 layers, 4 bytes; logits
    weights = 4 * sum(p.numel() for p in policy.parameters())
    assert rows_decoded(policy, 1000, 1600) == (100 * 2**20 - weights) // row
    three = rows_for_sampling([policy] * 3, 1000, 1600)  # caches of one model
    assert three == (100 * 2**20 - weights) // (3 * row)
    two = rows_for_sampling([policy, copy.deepcopy(policy)], 1000, 1600)
    assert two == (100 * 2**20 - 2 * weights) // (2 * row)


def test_another_base_takes_room(policy: Policy, make_policy: Callable[..., Policy]) -> None:
    assert rows_for_training(policy, make_policy(0), 1, 1600, False) < rows_with_base(
        policy, 1, 1600
    )


def test_checkpointing_leaves_room(policy: Policy) -> None:
    frugal = rows_for_training(policy, Policy(policy.lm), 1, 1600, True)
    assert frugal > rows_with_base(policy, 1, 1600)


def test_a_frozen_model_leaves_room(policy: Policy) -> None:
    before = rows_with_base(policy, 1, 1600)
    policy.lm.requires_grad_(False)
    assert rows_with_base(policy, 1, 1600) > before


def test_where_memory_ends_halves_go_on() -> None:
    tried = []

    def together(places: Sequence[int]) -> int:
        tried.append(list(places))
        if len(places) > 2:
            raise torch.OutOfMemoryError
        return sum(places)

    found = list(within_memory(together, [[0], [5, 1, 2, 7, 4], [3, 3, 3]]))
    assert found == [([0], 0), ([5, 1], 6), ([2, 7], 9), ([4], 4), ([3, 3], 6), ([3], 3)]
    assert [rows for rows in tried if len(rows) > 2] == [[5, 1, 2, 7, 4]]  # once is enough


def test_one_alone_that_is_too_much_stops() -> None:
    def together(places: Sequence[int]) -> None:
        raise torch.OutOfMemoryError("on the GPU")

    with pytest.raises(torch.OutOfMemoryError, match="on the GPU"):
        list(within_memory(together, [[1, 2]]))
