"""The likelihoods of generations under a judge.

Where sampling kept them this needs no model, so torch is imported only where the judge must read.
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
    """The likelihood of each response under the judge, given its prompt.

    Where the judge is the base model and sampling kept the likelihoods, they are taken from there.
    Else the judge reads the very ids that were sampled where it shares the model's tokenizer, or
    the text anew. The end of text is not judged: the published metric sees text alone.

    Args:
        settings: precision of the judge's weights; the softmax is float32.
        samples: schema SAMPLES.
        model: directory of the model that sampled them.
        judge: directory of the judge.
        out: schema LIKELIHOODS.
        memory_mb: bounds the rows read together.
        shard: whose responses are judged.
        threads: used only if the judge must read.
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
    """-log p of each response in nats; NaN: another shard's."""
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
    """Ids of prompts and responses as the judge reads them.

    With a tokenizer of its own, the judge reads the whole text, and the response begins at the
    first token that differs from the prompt's: a token across the boundary belongs to the response.
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
    """The responses without the end id that some of them have."""
    end_ids = files.read_json(model / "manifest.json")["end_ids"]
    return [ids[:-1] if ids and ids[-1] in end_ids else ids for ids in responses]


def _common(one: list[int], other: list[int]) -> int:
    """How many ids the two begin with alike; at least 1, for a judge needs something to go on."""
    pairs = enumerate(zip(one, other, strict=False))
    return max(1, next((i for i, (a, b) in pairs if a != b), min(len(one), len(other))))
