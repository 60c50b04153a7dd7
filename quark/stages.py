"""The stages between files: what each `quark VERB` reads, does and writes.

Each stage leaves its table and beside it a JSON of what it cost (rows, tokens, seconds). The tables
hold nothing that differs between two runs with the same seed; seconds stand in the JSON alone.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from quark import distributed, files, schemas
from quark.checkpoint import check_resumed, load_moments, load_policy, read_about, save
from quark.config import ConfigError
from quark.decoding import Decoder, Plain
from quark.lm import (
    Policy,
    decode,
    decode_after,
    device,
    encode,
    layers_of,
    load_model,
    load_tokenizer,
)
from quark.logprobs import text_features
from quark.lora import add_adapters
from quark.memo import Memo
from quark.methods import decoder_of
from quark.methods import quark as method
from quark.methods.simctg import ContrastiveSearch
from quark.metrics.mauve import mauve
from quark.objective import token_logprobs
from quark.predicting import predict
from quark.progress import track
from quark.reading import PromptLengthError
from quark.reward_tokens import new_reward_tokens
from quark.sampling import sample, workers_for
from quark.settings import (
    MauveSettings,
    PredictSettings,
    SampleSettings,
    TrainSettings,
)
from quark.shards import WHOLE, Shard
from quark.workers import side_by_side

log = logging.getLogger(__name__)


def sample_stage(
    settings: SampleSettings,
    prompts: Path,
    model: Path,
    checkpoints: Sequence[Path],
    out: Path,
    memory_mb: int,
    memo: Path | None = None,
    shard: Shard = WHOLE,
) -> None:
    """Continue prompts under the best reward token, or as a baseline decodes.

    Without a GPU several processes may share the prompts, one for each of torch's threads.

    Args:
        settings: how many prompts and samples, and how they are drawn.
        prompts: schema PROMPTS.
        model: directory of the base model.
        checkpoints: of the policy, or the parts of a baseline; none samples the base model itself.
        out: schema SAMPLES, in the order of the prompts.
        memory_mb: bounds the rows decoded together.
        memo: where the hidden states that predicted the samples go, if the settings want them kept.
        shard: whose prompts are continued.
    """
    begun = time.monotonic()
    tokenizer = load_tokenizer(model)
    names, texts, prompt_ids = _read_prompts(prompts, settings.prompts, tokenizer)
    if settings.prefix:
        prompt_ids = [ids[: settings.prefix] for ids in prompt_ids]
        texts = decode(tokenizer, prompt_ids)
    decoder = _decoder(settings, model, checkpoints)
    policy = decoder.policy
    token = None if policy.reward_tokens is None else 0
    told = [policy.condition(ids, token) for ids in prompt_ids]
    how, samples = settings.sampling, settings.samples
    draw = partial(
        sample, decoder, told, names, samples, how, seed_name=settings.stream, memory_mb=memory_mb
    )

    def continued(part: Shard) -> Iterator[_Continued]:
        for place, ids, hidden in draw(shard=part):
            nll = _nll(policy, ids, hidden) if settings.judged else None
            yield _Continued(place, ids, nll, hidden if settings.memo else None)

    workers = workers_for(decoder, told, samples, how, memory_mb=memory_mb, shard=shard)
    responses: dict[int, pa.Array] = {}  # lists of ids, many times smaller than Python's
    base_nll: dict[int, NDArray[np.float64]] = {}
    kept: dict[int, Tensor] = {}
    every = side_by_side(continued, shard, workers)
    for place, ids, nll, hidden in track(every, f"sample {out.stem}", total=len(names)):
        responses[place] = pa.array(ids, pa.list_(pa.int32()))
        if nll is not None:
            base_nll[place] = nll
        if hidden is not None:
            kept[place] = hidden.cpu()
    if memo:
        known = Memo()
        for place, hidden in sorted(kept.items()):
            lengths = responses[place].value_lengths().to_pylist()
            known.add(_row_ids(settings, names[place]), lengths, hidden)
        known.save(memo)

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
    files.report(out, begun, rows=made, tokens=tokens, beside=[memo] if memo else [])


class _Continued(NamedTuple):
    """A prompt's continuations, as `sampling.Continued`, and what sampling learns about them.

    `base_nll`: (continuations,) nats under the base model; None: not asked for.
    `hidden`: (all their tokens, d); None: not kept.
    """

    place: int
    ids: list[list[int]]
    base_nll: NDArray[np.float64] | None
    hidden: Tensor | None


@torch.inference_mode()
def _nll(policy: Policy, responses: list[list[int]], hidden: Tensor) -> NDArray[np.float64]:
    """-log p of each response under the base model, (responses,), in nats, its end id left out.

    Args:
        policy: the policy; its hidden states are the base model's.
        responses: token ids.
        hidden: (tokens of all responses, d), which predicted them.
    """
    head = policy.head if policy.base_head is None else policy.base_head
    tokens = [token for ids in responses for token in ids]
    found = -token_logprobs(hidden, head, torch.tensor(tokens, device=hidden.device)).double().cpu()
    row = np.repeat(np.arange(len(responses)), list(map(len, responses)))
    counts = ~np.isin(tokens, policy.end_ids)  # an end id is the last one or not there
    sums = np.bincount(row[counts], found.numpy()[counts], minlength=len(responses))
    return sums.astype(np.float64)


def _row_ids(settings: SampleSettings, prompt: str) -> list[str]:
    return [f"{settings.iteration}/{prompt}/{sample}" for sample in range(settings.samples)]


def _read_prompts(
    prompts: Path, first: int | None, tokenizer: Any
) -> tuple[list[str], list[str], list[list[int]]]:
    """Ids of the first prompts, their texts, and the texts' token ids."""
    table = schemas.read(prompts, schemas.PROMPTS, ["prompt_id", "text"]).slice(0, first)
    if first and table.num_rows < first:
        log.warning("%s: %d prompts, not %d", prompts, table.num_rows, first)
    texts = table["text"].to_pylist()
    return table["prompt_id"].to_pylist(), texts, encode(tokenizer, texts)


