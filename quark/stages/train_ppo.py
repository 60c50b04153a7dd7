"""`quark train-ppo`: one iteration of PPO on what its policy sampled."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quark.core import files, schemas
from quark.methods import ppo
from quark.models.checkpoint import (
    check_resumed,
    load_moments,
    load_pair,
    load_value,
    read_about,
    save,
)
from quark.models.reference_cache import ReferenceCache
from quark.models.reward_tokens import new_reward_tokens
from quark.stages.quantize import check_failed
from quark.stages.settings import PPOSettings
from quark.tasks import TASKS
from quark.training.trainer import Rows


def train_ppo_stage(
    settings: PPOSettings,
    samples: Path,
    scores: Path,
    model: Path,
    checkpoint: Path | None,
    out: Path,
    memory_mb: int,
    cache: Path | None = None,
) -> None:
    """One iteration of PPO on what its policy sampled.

    Args:
        settings: sizes, rates and weights.
        samples: schema SAMPLES; of the policy of `checkpoint`.
        scores: theirs; schema SCORES.
        model: directory of the base model.
        checkpoint: of the iteration before; None: the base model.
        out: directory of the new checkpoint; `training.json` appears beside it.
        memory_mb: bounds the rows of a micro-batch.
        cache: the last hidden states of the policy's model, kept when it sampled; None: computed.
    """
    begun = time.monotonic()
    rows, reward = _scored(settings, samples, scores)
    frozen = settings.ppo.trained_layers == 0
    policy, base = load_pair(model, checkpoint, settings.precision, frozen)
    resume, kl_coef = None, settings.ppo.kl_coef
    form = settings.reward_tokens if settings.reward_tokens.form in ("linear", "sink") else None
    if checkpoint is None and form is not None:  # they start at the base model, which sampled
        policy.reward_tokens = new_reward_tokens(policy.lm, 1, form, settings.seed)
    actor = ppo.Actor(policy, settings.min_new_tokens, value=float(reward.mean()))
    if checkpoint is not None:
        about = read_about(checkpoint)
        expected = {
            "iteration": settings.iteration - 1,
            "reward_tokens": form and form.model_dump(),
            "trained_layers": settings.ppo.trained_layers,
            "precision": settings.precision,
        }
        check_resumed(checkpoint, about, expected)
        resume, kl_coef = (load_moments(checkpoint), about["step"]), about["kl_coef"]
        actor.value.load_state_dict(load_value(checkpoint))
    moments, step, curve, summary = ppo.learn(
        actor,
        base,
        rows,
        reward,
        settings.ppo,
        kl_coef=kl_coef,
        iteration=settings.iteration,
        share=settings.share,
        precision=settings.precision,
        seed_name=settings.stream,
        memory_mb=memory_mb,
        resume=resume,
        cache=None if cache is None else ReferenceCache([cache]),
    )
    following = ppo.next_kl_coef(kl_coef, summary["kl"], settings.ppo)
    save(
        out,
        policy,
        moments,
        form=form,
        step=step,
        iteration=settings.iteration,
        model=model,
        trained_layers=settings.ppo.trained_layers,
        value=actor.value.state_dict(),
        notes={"kl_coef": following, "precision": settings.precision},
    )
    passes = settings.ppo.epochs
    cost = files.cost(
        begun,
        rows=passes * len(rows.ids),
        tokens=passes * sum(map(len, rows.responses)),
    )
    files.write_json(
        out.parent / "training.json",
        {"iteration": settings.iteration, **cost, **summary, "steps": curve},
    )


def _scored(settings: PPOSettings, samples: Path, scores: Path) -> tuple[Rows, NDArray[np.float64]]:
    """The samples that have a score and a token, and their rewards."""
    table = schemas.read_scored(samples, scores, ["row_id", "prompt_ids", "response_ids"])
    check_failed(table, scores, settings.max_failed_scores)
    reward = TASKS[settings.task].reward(table["score"].to_numpy(zero_copy_only=False))
    kept: Sequence[int] = np.flatnonzero(~np.isnan(reward)).tolist()
    rows = Rows(
        table["row_id"].to_pylist(),
        table["prompt_ids"].to_pylist(),
        table["response_ids"].to_pylist(),
        np.zeros(len(reward), dtype=np.int32),
    )
    return rows.take(kept), reward[kept]
