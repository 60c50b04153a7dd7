"""`quark sample`: continue prompts, and store the ids, text and likelihood of each row."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from quark.core import files, schemas
from quark.core.progress import track
from quark.core.shards import WHOLE, Shard
from quark.generation import vllm
from quark.generation.decoding import Decoder, Plain
from quark.generation.sampler import Continued, sample, workers_for
from quark.generation.workers import side_by_side
from quark.maths.objective import token_logprobs
from quark.methods import decoder_of
from quark.methods.simctg import ContrastiveSearch
from quark.models.checkpoint import load_policy
from quark.models.lm import Policy, decode, decode_after, encode, load_tokenizer
from quark.models.reference_cache import ReferenceCache
from quark.stages.settings import PredictSettings, SampleSettings

log = logging.getLogger(__name__)


def sample_stage(
    settings: SampleSettings,
    prompts: Path,
    model: Path,
    checkpoints: Sequence[Path],
    out: Path,
    memory_mb: int,
    cache: Path | None = None,
    shard: Shard = WHOLE,
    vllm_python: Path | None = None,
) -> None:
    """Continue prompts under the best reward token, or with a baseline's decoder.

    Without a GPU, several processes may share the prompts: one process for each of torch's threads.

    Args:
        settings: the number of prompts and samples, and the settings of sampling.
        prompts: the prompts; schema PROMPTS.
        model: directory of the base model.
        checkpoints: of the policy, or of a baseline's parts; empty: the base model itself.
        out: the samples, in the order of the prompts; schema SAMPLES.
        memory_mb: memory in MB; limits the rows that are decoded together.
        cache: file for the hidden states that predicted the samples; None: they are not stored.
        shard: the shard whose prompts are continued.
        vllm_python: the Python of an environment with vLLM, if vLLM samples.
    """
    begun = time.monotonic()
    tokenizer = load_tokenizer(model)
    names, texts, prompt_ids = read_prompts(prompts, settings.prompts, tokenizer)
    if settings.prefix:
        prompt_ids = [ids[: settings.prefix] for ids in prompt_ids]
        texts = decode(tokenizer, prompt_ids)
    decoder = decoder_for(settings, model, checkpoints)
    policy = decoder.policy
    token = None if policy.reward_tokens is None else 0
    conditioned = [policy.condition(ids, token) for ids in prompt_ids]
    how, samples = settings.sampling, settings.samples
    engine: Callable[..., Iterator[Continued]] = sample
    workers = 1
    if settings.engine == "vllm":
        needs_hidden = settings.cache or settings.judged
        engine = partial(vllm.sample, python=vllm_python, out=out, hidden=needs_hidden)
    else:
        workers = workers_for(decoder, conditioned, samples, how, memory_mb=memory_mb, shard=shard)
    draw = partial(
        engine,
        decoder,
        conditioned,
        names,
        samples,
        how,
        seed_name=settings.stream,
        memory_mb=memory_mb,
    )

    def continued(part: Shard) -> Iterator[_Continued]:
        for place, ids, hidden in draw(shard=part):
            nll = _nll(policy, ids, hidden) if settings.judged else None
            yield _Continued(place, ids, nll, hidden if settings.cache else None)

    responses: dict[int, pa.Array] = {}  # lists of ids; Python's lists need far more memory
    base_nll: dict[int, NDArray[np.float64]] = {}
    kept: dict[int, Tensor] = {}
    every = side_by_side(continued, shard, workers)
    for place, ids, nll, hidden in track(every, f"sample {out.stem}", total=len(names)):
        responses[place] = pa.array(ids, pa.list_(pa.int32()))
        if nll is not None:
            base_nll[place] = nll
        if hidden is not None:
            kept[place] = hidden.cpu()
    if cache:
        known = ReferenceCache()
        for place, hidden in sorted(kept.items()):
            lengths = responses[place].value_lengths().to_pylist()
            known.add(_row_ids(settings, names[place]), lengths, hidden)
        known.save(cache)

    def rows(place: int) -> dict[str, Any]:
        response_ids = responses[place].to_pylist()
        read = [prompt_ids[place]] * settings.samples
        return {
            "row_id": _row_ids(settings, names[place]),
            "prompt_id": [names[place]] * settings.samples,
            "sample": range(settings.samples),
            "prompt": [texts[place]] * settings.samples,
            "response": decode_after(tokenizer, read, response_ids),
            "prompt_ids": read,
            "response_ids": responses[place],
            "base_nll": base_nll.get(place, [None] * settings.samples),
        }

    parts = map(rows, sorted(responses))
    schemas.write_parts(out, schemas.SAMPLES, parts, about=settings.model_dump())
    tokens = sum(len(ids.flatten()) for ids in responses.values())
    made = settings.samples * len(responses)
    files.report(out, begun, rows=made, tokens=tokens, beside=[cache] if cache else [])


class _Continued(NamedTuple):
    """A prompt's continuations, as in `sampler.Continued`, and their base-model likelihoods.

    `base_nll`: (continuations,) -log p under the base model, in nats; None: not requested.
    `hidden`: (all their tokens, d) hidden states; None: not stored.
    """

    place: int
    ids: list[list[int]]
    base_nll: NDArray[np.float64] | None
    hidden: Tensor | None


@torch.inference_mode()
def _nll(policy: Policy, responses: list[list[int]], hidden: Tensor) -> NDArray[np.float64]:
    """Return -log p of each response under the base model, (responses,), in nats, without end ids.

    Args:
        policy: the policy; its hidden states are the base model's.
        responses: token ids of each response.
        hidden: (tokens of all responses, d) hidden states that predicted these tokens.
    """
    head = policy.head if policy.base_head is None else policy.base_head
    tokens = [token for ids in responses for token in ids]
    found = -token_logprobs(hidden, head, torch.tensor(tokens, device=hidden.device)).double().cpu()
    row = np.repeat(np.arange(len(responses)), list(map(len, responses)))
    counts = ~np.isin(tokens, policy.end_ids)  # only the last id can be an end id
    sums = np.bincount(row[counts], found.numpy()[counts], minlength=len(responses))
    return sums.astype(np.float64)


def _row_ids(settings: SampleSettings, prompt: str) -> list[str]:
    return [f"{settings.iteration}/{prompt}/{sample}" for sample in range(settings.samples)]


def read_prompts(
    prompts: Path, first: int | None, tokenizer: Any
) -> tuple[list[str], list[str], list[list[int]]]:
    """Return ids, texts and token ids of the first `first` prompts; None: of all prompts."""
    table = schemas.read(prompts, schemas.PROMPTS, ["prompt_id", "text"]).slice(0, first)
    if first and table.num_rows < first:
        log.warning("%s: has %d prompts, not %d", prompts, table.num_rows, first)
    texts = table["text"].to_pylist()
    return table["prompt_id"].to_pylist(), texts, encode(tokenizer, texts)


def decoder_for(
    settings: SampleSettings | PredictSettings, model: Path, checkpoints: Sequence[Path]
) -> Decoder:
    """Return the decoder: of a policy, of the base model, or of a baseline that steers it."""
    if settings.steering is not None:
        make = decoder_of(settings.method)
        return make(model, checkpoints, settings.steering, settings.precision)
    policy = load_policy(model, checkpoints[0] if checkpoints else None, settings.precision)
    if isinstance(settings, PredictSettings):
        policy.steer()
        return Plain(policy)
    policy.steer(settings.place)
    if settings.sampling.penalty_alpha:
        return ContrastiveSearch(policy, settings.sampling.top_k, settings.sampling.penalty_alpha)
    return Plain(policy)
