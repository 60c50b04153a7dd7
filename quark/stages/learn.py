"""`quark learn`: train one iteration of a method on its scored samples, such as PPO."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quark.core import files, schemas
from quark.methods import learner_of
from quark.models.checkpoint import (
    check_resumed,
    load_beside,
    load_moments,
    load_pair,
    read_about,
    save,
)
from quark.models.reference_cache import ReferenceCache
from quark.models.reward_tokens import new_reward_tokens
from quark.stages.quantize import check_failed
from quark.stages.settings import LearnSettings
from quark.tasks import TASKS
from quark.training.rounds import Before, Round
from quark.training.trainer import Rows, choose_parameters


def learn_stage(
    settings: LearnSettings,
    samples: Path,
    scores: Path,
    model: Path,
    checkpoint: Path | None,
    out: Path,
    memory_mb: int,
    cache: Path | None = None,
) -> None:
    """Train a method on the samples of one of its iterations.

    Args:
        settings: sizes, rates and weights of the training.
        samples: the samples, drawn from the policy of `checkpoint`; schema SAMPLES.
        scores: the scores of these samples; schema SCORES.
        model: directory of the base model.
        checkpoint: checkpoint of the previous iteration; None: the base model.
        out: directory of the new checkpoint; `training.json` is written beside it.
        memory_mb: memory in MB; limits the rows of a micro-batch.
        cache: file of the policy's last hidden states, stored by sampling; None: compute them.
    """
    begun = time.monotonic()
    rows, reward, group = _scored(settings, samples, scores)
    layers = settings.training.trained_layers
    policy, base = load_pair(model, checkpoint, settings.precision, frozen=layers == 0)
    choose_parameters(policy.lm, layers, settings.training.gradient_checkpointing)
    form = settings.reward_tokens if settings.reward_tokens.form in ("linear", "sink") else None
    before = None
    if checkpoint is not None:
        about = read_about(checkpoint)
        expected = {
            "iteration": settings.iteration - 1,
            "reward_tokens": form and form.model_dump(),
            "trained_layers": layers,
            "precision": settings.precision,
        }
        check_resumed(checkpoint, about, expected)
        before = Before(load_moments(checkpoint), about["step"], about, load_beside(checkpoint))
    elif form is not None:  # at first the token is the base model, which sampled
        policy.reward_tokens = new_reward_tokens(policy.lm, 1, form, settings.seed)
    given = Round(
        policy,
        base,
        rows,
        reward,
        group,
        settings.min_new_tokens,
        settings.iteration,
        settings.share,
        settings.precision,
        settings.stream,
        memory_mb,
        ReferenceCache([cache] if cache else []),
        before,
    )
    learnt = learner_of(settings.method)(given, settings.training)
    save(
        out,
        policy,
        learnt.moments,
        form=form,
        step=learnt.step,
        iteration=settings.iteration,
        model=model,
        trained_layers=layers,
        beside=dict(learnt.beside),
        notes={**learnt.notes, "precision": settings.precision},
    )
    cost = files.cost(begun, rows=learnt.sequences, tokens=learnt.tokens)
    about = {"iteration": settings.iteration, **cost, **learnt.summary, "steps": learnt.steps}
    files.write_json(out.parent / "training.json", about)


def _scored(
    settings: LearnSettings, samples: Path, scores: Path
) -> tuple[Rows, NDArray[np.float64], NDArray[np.int64]]:
    """Return the samples that have a score, their rewards, and a number for each one's prompt."""
    columns = ["row_id", "prompt_id", "prompt_ids", "response_ids"]
    table = schemas.read_scored(samples, scores, columns)
    check_failed(table, scores, settings.max_failed_scores)
    reward = TASKS[settings.task].reward(table["score"].to_numpy(zero_copy_only=False))
    kept: Sequence[int] = np.flatnonzero(~np.isnan(reward)).tolist()
    rows = Rows(
        table["row_id"].to_pylist(),
        table["prompt_ids"].to_pylist(),
        table["response_ids"].to_pylist(),
        np.zeros(len(reward), dtype=np.int32),
    )
    group = np.unique(table["prompt_id"].to_pylist(), return_inverse=True)[1]
    return rows.take(kept), reward[kept], group[kept].astype(np.int64)
