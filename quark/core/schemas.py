"""The Parquet tables that stages exchange: their columns, types and meaning.

It imports no torch. Every row of a table has a key: `prompt_id` for prompts, `row_id` for samples.
Stages exchange token ids; text is decoded once, when it is sampled.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quark.core.files import verify, whole

PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),  # first 16 hex digits of the text's sha256
        pa.field("text", pa.string(), False),
        pa.field("source", pa.string(), False),  # name of the source in the configuration
        pa.field("toxicity", pa.float64()),  # published score in [0, 1]; null where there is none
        pa.field("toxic", pa.bool_(), False),  # by the published score, else by the local scorer's
    ]
)
SAMPLES = pa.schema(
    [
        pa.field("row_id", pa.string(), False),  # iteration/prompt_id/sample, unique in a pool
        pa.field("prompt_id", pa.string(), False),
        pa.field("sample", pa.int32(), False),
        pa.field("prompt", pa.string(), False),
        pa.field("response", pa.string(), False),
        pa.field("prompt_ids", pa.list_(pa.int32()), False),
        pa.field("response_ids", pa.list_(pa.int32()), False),  # with its end id, if it ended
        pa.field("base_nll", pa.float64()),  # nats under the base model, no end id; null: not kept
    ]
)
SCORES = pa.schema(
    [
        pa.field("row_id", pa.string(), False),
        pa.field("prompt_id", pa.string(), False),
        pa.field("score", pa.float64()),  # in [0, 1]; null where the scorer failed
        pa.field("error", pa.string()),  # why there is no score
    ]
)
POOL = pa.schema(
    [
        pa.field("row_id", pa.string(), False),
        pa.field("prompt_id", pa.string(), False),
        pa.field("iteration", pa.int32(), False),  # in which the row was sampled
        pa.field("prompt_ids", pa.list_(pa.int32()), False),
        pa.field("response_ids", pa.list_(pa.int32()), False),
        pa.field("reward", pa.float64(), False),
        pa.field("quantile", pa.int32(), False),  # 0 = best
    ]
)
CORPUS = pa.schema(
    [
        pa.field("row_id", pa.string(), False),
        pa.field("source", pa.string(), False),  # prompts, samples or texts
        pa.field("label", pa.int32(), False),  # 0 = wanted, 1 = unwanted
        pa.field("prompt_ids", pa.list_(pa.int32()), False),  # read, not learnt
        pa.field("response_ids", pa.list_(pa.int32()), False),  # learnt
    ]
)
LIKELIHOODS = pa.schema(
    [
        pa.field("row_id", pa.string(), False),
        pa.field("prompt_id", pa.string(), False),
        pa.field("nll", pa.float64(), False),  # nats, summed over the response's tokens
        pa.field("tokens", pa.int32(), False),  # judged tokens; 0: empty response
    ]
)
PREDICTIONS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        pa.field("prompt_ids", pa.list_(pa.int32()), False),  # read, not predicted
        pa.field("text_ids", pa.list_(pa.int32()), False),  # the real continuation
        pa.field("predicted", pa.list_(pa.int32()), False),  # the likeliest token in each place
        pa.field("nll", pa.float64(), False),  # nats, summed over the text's tokens
    ]
)

ROW_GROUP = 2**15
"""Rows that are compressed together."""


UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for a damaged file."""


class TableError(ValueError):
    """A table that does not hold what its stage needs; the text names file and column."""