def predict_stage(
    settings: PredictSettings,
    prompts: Path,
    model: Path,
    checkpoints: Sequence[Path],
    out: Path,
    memory_mb: int,
) -> None:
    """Predict how texts really go on after their first tokens, under the best reward token.

    Args:
        settings: how many texts, and how much of each is read and predicted.
        prompts: schema PROMPTS; whole texts.
        model: directory of the base model.
        checkpoints: of the policy, or the parts of a baseline; none: the base model itself.
        out: schema PREDICTIONS, in the order of the texts.
        memory_mb: bounds the rows read together.

    Raises:
        PromptLengthError: a text ends within its prompt.
    """
    begun = time.monotonic()
    names, _, whole = _read_prompts(prompts, settings.prompts, load_tokenizer(model))
    cut = settings.prefix
    before, after = (
        [ids[:cut] for ids in whole],
        [ids[cut : cut + settings.tokens] for ids in whole],
    )
    for name, ids in zip(names, after, strict=True):
        if not ids:
            raise PromptLengthError(
                f"{prompts}: {name} has no more than {cut} tokens, so nothing of it is left to "
                "predict; raise `fewest_words` of its source"
            )
    decoder = _decoder(settings, model, checkpoints)
    token = None if decoder.policy.reward_tokens is None else 0
    told = [decoder.policy.condition(ids, token) for ids in before]
    found = predict(decoder, told, after, names, memory_mb=memory_mb)
    predicted = sorted(track(found, f"predict {out.parent.name}", total=len(names)))
    columns: dict[str, Any] = {
        "prompt_id": names,
        "prompt_ids": before,
        "text_ids": after,
        "predicted": [each.ids for each in predicted],
        "nll": [each.nll for each in predicted],
    }
    schemas.write(out, schemas.PREDICTIONS, columns, about=settings.model_dump())
    files.report(out, begun, rows=len(names), tokens=sum(map(len, after)))


def _decoder(
    settings: SampleSettings | PredictSettings, model: Path, checkpoints: Sequence[Path]
) -> Decoder:
    """Who writes: a policy, the base model itself, or a baseline that steers it."""
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


