"""The stages of the baselines: what `quark fit` and `quark train-ppo` read, do and write."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from quark import files, schemas
from quark.checkpoint import check_resumed, load_moments, load_policy, load_value, read_about, save
from quark.config import ConfigError, GeDiTraining
from quark.lm import Policy, load_model
from quark.memo import Memo
from quark.methods import dapt, gedi, pplm, ppo
from quark.pool import check_failed
from quark.reward_tokens import new_reward_tokens
from quark.seeds import stream
from quark.settings import FitSettings, PPOSettings
from quark.tasks import TASKS
from quark.training import Rows, Trainer, choose_parameters, epochs, sizes

BATCH = 64
"""Texts that the classifier's features are read from together."""


def fit_stage(settings: FitSettings, corpus: Path, model: Path, out: Path, memory_mb: int) -> None:
    """Train one part of a baseline on the corpus.

    Args:
        settings: which part, and how it is trained.
        corpus: schema CORPUS.
        model: directory of the base model.
        out: directory of the part; `training.json` appears beside it.
        memory_mb: bounds the rows of a micro-batch.
    """
    begun = time.monotonic()
    table = schemas.read(corpus, schemas.CORPUS)
    rows = Rows(
        table["row_id"].to_pylist(),
        table["prompt_ids"].to_pylist(),
        table["response_ids"].to_pylist(),
        table["label"].to_numpy(),
    )
    passes = 1
    facts: dict[str, Any] = {}
    if settings.training is None:
        facts = _fit_classifier(settings, rows, model, out)
    else:
        passes = settings.training.epochs
        if isinstance(settings.training, GeDiTraining):
            facts["steps"] = _fit_gedi(settings, settings.training, rows, model, out, memory_mb)
        else:
            label = 1 if settings.part == "anti-expert" else 0
            rows = rows.take(np.flatnonzero(rows.label == label).tolist())
            policy = load_model(model, "fp32")
            facts["steps"] = dapt.finetune(
                policy,
                rows,
                settings.training,
                precision=settings.precision,
                seed_name=settings.stream,
                memory_mb=memory_mb,
                what=settings.part,
            )
            steps = len(facts["steps"])
            save(out, policy, {}, form=None, step=steps, iteration=0, model=model)
    tokens = passes * sum(map(len, rows.responses))
    cost = files.cost(begun, rows=passes * len(rows.ids), tokens=tokens)
    files.write_json(out.parent / "training.json", {**cost, **facts})


def _fit_gedi(
    settings: FitSettings, how: GeDiTraining, rows: Rows, model: Path, out: Path, memory_mb: int
) -> list[dict[str, float]]:
    form = settings.reward_tokens
    if form is None:
        raise ConfigError("the part gedi needs reward_tokens, which name its classes")
    policy = load_model(model, settings.precision if how.trained_layers == 0 else "fp32")
    codes = gedi.code_ids(model, how.codes)
    classes = gedi.new_classes(policy, form, codes, seed=0)
    choose_parameters(policy.lm, how.trained_layers, how.gradient_checkpointing)
    rates = {
        "log_scale": how.scale_learning_rate,
        "reward_tokens": how.token_learning_rate,
        "lm": how.learning_rate,
    }
    trainer = Trainer(
        classes,
        how,
        lambda name: rates[name.removeprefix("policy.").split(".")[0]],
        **sizes(policy, rows, how, memory_mb, times=2),
    )
    curve = epochs(
        trainer,
        rows,
        lambda part: gedi.loss(classes, part, how.generative, settings.precision),
        count=how.epochs,
        weights=[1] * len(rows.ids),
        rng=stream(settings.stream, "order"),
        what=settings.part,
    )
    notes = {"scale": classes.scale.item()}
    save(out, policy, {}, form=form, step=trainer.taken, iteration=0, model=model, notes=notes)
    return curve


def _fit_classifier(settings: FitSettings, rows: Rows, model: Path, out: Path) -> dict[str, Any]:
    policy = load_model(model, settings.precision)
    classifier, accuracy = pplm.fit_classifier(policy, rows, BATCH)
    with files.whole(out) as made:
        made.mkdir()
        save_file({"classifier": classifier}, made / "classifier.safetensors")
    return {"held_out_accuracy": accuracy}


def ppo_stage(
    settings: PPOSettings,
    samples: Path,
    scores: Path,
    model: Path,
    checkpoint: Path | None,
    out: Path,
    memory_mb: int,
    memo: Path | None = None,
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
        memo: the last hidden states of the policy's model, kept when it sampled; None: computed.
    """
    begun = time.monotonic()
    rows, reward = _scored(settings, samples, scores)
    frozen = settings.ppo.trained_layers == 0
    policy = load_policy(model, checkpoint, settings.precision if frozen else "fp32")
    base = Policy(policy.lm) if frozen else load_model(model, settings.precision)
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
        memo=None if memo is None else Memo([memo]),
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
