"""`quark mauve`: measure how close generations are to real texts."""

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
    """Write MAUVE of generations against their prompts' real continuations, without the prompts.

    Args:
        settings: settings of MAUVE, such as the clusters and a text's maximum length.
        samples: the generations; schema SAMPLES.
        predictions: its `text_ids` are the real continuations; schema PREDICTIONS.
        model: directory of the model whose tokenizer made these ids.
        features: directory of the model whose last hidden state of a text is the text's feature.
        out: JSON file of the value and everything that it depends on.
        memory_mb: memory in MB; limits the texts that are read together.
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
