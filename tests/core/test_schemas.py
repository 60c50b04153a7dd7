from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quark.core import schemas
from quark.core.schemas import SCORES, TableError, about, read, write, write_parts

COLUMNS: dict[str, Any] = {
    "row_id": ["a", "b"],
    "prompt_id": ["p", "p"],
    "score": [0.5, None],
    "error": [None, "busy"],
}


def test_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "scores.parquet"
    write(file, SCORES, dict(reversed(COLUMNS.items())), about={"scorer": "x"})
    table = read(file, SCORES)
    assert table.to_pydict() == COLUMNS and table.column_names == SCORES.names
    assert read(file, SCORES, ["score"]).column_names == ["score"]
    assert about(file) == {"scorer": "x"}


def test_what_may_be_null_may_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a", SCORES, {name: COLUMNS[name] for name in ("row_id", "prompt_id")})
    table = read(tmp_path / "a", SCORES)
    assert table["score"].to_pylist() == table["error"].to_pylist() == [None, None]


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, SCORES, COLUMNS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("cut", [[0, 7], [0, 1, 2, 2, 7], [0, 3, 6, 7], [0, 5, 7]])
def test_parts_give_the_bytes_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: list[int]
) -> None:
    monkeypatch.setattr(schemas, "ROW_GROUP", 3)
    columns = {name: (4 * COLUMNS[name])[:7] for name in SCORES.names}
    write(tmp_path / "whole", SCORES, columns, about={"scorer": "x"})
    parts = [
        {name: values[start:end] for name, values in columns.items()}
        for start, end in pairwise(cut)
    ]
    write_parts(tmp_path / "parts", SCORES, parts, about={"scorer": "x"})
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert pq.read_metadata(tmp_path / "whole").num_row_groups == 3
    assert read(tmp_path / "parts", SCORES).to_pydict() == columns


def test_no_parts_are_a_table_without_rows(tmp_path: Path) -> None:
    write_parts(tmp_path / "none", SCORES, [])
    assert pq.read_schema(tmp_path / "none").names == SCORES.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": [1, 2]}, "columns .*'extra'"),
        ({"row_id": ["a", None]}, "row 1: column row_id is null"),
        ({"score": [1.0]}, "scores.parquet"),
    ],
)
def test_write_refuses(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "scores.parquet"
    with pytest.raises(TableError, match=message):
        write(file, SCORES, COLUMNS | change)
    assert not file.exists()
    with pytest.raises(TableError, match="expected"):
        write(file, SCORES, {"row_id": ["a"]})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"row_id": ["a"], "prompt_id": ["p"]}, "no column error, score"),
        (COLUMNS | {"score": ["high", "low"]}, "column score is string, expected double"),
        (COLUMNS | {"prompt_id": [None, "p"]}, "row 0: column prompt_id is null"),
        (pa.table(COLUMNS).slice(0, 0), "has no rows"),
    ],
)
def test_read_refuses(tmp_path: Path, columns: Any, message: str) -> None:
    file = tmp_path / "scores.parquet"
    pq.write_table(pa.table(columns), file)
    with pytest.raises(TableError, match=f"{file}: .*{message}"):
        read(file, SCORES)


def test_read_refuses_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="none: no such file"):
        read(tmp_path / "none", SCORES)
    (tmp_path / "text").write_text("row_id,score")
    with pytest.raises(TableError, match="text: not a whole Parquet file"):
        read(tmp_path / "text", SCORES)
