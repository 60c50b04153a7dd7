"""The number of rows that fit in the memory granted to a job.

The profile grants each job `mem_mb`; the rows of one batch follow from it and the models' sizes.
The batch size chosen here affects only speed: it changes no result beyond rounding.
"""

import ctypes
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from quark.maths.objective import CHUNK
from quark.models.distributed import has_split_layers, own_bytes
from quark.models.lm import Policy, layers_of

T = TypeVar("T")
log = logging.getLogger(__name__)

RESERVED_MB = 1500
"""Memory of Python, torch and the tables, without any weights."""

# from malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4


def keep_freed_memory(keep: bool = True) -> None:
    """Make the C library keep freed memory for the next tensor; this works with glibc only.

    By default it returns each large tensor's memory to the system, which must clear every page of
    the next one: on a CPU this took a quarter of sampling time and a third of training time.

    Args:
        keep: False: restore the thresholds at which glibc's own adaptation ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0 if keep else 65536)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, -1 if keep else 64 << 20)  # -1: never
        mallopt(_M_TOP_PAD, 64 << 20 if keep else 128 << 10)


def within_memory(
    run: Callable[[Sequence[int]], T], batches: Iterable[Sequence[int]]
) -> Iterator[tuple[Sequence[int], T]]:
    """Yield each batch and `run`'s result; if a GPU's memory runs out, continue with half batches.

    Raises:
        torch.OutOfMemoryError: a single row does not fit.
    """
    most = None
    for batch in batches:
        left = list(batch)
        while left:
            places, found = left[:most], None
            try:
                found = run(places)
            except torch.OutOfMemoryError:
                if len(places) == 1:
                    raise
            if found is None:  # here the error, and the tensors it refers to, are gone
                torch.cuda.empty_cache()
                most = len(places) // 2
                log.warning("out of memory: going on with %d at a time", most)
                continue
            yield places, found
            left = left[len(places) :]


def rows_for_sampling(models: Sequence[Policy], tokens: int, memory_mb: int) -> int:
    """Rows of `tokens` positions that can be decoded together by all of `models`.

    Counts weights, caches of keys and values, and six float32 copies of a row's logits.

    Raises:
        MemoryError: not even one row fits.
    """
    row = sum(_cache(model, tokens) + 6 * 4 * model.vocabulary for model in models)
    others = {id(model): sum(map(_bytes, model.parameters())) for model in models[1:]}
    others.pop(id(models[0]), None)  # one model may have several caches
    return _rows(models[0], row, memory_mb, sum(others.values()))


def _cache(policy: Policy, tokens: int) -> int:
    config = policy.lm.config
    heads = config.num_attention_heads
    kv_width = config.hidden_size // heads * (getattr(config, "num_key_value_heads", None) or heads)
    return int(2 * config.num_hidden_layers * kv_width * tokens * policy.lm.dtype.itemsize)


def rows_for_training(
    policy: Policy, base: Policy, tokens: int, memory_mb: int, checkpointing: bool
) -> int:
    """Rows of `tokens` positions that can be trained on together.

    Counts all weights, the base model's unless they are the policy's own; gradients, both moments
    of Adam and a low-precision copy of the trained parameters; a chunk's logits; and about 40
    numbers per position, layer and unit of width. With gradient checkpointing these are for one
    layer, and each other layer stores its input. (On a GPU the estimate may be wrong: a step that
    runs out of memory there continues with half the rows, unless layers are split.)

    Raises:
        MemoryError: not even one row fits.
    """
    config = policy.lm.config
    layers = config.num_hidden_layers
    numbers = 40 + layers if checkpointing else 40 * layers
    activations = numbers * config.hidden_size * tokens * 4
    trained = 4 * sum(map(own_bytes, filter(lambda p: p.requires_grad, policy.parameters())))
    others = 0 if base.lm is policy.lm else sum(map(own_bytes, base.parameters()))
    logits = 8 * 4 * CHUNK * policy.vocabulary
    if has_split_layers(policy):  # a layer and its gradient are whole while it computes
        trained += 3 * max(sum(map(_bytes, layer.parameters())) for layer in layers_of(policy.lm))
    return _rows(policy, activations, memory_mb, others, trained + logits)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _rows(policy: Policy, row_bytes: int, memory_mb: int, others: int = 0, to_come: int = 0) -> int:
    """Rows that fit beside the policy, other models' weights, and memory not allocated yet."""
    if torch.cuda.is_available():  # the weights are there already
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by torch, unused
        granted, taken = 0.9 * (torch.cuda.mem_get_info()[0] + kept), 0
        remedy = "take a GPU with more"
    else:
        weights = others + sum(map(own_bytes, policy.parameters()))
        granted, taken = memory_mb * 2**20, RESERVED_MB * 2**20 + weights
        remedy = "raise mem_mb in the profile (--memory-mb of a verb)"
    taken += to_come
    rows = int((granted - taken) // row_bytes)
    if rows < 1:
        needed = (taken + row_bytes) // 2**20 + 1
        raise MemoryError(f"{granted / 2**20:.0f} MB granted, {needed} MB needed: {remedy}")
    return rows
