"""`quark mauve`: how close generations are to real texts."""

import time
from pathlib import Path

from quark.core import files, schemas
from quark.generation.logprobs import text_features
from quark.metrics.mauve import mauve
from quark.models.lm import decode, encode, load_model, load_tokenizer
from quark.stages.settings import MauveSettings


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
