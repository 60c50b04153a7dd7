"""Measure the likelihoods of generations under a judge model.

If sampling stored them, no model is needed. So torch is imported only if the judge must read.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark.core import files, schemas
from quark.core.shards import WHOLE, Shard
from quark.stages.settings import JudgeSettings
from quark.stages.threads import use_threads

Ids = list[list[int]]


def judge_stage(
    settings: JudgeSettings,
    samples: Path,
    model: Path,
    judge: Path,
    out: Path,
    memory_mb: int,
    shard: Shard = WHOLE,
    threads: int = 1,
) -> None:
    """Write the likelihood of each response under the judge, given its prompt.

    If the judge is the base model and sampling stored the likelihoods, these are used. Otherwise
    the judge reads the sampled ids if it has the model's tokenizer; if not, it tokenizes the text
    again. The end of text is not judged: the published metric uses the text alone.

    Args:
        settings: precision of the judge's weights; the softmax is float32.
        samples: the samples; schema SAMPLES.
        model: directory of the model that sampled them.
        judge: directory of the judge.
        out: the likelihoods; schema LIKELIHOODS.
        memory_mb: memory in MB; limits the rows that are read together.
        shard: the shard whose responses are judged.
        threads: number of threads, used only if the judge must read.
    """
    begun = time.monotonic()
    table = schemas.read(samples, schemas.SAMPLES).to_pydict()
    if model == judge and None not in table["base_nll"]:
        judged = list(shard.of(range(len(table["row_id"]))))
        nll = np.array(table["base_nll"])
        responses = _without_end(table["response_ids"], model)
    else:
        use_threads(threads)
        prompts, responses = _judged_ids(table, model, judge)
        nll = _read(settings, table["prompt_id"], prompts, responses, judge, memory_mb, shard)
        judged = np.flatnonzero(~np.isnan(nll)).tolist()
    tokens = [len(responses[i]) for i in judged]
    columns: dict[str, Any] = {"nll": nll[judged], "tokens": tokens}
    columns |= {name: [table[name][i] for i in judged] for name in ("row_id", "prompt_id")}
    schemas.write(out, schemas.LIKELIHOODS, columns, about={"judge": judge.name})
    files.report(out, begun, rows=len(tokens), tokens=sum(tokens))


def _read(
    settings: JudgeSettings,
    names: list[str],
    prompts: Ids,
    responses: Ids,
    judge: Path,
    memory_mb: int,
    shard: Shard,
) -> NDArray[np.float64]:
    """Return -log p of each response in nats; NaN: the response is in another shard."""
    from quark.generation.logprobs import response_logprobs
    from quark.models.lm import load_model

    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        groups[tuple(prompt)].append(row)
    places = list(groups.values())
    found = response_logprobs(
        load_model(judge, settings.precision),
        list(groups),
        [[responses[i] for i in rows] for rows in places],
        names=[names[rows[0]] for rows in places],
        memory_mb=memory_mb,
        shard=shard,
    )
    nll = np.full(len(prompts), np.nan)
    for rows, logprobs in zip(places, found, strict=True):
        nll[rows] = -logprobs
    return nll


def _judged_ids(table: dict[str, list[Any]], model: Path, judge: Path) -> tuple[Ids, Ids]:
    """Return the ids of prompts and responses as the judge reads them.

    A judge with another tokenizer reads the whole text. The response then begins at the first token
    that differs from the prompt's tokens: a token across the boundary belongs to the response.
    """
    from quark.models.lm import encode, load_tokenizer

    theirs = load_tokenizer(judge)
    if theirs.get_vocab() == load_tokenizer(model).get_vocab():
        return table["prompt_ids"], _without_end(table["response_ids"], model)
    texts = map("".join, zip(table["prompt"], table["response"], strict=True))
    whole, alone = encode(theirs, list(texts)), encode(theirs, table["prompt"])
    cut = [(ids, _common(ids, prompt)) for ids, prompt in zip(whole, alone, strict=True)]
    return [ids[:n] for ids, n in cut], [ids[n:] for ids, n in cut]


def _without_end(responses: Ids, model: Path) -> Ids:
    """Return the responses without the end id with which some of them end."""
    end_ids = files.read_json(model / "manifest.json")["end_ids"]
    return [ids[:-1] if ids and ids[-1] in end_ids else ids for ids in responses]


def _common(one: list[int], other: list[int]) -> int:
    """Return how many first ids two lists share, but at least 1: a judge needs one id."""
    pairs = enumerate(zip(one, other, strict=False))
    return max(1, next((i for i, (a, b) in pairs if a != b), min(len(one), len(other))))
