"""`quark train`: train one iteration of Quark on its pool."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quark.config import ConfigError
from quark.core import files, schemas
from quark.methods import quark as method
from quark.models import distributed
from quark.models.checkpoint import (
    check_resumed,
    load_moments,
    load_pair,
    load_policy,
    read_about,
    save,
)
from quark.models.lm import Policy, device, layers_of
from quark.models.lora import add_adapters
from quark.models.reference_cache import ReferenceCache
from quark.models.reward_tokens import new_reward_tokens
from quark.stages.settings import TrainSettings


def train_stage(
    settings: TrainSettings,
    pool: Path,
    model: Path,
    checkpoint: Path | None,
    cache: Sequence[Path],
    out: Path,
    memory_mb: int,
    split_layers: bool = False,
) -> None:
    """Train the policy of `checkpoint` (None: the base model with new reward tokens) on a pool.

    Several processes that torchrun started share the rows of each batch; the first process writes.

    Args:
        settings: sizes, rates and weights of the training.
        pool: the pool; schema POOL.
        model: directory of the base model.
        checkpoint: checkpoint of the previous iteration; not used with `training.restart`.
        cache: files of the known hidden states of the base model for the pool's rows (see
            `quark.models.reference_cache`).
        out: directory of the new checkpoint; `training.json` and `training.hidden.safetensors`
            are written beside it.
        memory_mb: memory in MB; limits the rows of a micro-batch.
        split_layers: each process holds only its part of each layer. Then the base model's hidden
            states are not cached, because all processes must read the same.

    Raises:
        ConfigError: the checkpoint has other settings; or layers would be split that are not
            trained, or that have adapters or sinks.
    """
    begun = time.monotonic()
    if settings.training.restart:
        checkpoint = None
    _check_split(settings, split_layers)
    distributed.join()
    policy, base = _load(settings, model, checkpoint, split_layers)
    resume = None
    if checkpoint is not None:
        about = read_about(checkpoint)
        check_resumed(checkpoint, about, _expected(settings))
        resume = load_moments(checkpoint), about["step"]
    rows, held_out = method.split_pool(
        schemas.read(pool, schemas.POOL), settings.training.held_out_prompts, settings.seed
    )
    known = ReferenceCache(cache)
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
        cache=known if settings.training.reference_cache and not split_layers else None,
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
        lora=settings.training.lora,
        trained_layers=settings.training.trained_layers,
        notes={"precision": settings.precision, "settings": settings.model_dump(mode="json")},
    )
    first = distributed.rank() == 0
    distributed.leave()
    if not first:
        return
    if split_layers:  # only a frozen model's token gap reads the base; a frozen one is never split
        del policy, base, moments
        policy = base = load_policy(model, out, "fp32")
    known.save(out.parent / "training.hidden.safetensors")
    gap = method.token_gap(
        policy,
        base,
        held_out,
        settings.quantiles,
        settings.precision,
        settings.stream,
        memory_mb,
        known,
    )
    _report(settings, begun, curve, gap, out.parent)


def _is_frozen(settings: TrainSettings) -> bool:
    """Whether the model's own weights are not trained."""
    return settings.training.trained_layers == 0 or settings.training.lora is not None


def _check_split(settings: TrainSettings, split_layers: bool) -> None:
    if split_layers and (_is_frozen(settings) or settings.reward_tokens.form == "sink"):
        raise ConfigError(
            "layers=split is for models whose layers learn, without sinks or adapters: give "
            "layers=whole, or set quark.training.trained_layers and quark.reward_tokens.form"
        )


def _load(
    settings: TrainSettings, model: Path, checkpoint: Path | None, split_layers: bool
) -> tuple[Policy, Policy]:
    """Return the policy and its base model; without a checkpoint, add new tokens and adapters.

    If layers are split, the whole models are loaded on the CPU; then each process keeps its part.
    """
    where = torch.device("cpu") if split_layers else None
    frozen = _is_frozen(settings)
    policy, base = load_pair(model, checkpoint, settings.precision, frozen, where)
    if checkpoint is None:
        if settings.training.lora is not None:
            layers = settings.training.trained_layers
            add_adapters(policy.lm, settings.training.lora, layers, settings.seed)
        policy.reward_tokens = new_reward_tokens(
            policy.lm, settings.quantiles, settings.reward_tokens, settings.seed
        )
    if split_layers:
        for each in (policy, base):
            distributed.split_layers(layers_of(each.lm))
            each.to(device())
    return policy, base


def _report(
    settings: TrainSettings,
    begun: float,
    curve: Sequence[Mapping[str, float]],
    gap: Mapping[str, float] | None,
    folder: Path,
) -> None:
    """Write `training.json`: cost, means, the token gap, and each step."""
    tokens = [step["tokens"] for step in curve]
    means = {
        key: float(np.average([step[key] for step in curve], weights=tokens))
        for key in ("loss", "lm_loss", "kl", "entropy")
    }
    rows = settings.training.sequences
    files.write_json(
        folder / "training.json",
        {
            "iteration": settings.iteration,
            "sequences": rows,
            **files.cost(begun, rows=rows, tokens=sum(map(int, tokens))),
            **means,
            "token_gap": gap,
            "sha256": files.sums(folder / "training.hidden.safetensors"),
            "steps": curve,
        },
    )


def _expected(settings: TrainSettings) -> dict[str, Any]:
    """Return the facts that the previous iteration's checkpoint must hold."""
    return {
        "iteration": settings.iteration - 1,
        "quantiles": 0 if settings.reward_tokens.form == "none" else settings.quantiles,
        "reward_tokens": settings.reward_tokens.model_dump(),
        "lora": None if settings.training.lora is None else settings.training.lora.model_dump(),
        "trained_layers": settings.training.trained_layers,
        "precision": settings.precision,
    }