def train_stage(
    settings: TrainSettings,
    pool: Path,
    model: Path,
    checkpoint: Path | None,
    memo: Sequence[Path],
    out: Path,
    memory_mb: int,
    split_layers: bool = False,
) -> None:
    """Train the policy of `checkpoint` (None: the base model with fresh reward tokens) on a pool.

    Several processes that torchrun started share the rows of each batch; the first one writes.

    Args:
        settings: sizes, rates and weights.
        pool: schema POOL.
        model: directory of the base model.
        checkpoint: of the iteration before; unused with `training.restart`.
        memo: what the base model made of the pool's rows so far (see `quark.memo`).
        out: directory of the new checkpoint; `training.json` and `training.memo.safetensors` appear
            beside it.
        memory_mb: bounds the rows of a micro-batch.
        split_layers: each process holds its part of each layer only. No base model's hidden states
            are remembered then, since all processes must read the same.

    Raises:
        ConfigError: the checkpoint is of other settings, or layers that do not learn, or sinks
            in front of some that do, were to be split.
    """
    begun = time.monotonic()
    if settings.training.restart:
        checkpoint = None
    lora = settings.training.lora
    frozen = settings.training.trained_layers == 0 or lora is not None
    if split_layers and (frozen or settings.reward_tokens.form == "sink"):
        raise ConfigError(
            "layers=split is for models whose layers learn, without sinks or adapters: give "
            "layers=whole, or set quark.training.trained_layers and quark.reward_tokens.form"
        )
    distributed.join()
    where = torch.device("cpu") if split_layers else None  # whole only there
    policy = load_policy(model, checkpoint, settings.precision if frozen else "fp32", where)
    if checkpoint is None and lora is not None:
        add_adapters(policy.lm, lora, settings.training.trained_layers, settings.seed)
    base = Policy(policy.lm) if frozen else load_model(model, settings.precision, where=where)
    resume = None
    if checkpoint is None:
        policy.reward_tokens = new_reward_tokens(
            policy.lm, settings.quantiles, settings.reward_tokens, settings.seed
        )
    else:
        about = read_about(checkpoint)
        check_resumed(checkpoint, about, _expected(settings))
        resume = load_moments(checkpoint), about["step"]
    rows, held_out = method.split_pool(
        schemas.read(pool, schemas.POOL), settings.training.gauge_prompts, settings.seed
    )
    known = Memo(memo)
    if split_layers:
        for each in (policy, base):
            distributed.split_layers(layers_of(each.lm))
            each.to(device())
    moments, step, curve = method.learn(
        policy,
        base,
        rows,
        settings.training,
        iteration=settings.iteration,
        iterations=1 if settings.training.restart else settings.iterations,
        precision=settings.precision,
        seed_name=settings.stream,
        memory_mb=memory_mb,
        memo=known if settings.training.base_memo and not split_layers else None,
        resume=resume,
    )
    save(
        out,
        policy,
        moments,
        form=settings.reward_tokens,
        step=step,
        iteration=settings.iteration,
        model=model,
        lora=lora,
        trained_layers=settings.training.trained_layers,
        notes={"precision": settings.precision, "settings": settings.model_dump(mode="json")},
    )
    first = distributed.rank() == 0
    distributed.leave()
    if not first:
        return
    remembered = out.parent / "training.memo.safetensors"
    known.save(remembered)
    if split_layers:  # only a frozen model's gauge reads the base, and that is never split
        del policy, base, moments
        policy = base = load_policy(model, out, "fp32")
    gauge = method.gauge(
        policy,
        base,
        held_out,
        settings.quantiles,
        settings.precision,
        settings.stream,
        memory_mb,
        known,
    )
    means = {
        key: float(np.average([s[key] for s in curve], weights=[s["tokens"] for s in curve]))
        for key in ("loss", "lm_loss", "kl", "entropy")
    }
    files.write_json(
        out.parent / "training.json",
        {
            "iteration": settings.iteration,
            "sequences": settings.training.sequences,
            **files.cost(
                begun, rows=settings.training.sequences, tokens=sum(int(s["tokens"]) for s in curve)
            ),
            **means,
            "gauge": gauge,
            "sha256": files.sums(remembered),
            "steps": curve,
        },
    )


def _expected(settings: TrainSettings) -> dict[str, Any]:
    """What the checkpoint to go on from says of itself."""
    return {
        "iteration": settings.iteration - 1,
        "quantiles": 0 if settings.reward_tokens.form == "none" else settings.quantiles,
        "reward_tokens": settings.reward_tokens.model_dump(),
        "lora": None if settings.training.lora is None else settings.training.lora.model_dump(),
        "trained_layers": settings.training.trained_layers,
        "precision": settings.precision,
    }


def mauve_stage(
    settings: MauveSettings,
    samples: Path,
    predictions: Path,
    model: Path,
    features: Path,
    out: Path,
    memory_mb: int,
) -> None:
    """MAUVE of generations against the real continuations of their prompts, without the prompts.

    Args:
        settings: clusters, and how long a text may be.
        samples: schema SAMPLES.
        predictions: schema PREDICTIONS; its `text_ids` are the real continuations.
        model: directory of the model whose ids these are.
        features: directory of the model whose last hidden state of a text is its feature.
        out: JSON of the number and all it depends on.
        memory_mb: bounds the texts read together.
    """
    begun = time.monotonic()
    written = schemas.read(samples, schemas.SAMPLES, ["response"])["response"].to_pylist()
    ids = schemas.read(predictions, schemas.PREDICTIONS, ["text_ids"])["text_ids"].to_pylist()
    real = decode(load_tokenizer(model), ids)
    policy, tokenizer = load_model(features, settings.precision), load_tokenizer(features)
    cut = settings.mauve.tokens
    found = []
    for texts in (real, written):
        rows = [text[:cut] or policy.end_ids[:1] for text in encode(tokenizer, texts)]
        found.append(text_features(policy, rows, memory_mb))
    value = mauve(found[0], found[1], settings.mauve)
    counts = {"texts": len(written), "real_texts": len(real)}
    cost = files.cost(begun, rows=len(written) + len(real), tokens=0)
    how = {"version": settings.version, **settings.mauve.model_dump(mode="json")}
    files.write_json(out, {"mauve": value, **counts, **cost, **how})
