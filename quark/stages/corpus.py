"""The corpus of wanted and unwanted text, from which baselines learn the two classes.

DExperts and GeDi learn from labelled comments (protocol 6). Here the reward decides whether a text
is wanted or unwanted. The texts have three sources: training prompts that are unwanted by
themselves, the base model's samples of iteration 0 (Quark uses them too), and plain texts.

Departure: DExperts learns from 160 k Jigsaw comments with toxicity >= 0.5 or exactly 0. Here the
thresholds are settings, and `texts` may name that corpus.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quark.config import ConfigError, Corpus
from quark.core import files, schemas
from quark.core.seeds import ranks
from quark.models.lm import decode, encode, load_tokenizer
from quark.scorers import Scorer
from quark.stages.score import scorer_of
from quark.stages.settings import CorpusSettings

log = logging.getLogger(__name__)

CLASSES = ("wanted", "unwanted")
"""Names of the labels 0 and 1."""


class Text(NamedTuple):
    """A candidate text: a model reads `prompt` and learns `response`."""

    row_id: str
    source: str
    label: int
    prompt: list[int]
    response: list[int]


def corpus_stage(
    settings: CorpusSettings,
    prompts: Path,
    texts: Path | None,
    samples: Path,
    scores: Path,
    model: Path,
    out: Path,
    reward: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    classifier: Path | None = None,
    cache: Path | None = None,
    threads: int | None = None,
) -> None:
    """Write the corpus to `out` (schema CORPUS).

    Args:
        settings: thresholds and sizes.
        prompts: the training prompts; schema PROMPTS.
        texts: plain texts, schema PROMPTS; None: no plain texts.
        samples: the base model's samples; schema SAMPLES.
        scores: the scores of these samples; schema SCORES.
        model: directory of the base model.
        out: the corpus file; its rows are in a random order.
        reward: turns scores into rewards in [0, 1].
        classifier: directory of the scorer, if it is a classifier.
        cache: file that stores the scorer's scores, if it is a service.
        threads: threads of a scorer that needs torch; None: torch's setting is not changed.

    Raises:
        ConfigError: a class has no text.
    """
    begun = time.monotonic()
    how, scorer = settings.corpus, scorer_of(settings.score, classifier, cache, threads)

    def label(scores: NDArray[np.float64]) -> list[int]:
        return _labels(reward(scores), how)

    start = files.read_json(model / "manifest.json")["end_ids"][:1]
    tokenizer = load_tokenizer(model)
    found = _samples(samples, scores, label)
    scored = 0
    for source, file, limit in (("prompts", prompts, None), ("texts", texts, how.rows.texts)):
        if file is None:
            continue
        table = schemas.read(file, schemas.PROMPTS).slice(0, limit).to_pydict()
        if settings.task != "toxicity":  # the only task whose score may be published with a text
            table["toxicity"] = [None] * len(table["text"])
        ids, toxicity, asked = _cut_and_score(table, tokenizer, scorer, how.tokens)
        scored += asked
        for name, cut, kind in zip(table["prompt_id"], ids, label(toxicity), strict=True):
            if kind >= 0 and cut and not (source == "prompts" and kind == 0):
                found.append(Text(f"{source}/{name}", source, kind, start, cut))
    kept = _keep(found, how, settings.stream)
    for kind, name in enumerate(CLASSES):
        count, all_found = (sum(text.label == kind for text in each) for each in (kept, found))
        log.info("%d %s texts of %d candidates", count, name, all_found)
        if not count:
            raise ConfigError(f"baselines.corpus: no {name} text; change its threshold or rows")
    columns: dict[str, Any] = {
        "row_id": [text.row_id for text in kept],
        "source": [text.source for text in kept],
        "label": [text.label for text in kept],
        "prompt_ids": [text.prompt for text in kept],
        "response_ids": [text.response for text in kept],
    }
    schemas.write(out, schemas.CORPUS, columns, about=settings.model_dump())
    tokens = sum(len(text.response) for text in kept)
    files.report(out, begun, rows=len(kept), tokens=tokens, scored=scored)


def _labels(rewards: NDArray[np.float64], how: Corpus) -> list[int]:
    """Return the class of each reward: 0 wanted, 1 unwanted, -1 neither or no reward (NaN)."""
    labels = np.full(len(rewards), -1)
    labels[rewards >= how.wanted_from] = 0
    labels[rewards <= how.unwanted_to] = 1
    found: list[int] = labels.tolist()
    return found


def _samples(
    samples: Path, scores: Path, label: Callable[[NDArray[np.float64]], list[int]]
) -> list[Text]:
    names = ["row_id", "prompt_ids", "response_ids"]
    table = schemas.read_scored(samples, scores, names)
    given = table["score"].to_numpy(zero_copy_only=False)
    rows = zip(*(table[name].to_pylist() for name in names), label(given), strict=True)
    return [
        Text(f"samples/{row}", "samples", kind, prompt, response)
        for row, prompt, response, kind in rows
        if kind >= 0 and response
    ]


def _cut_and_score(
    table: dict[str, list[Any]], tokenizer: Any, scorer: Scorer, tokens: int
) -> tuple[list[list[int]], NDArray[np.float64], int]:
    """Return each text's ids, cut to `tokens`; the cut texts' scores; how many texts were scored.

    A text that is not cut keeps its published score.
    """
    whole = encode(tokenizer, table["text"])
    ids = [text[:tokens] for text in whole]
    scores = np.array([np.nan if t is None else t for t in table["toxicity"]], dtype=np.float64)
    scores[[len(text) > tokens for text in whole]] = np.nan
    asked = np.flatnonzero(np.isnan(scores)).tolist()
    if asked:
        left = decode(tokenizer, [ids[i] for i in asked])
        scores[asked] = scorer.score([""] * len(asked), left)
    if failed := int(np.isnan(scores).sum()):
        log.warning("%s failed on %d of %d texts: left them out", scorer.name, failed, len(asked))
    return ids, scores, len(asked)


def _keep(found: Sequence[Text], how: Corpus, stream: str) -> list[Text]:
    """Return the first texts of each class and source in a random order.

    The random rank of a text depends only on its row id and on `stream`.
    """
    order = np.argsort(ranks(stream, [text.row_id for text in found]))
    limits = how.rows.model_dump()
    taken: dict[tuple[str, int], int] = {}
    kept = []
    for text in (found[i] for i in order.tolist()):
        key = text.source, text.label
        taken[key] = taken.get(key, 0) + 1
        if limits[text.source] is None or taken[key] <= limits[text.source]:
            kept.append(text)
    return kept
