"""The sampler: many continuations of many prompts.

Each prompt is read once, its cache of keys and values copied to all its samples, and only the last
position's logits are formed. Prompts are sorted by length so that little is padded; each
result has its prompt's place. Random numbers come from a stream named after the row, so batches and
shards do not change the draws.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from quark.config import Sampling
from quark.core.seeds import stream
from quark.core.shards import WHOLE, Shard, batched
from quark.generation.decoding import Decoder
from quark.generation.workers import CAN_FORK
from quark.maths.nucleus import UNIFORMS, draw
from quark.models.decode_state import check_lengths
from quark.models.memory import rows_for_sampling, within_memory

MAX_ROWS = 4096 if torch.cuda.is_available() else 256
"""More rows than this gain no speed: the matrix units are busy."""


class Continued(NamedTuple):
    """A prompt's continuations.

    `place`: index of the prompt among those given.
    `ids`: token ids of each continuation, with its end id if it ended.
    `hidden`: the last hidden states (all their tokens, d) that predicted them, one after another;
        (0, d) from vLLM, if they are not needed.
    """

    place: int
    ids: list[list[int]]
    hidden: Tensor


def sample(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    samples: int,
    sampling: Sampling,
    *,
    seed_name: str,
    memory_mb: int,
    shard: Shard = WHOLE,
) -> Iterator[Continued]:
    """Continue each prompt `samples` times.

    Args:
        decoder: the decoder that generates, its models in evaluation mode.
        prompts: token ids of each prompt, its reward token included.
        names: one for each prompt; with `seed_name` it names the prompt's random stream.
        samples: continuations of each prompt.
        sampling: temperature, truncation and lengths.
        seed_name: seed, task, method, iteration and stage.
        memory_mb: bounds the rows decoded together.
        shard: only its prompts are continued; a text is the same in any shard.

    Yields:
        The continuations of every prompt of the shard once, in any order.

    Raises:
        PromptLengthError: a prompt is too short, or leaves too little room.
    """
    policy = decoder.policy
    time = sampling.max_new_tokens

    def together(places: Sequence[int]) -> tuple[Tensor, Tensor]:
        rows = [f"{names[i]}/{sample}" for i in places for sample in range(samples)]
        uniforms = _uniforms(seed_name, rows, time).to(policy.head.device)
        return _continue(decoder, [prompts[i] for i in places], samples, sampling, uniforms)

    every = batches(decoder, prompts, names, samples, time, memory_mb, shard)
    for places, (ids, hidden) in within_memory(together, every):
        ended = [until_end(row, policy.end_ids) for row in ids.tolist()]
        for n, place in enumerate(places):
            own = range(n * samples, (n + 1) * samples)
            predicting = torch.cat([hidden[row, : len(ended[row])] for row in own])
            yield Continued(place, [ended[row] for row in own], predicting)


def workers_for(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    *,
    memory_mb: int,
    shard: Shard,
) -> int:
    """How many processes continue the prompts of a shard side by side, each with one thread.

    As many as torch has threads, if there are as many full batches and memory for all of them.
    If this would leave half of the threads idle, it is one process with all threads. The choice
    changes no result beyond rounding.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not CAN_FORK:
        return 1
    together = _together(samples)
    shares = sum(1 for _ in shard.of(range(0, len(prompts), together)))
    room = _room(decoder, prompts, sampling.max_new_tokens, memory_mb)
    workers = min(threads, shares, room // (together * samples))
    return workers if 2 * workers > threads else 1


def _room(
    decoder: Decoder, prompts: Sequence[Sequence[int]], new_tokens: int, memory_mb: int
) -> int:
    """Rows, each as long as the longest text, that fit in memory together."""
    return rows_for_sampling(decoder.models, max(map(len, prompts)) + new_tokens, memory_mb)


def _together(samples: int) -> int:
    """Prompts in a full batch."""
    return max(1, MAX_ROWS // samples)


def batches(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    samples: int,
    new_tokens: int,
    memory_mb: int,
    shard: Shard = WHOLE,
) -> Iterator[list[int]]:
    """Batches of the places of prompts of similar length; each prompt has `samples` rows.

    Raises:
        PromptLengthError: a prompt is too short, or leaves too little room for `new_tokens`.
    """
    check_lengths(decoder.policy, prompts, names, new_tokens)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    room = _room(decoder, prompts, new_tokens, memory_mb)
    for places in shard.of(batched(order, _together(samples))):
        yield from batched(places, max(1, room // samples))


def _uniforms(seed_name: str, rows: Sequence[str], time: int) -> Tensor:
    """Random numbers (rows, time, UNIFORMS), each row's from its own stream."""
    drawn = [stream(seed_name, row).random((time, UNIFORMS), dtype=np.float32) for row in rows]
    return torch.from_numpy(np.stack(drawn))


def until_end(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """Return the ids up to the first end id, which stays."""
    end = next((i for i, token in enumerate(ids) if token in end_ids), len(ids))
    return ids[: end + 1]


@torch.no_grad()
def _continue(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    uniforms: Tensor,
) -> tuple[Tensor, Tensor]:
    """Token ids (prompts x samples, time) and the hidden states (.., d) that predicted them.

    Tokens after a row's end id have no meaning.
    """
    decoding = decoder.read(prompts)
    device = decoding.hidden.device
    decoding.select(torch.arange(len(prompts), device=device).repeat_interleave(samples))
    written: list[Tensor] = []
    predicting: list[Tensor] = []
    for time in range(sampling.max_new_tokens):
        predicting.append(decoding.hidden)
        logits, nucleus_of = decoding.next_token(
            decoder.policy.end_ids if time < sampling.min_new_tokens else ()
        )
        token = draw(
            logits,
            uniforms[:, time],
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            nucleus_of=nucleus_of,
        )
        written.append(token)
        if time + 1 == sampling.max_new_tokens:
            break
        decoding.feed(token)
    return torch.stack(written, dim=1), torch.stack(predicting, dim=1)
