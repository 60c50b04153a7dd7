from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quark.models.attention import GROUPED, AttentionError, grouped_attention
from quark.models.lm import Policy, load_model


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor):
    """Every head by itself."""
    rows, heads, time, width = query.shape
    shared = heads // key.shape[1]
    found = torch.empty(rows, time, heads, width, dtype=query.dtype)
    for row in range(rows):
        for head in range(heads):
            k, v = key[row, head // shared], value[row, head // shared]
            scores = query[row, head] @ k.T / width**0.5 + mask[row, 0]
            found[row, :, head] = scores.softmax(-1) @ v
    return found


@pytest.mark.parametrize(("groups", "time"), [(1, 1), (2, 1), (6, 1), (3, 4), (6, 4)])
def test_equals_every_head_by_itself(groups: int, time: int) -> None:
    torch.manual_seed(0)
    # heads beside each other in memory, as transformers has them
    query = torch.randn(3, time, 6, 8, dtype=torch.float64).transpose(1, 2).requires_grad_()
    key, value = torch.randn(2, 3, groups, 7, 8, dtype=torch.float64)
    seen = torch.arange(7) <= torch.arange(7 - time, 7)[:, None]
    mask = torch.zeros(3, 1, time, 7, dtype=torch.float64).masked_fill(~seen, -1e9)
    mask[1, :, :, :2] = -1e9  # padding
    found, none = grouped_attention(nn.Identity(), query, key, value, mask)
    wanted = plain(query, key, value, mask)
    # the softmax is float32
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)
    assert none is None
    weights = torch.randn_like(wanted)
    one, other = (torch.autograd.grad((each * weights).sum(), query)[0] for each in (found, wanted))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_scale_and_no_mask() -> None:
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    found, _ = grouped_attention(nn.Identity(), query, key, value, None, scaling=0.5)
    wanted = plain(query * 0.5 * 8**0.5, key, value, torch.zeros(2, 1, 5, 5))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_what_would_be_left_out_is_refused() -> None:
    """A cap on scores, as Gemma 2 has, or learnt sinks."""
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    plain, _ = grouped_attention(nn.Identity(), query, key, value, None)
    harmless = {"sliding_window": 3, "position_ids": torch.arange(5), "softcap": None}
    found, _ = grouped_attention(nn.Identity(), query, key, value, None, **harmless)
    assert torch.equal(found, plain)
    with pytest.raises(AttentionError, match="Identity needs s_aux, softcap, which"):
        sinks = {"softcap": 50.0, "s_aux": torch.zeros(4)}
        grouped_attention(nn.Identity(), query, key, value, None, **sinks)


def test_a_loaded_model_attends_so(policy: Policy, tmp_path: Path) -> None:
    policy.lm.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, "fp32")
    assert loaded.lm.config._attn_implementation == GROUPED != policy.lm.config._attn_implementation
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, 99, (2, 6)))
    real = torch.ones_like(ids)
    real[1, :3] = 0
    one, other = (each.lm(ids, attention_mask=real).logits for each in (policy, loaded))
    # float32 in another order; what padding reads means nothing
    torch.testing.assert_close(one[0], other[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(one[1, 3:], other[1, 3:], atol=1e-4, rtol=1e-4)
