"""Fine-tune a model on plain texts, for example for the repetition task.

The loss is the texts' negative log-likelihood, alone or with SimCTG's contrastive term, or the loss
of unlikelihood training.
"""

import time
from pathlib import Path

import numpy as np

from quark.config import ConfigError
from quark.core import files, schemas
from quark.core.seeds import stream
from quark.data.models import save_model
from quark.methods import dapt, simctg, unlikelihood
from quark.models.lm import encode, load_model, load_tokenizer
from quark.stages.settings import FinetuneSettings
from quark.training.trainer import Rows, TextLoss


def finetune_stage(
    settings: FinetuneSettings, model: Path, texts: Path, out: Path, summary: Path, memory_mb: int
) -> None:
    """Train all parameters of a model, or its top layers, on texts; save it as a new model.

    The model's first end id precedes each text. This id itself is not learnt.

    Args:
        settings: the new model's name, source and precision; the source is a fine-tuned model.
        model: directory of the model that training starts from.
        texts: the plain texts; schema PROMPTS.
        out: directory of the new model, in the form of every model's directory.
        summary: JSON file of the training's cost and steps.
        memory_mb: memory in MB; limits the rows of a micro-batch.

    Raises:
        ConfigError: the source is not fine-tuned, no text has a token, or the texts are longer than
            the model's context.
    """
    begun = time.monotonic()
    how = settings.source.finetuned
    if how is None:
        raise ConfigError(f"models.{settings.name} is not fine-tuned: it is fetched")
    table = schemas.read(texts, schemas.PROMPTS, ["prompt_id", "text"]).slice(0, how.rows)
    tokenizer = load_tokenizer(model)
    ids = [text[: how.tokens] for text in encode(tokenizer, table["text"].to_pylist())]
    names = [name for name, text in zip(table["prompt_id"].to_pylist(), ids, strict=True) if text]
    ids = [text for text in ids if text]
    if not ids:
        raise ConfigError(f"models.{settings.name}.finetuned: {texts} holds no text")
    end_ids = files.read_json(model / "manifest.json")["end_ids"]
    rows = Rows(names, [end_ids[:1]] * len(ids), ids, np.zeros(len(ids), dtype=np.int32))
    policy = load_model(model, "fp32")
    seed_name = f"models/{settings.name}"
    loss: TextLoss = dapt.loss
    longest = 1 + max(map(len, ids))
    if how.margin is not None:
        loss = simctg.Loss(how.margin)
    if how.unlikelihood is not None:
        loss = unlikelihood.Loss(how.unlikelihood, stream(seed_name, "levels"))
        longest = max(longest, 1 + how.unlikelihood.prefix + how.unlikelihood.continuation)
    if longest > policy.context:
        raise ConfigError(
            f"models.{settings.name}.finetuned: texts of {longest} tokens are read, the model's "
            f"context is {policy.context}: lower tokens, prefix or continuation"
        )
    curve = dapt.finetune(
        policy,
        rows,
        how.training,
        precision=settings.precision,
        seed_name=seed_name,
        memory_mb=memory_mb,
        what=f"finetune {settings.name}",
        of=loss,
        least=longest,
    )
    facts = files.cost(
        begun,
        rows=how.training.epochs * len(ids),
        tokens=how.training.epochs * sum(map(len, ids)),
    )
    save_model(settings.name, settings.source, policy.lm, tokenizer, end_ids, out)
    files.write_json(summary, {**facts, "steps": curve})
