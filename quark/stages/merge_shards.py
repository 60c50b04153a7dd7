"""Merge the shards of a stage into the file that the undivided stage would have written."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quark.core import files, schemas
from quark.core.shards import ShardError
from quark.models.reference_cache import ReferenceCache
from quark.stages.score import summary

SCHEMAS = (schemas.SAMPLES, schemas.SCORES, schemas.LIKELIHOODS)
"""The schemas of the stages that can be divided into shards."""


def merge_shards(
    parts: Sequence[Path],
    order: Path,
    out: Path,
    caches: Sequence[Path] = (),
    cache: Path | None = None,
) -> None:
    """Write one table with the rows of several tables, and their total cost.

    Args:
        parts: the shards' tables, all of one of SCHEMAS; each has its JSON beside it.
        order: a table whose rows give the order: by `row_id`, or by `prompt_id` if it has no
            `row_id`.
        out: the whole table; its JSON is written beside it.
        caches: files of the hidden states of the same shards.
        cache: the file for all hidden states; None: it is not written.

    Raises:
        ShardError: a row occurs twice, is missing, or has no row in `order`; or the parts have
            another schema.
        DamagedError: a part differs from what its stage wrote.
    """
    for part in parts:
        files.verify(part, part.with_suffix(".json"))
    rows = pa.concat_tables([pq.read_table(part) for part in parts])
    key = "row_id" if "row_id" in pq.read_schema(order).names else "prompt_id"
    place = {name: i for i, name in enumerate(pq.read_table(order, columns=[key])[key].to_pylist())}
    twice = [name for name, count in Counter(rows["row_id"].to_pylist()).items() if count > 1]
    if twice:
        raise ShardError(f"{out}: row {twice[0]} is in two shards ({len(twice)} such rows)")
    names = rows[key].to_pylist()
    if strange := set(names) - set(place):
        raise ShardError(f"{out}: {order} has no {key} {min(strange)} ({len(strange)} such)")
    about = schemas.about(parts[0])
    asked = about.get("prompts") if key == "prompt_id" else None  # the first n; null: all
    if missing := set(list(place)[:asked]) - set(names):
        raise ShardError(f"{out}: no shard has {key} {min(missing)} ({len(missing)} such)")
    rows = rows.take(sorted(range(len(names)), key=lambda i: place[names[i]]))  # stable
    schema = next((known for known in SCHEMAS if known.names == rows.column_names), None)
    if schema is None:
        raise ShardError(f"{parts[0]}: not a table of a stage that is cut into shards")
    schemas.write(out, schema, dict(zip(schema.names, rows.columns, strict=True)), about=about)
    beside = []
    if cache is not None:
        ReferenceCache.gather(caches).save(cache)
        beside = [cache]
    spent = [files.read_json(part.with_suffix(".json")) for part in parts]
    total = {name: sum(cost[name] for cost in spent) for name in ("rows", "tokens", "seconds")}
    facts = {"tokens_per_second": total["tokens"] / total["seconds"], "shards": len(parts)}
    if schema is schemas.SCORES:
        facts |= summary(about, rows.to_pydict())
    files.write_json(out.with_suffix(".json"), total | facts | {"sha256": files.sums(out, *beside)})