def write(
    target: Path | str,
    schema: pa.Schema,
    columns: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write `columns` as Parquet in the order and types of `schema`; `about` goes in as metadata.

    A nullable column may be left out: all its values are then null.

    Raises:
        TableError: a column is missing or superfluous, or has a null that the schema forbids.
    """
    write_parts(target, schema, [columns], about)


def write_parts(
    target: Path | str,
    schema: pa.Schema,
    parts: Iterable[Mapping[str, Any]],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the parts of a table one after another; the bytes are the same as with `write`.

    At most one part and ROW_GROUP rows are in memory.

    Raises:
        TableError: as `write` does.
    """
    described = schema.with_metadata({"quark": json.dumps(about or {})})
    with whole(target) as made, pq.ParquetWriter(made, described, compression="zstd") as file:
        waiting: list[pa.Table] = []
        rows = 0
        for part in parts:
            waiting.append(_table(part, described, str(target)))
            rows += len(waiting[-1])
            if rows >= ROW_GROUP:
                waiting = [_write_groups(file, waiting, full_ones=True)]
                rows = len(waiting[0])
        if rows:
            _write_groups(file, waiting)


def _write_groups(
    file: pq.ParquetWriter, tables: Sequence[pa.Table], full_ones: bool = False
) -> pa.Table:
    """Write the rows of tables, or only those that fill whole groups; return the other rows."""
    table = pa.concat_tables(tables).combine_chunks()
    written = len(table) - len(table) % ROW_GROUP if full_ones else len(table)
    file.write_table(table.slice(0, written), row_group_size=ROW_GROUP)
    return table.slice(written)


def _table(columns: Mapping[str, Any], schema: pa.Schema, file: str) -> pa.Table:
    rows = max(map(len, columns.values()), default=0)
    columns = {f.name: pa.nulls(rows) for f in schema if f.nullable} | dict(columns)
    if set(columns) != set(schema.names):
        raise TableError(f"{file}: columns {sorted(columns)}, expected {schema.names}")
    try:
        table = pa.table(columns, schema=schema)
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise TableError(f"{file}: {error}") from None
    _refuse_nulls(table, schema, file)
    return table


def read(source: Path | str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, and check it against `schema`.

    Raises:
        TableError: the file is missing or empty, a column is missing, of another type or null.
        DamagedError: the file differs from what its stage wrote.
    """
    file = Path(source)
    if not file.exists():
        raise TableError(f"{file}: no such file")
    if schema is PROMPTS:  # all splits are made at once, with one manifest
        verify(file, file.parent / "manifest.json", target=file.parent)
    else:
        verify(file, file.with_suffix(".json"))
    names = list(columns or schema.names)
    try:
        missing = set(names) - set(pq.read_schema(source).names)
        if missing:
            raise TableError(f"{source}: no column {', '.join(sorted(missing))}")
        table = pq.read_table(source, columns=names)
        table.validate(full=True)
    except UNREADABLE as error:
        fault = f"{source}: not a whole Parquet file: {error}"
        raise TableError(f"{fault}; delete it to have it made again") from None
    if not table.num_rows:
        raise TableError(f"{source}: has no rows; delete it to have it made again")
    for name in names:
        if table.schema.field(name).type != schema.field(name).type:
            raise TableError(
                f"{source}: column {name} is {table.schema.field(name).type}, "
                f"expected {schema.field(name).type}"
            )
    _refuse_nulls(table, schema, str(source))
    return table


def about(source: Path | str) -> dict[str, Any]:
    """The settings that a table was made with.

    Raises:
        TableError: it is damaged.
    """
    try:
        metadata = pq.read_schema(source).metadata or {}
        content: dict[str, Any] = json.loads(metadata.get(b"quark", b"{}"))
    except (*UNREADABLE, ValueError) as error:
        fault = f"{source}: its settings cannot be read: {error}"
        raise TableError(f"{fault}; delete it to have it made again") from None
    return content


def _refuse_nulls(table: pa.Table, schema: pa.Schema, file: str) -> None:
    for name in table.column_names:
        if not schema.field(name).nullable and table[name].null_count:
            row = table[name].is_null().index(True).as_py()
            raise TableError(f"{file}: row {row}: column {name} is null")


def read_scored(samples: Path, scores: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a table of samples, and `score` after them; null where the scorer failed.

    Args:
        samples: schema SAMPLES.
        scores: their scores; schema SCORES.
        columns: columns of the samples, including `row_id`.

    Raises:
        TableError: a table is broken, the two hold different rows, or a score is NaN.
    """
    rows, scored = read(samples, SAMPLES, columns), read(scores, SCORES, ["row_id", "score"])
    if rows["row_id"] != scored["row_id"]:
        raise TableError(f"{scores}: its rows are not those of {samples}; score again")
    if pc.any(pc.is_nan(scored["score"])).as_py():
        row = scored["row_id"][pc.index(pc.is_nan(scored["score"]), True).as_py()]
        raise TableError(f"{scores}: row {row}: score is NaN; a failed score is null")
    return rows.append_column("score", scored["score"])
