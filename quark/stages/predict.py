"""`quark predict`: predict the real continuations of texts, token by token."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quark.core import files, schemas
from quark.core.progress import track
from quark.generation.predicting import predict
from quark.models.decode_state import PromptLengthError
from quark.models.lm import load_tokenizer
from quark.stages.sample import decoder_for, read_prompts
from quark.stages.settings import PredictSettings


def predict_stage(
    settings: PredictSettings,
    prompts: Path,
    model: Path,
    checkpoints: Sequence[Path],
    out: Path,
    memory_mb: int,
) -> None:
    """Predict texts' real continuations after their first tokens, under the best reward token.

    Args:
        settings: the number of texts, and of the tokens that are read and predicted.
        prompts: the whole texts; schema PROMPTS.
        model: directory of the base model.
        checkpoints: of the policy, or of a baseline's parts; empty: the base model itself.
        out: the predictions, in the order of the texts; schema PREDICTIONS.
        memory_mb: memory in MB; limits the rows that are read together.

    Raises:
        PromptLengthError: a text ends within its prompt.
    """
    begun = time.monotonic()
    names, _, whole = read_prompts(prompts, settings.prompts, load_tokenizer(model))
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
    decoder = decoder_for(settings, model, checkpoints)
    token = None if decoder.policy.reward_tokens is None else 0
    conditioned = [decoder.policy.condition(ids, token) for ids in before]
    found = predict(decoder, conditioned, after, names, memory_mb=memory_mb)
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
