"""`quark fit`: train one part of a baseline on the corpus."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from quark.config import ConfigError, GeDiTraining
from quark.core import files, schemas
from quark.core.seeds import stream
from quark.methods import dapt, gedi, pplm
from quark.models.checkpoint import save
from quark.models.lm import load_model
from quark.stages.settings import FitSettings
from quark.training.trainer import Rows, Trainer, choose_parameters, epochs, sizes

BATCH = 64
"""Number of texts whose features for the classifier are computed together."""


def fit_stage(settings: FitSettings, corpus: Path, model: Path, out: Path, memory_mb: int) -> None:
    """Train one part of a baseline on the corpus.

    Args:
        settings: the part and its training settings.
        corpus: the corpus; schema CORPUS.
        model: directory of the base model.
        out: directory of the part; `training.json` is written beside it.
        memory_mb: memory in MB; limits the rows of a micro-batch.
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
