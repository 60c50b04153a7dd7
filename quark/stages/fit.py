"""`quark fit`: train one part of a method on the corpus, such as an expert of DExperts."""

import time
from pathlib import Path

import numpy as np

from quark.config.registry import parts
from quark.core import files, schemas
from quark.methods import fit_of
from quark.stages.settings import FitSettings
from quark.training.fitting import Texts
from quark.training.trainer import Rows


def fit_stage(settings: FitSettings, corpus: Path, model: Path, out: Path, memory_mb: int) -> None:
    """Train one part of a method on the corpus.

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
    label = parts()[settings.part].label
    if label is not None:
        rows = rows.take(np.flatnonzero(rows.label == label).tolist())
    texts = Texts(
        model,
        rows,
        settings.part,
        settings.reward_tokens,
        settings.precision,
        settings.stream,
        memory_mb,
    )
    fitted = fit_of(settings.part)(texts, settings.training, out)
    tokens = fitted.passes * sum(map(len, rows.responses))
    cost = files.cost(begun, rows=fitted.passes * len(rows.ids), tokens=tokens)
    files.write_json(out.parent / "training.json", {**cost, **fitted.facts})
