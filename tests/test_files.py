import time
from pathlib import Path

import pytest

from quark.files import read_json, report, whole, write_json, write_text


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"
    write_text(target, "old")
    with pytest.raises(KeyError), whole(target) as made:
        made.write_text("half")
        raise KeyError("killed")
    assert target.read_text() == "old"
    write_text(target, "new")
    assert target.read_text() == "new"
    assert [f.name for f in target.parent.iterdir()] == ["file"]


def test_target_appears_only_at_the_end(tmp_path: Path) -> None:
    with whole(tmp_path / "file") as made:
        made.write_text("text")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_text() == "text"


def test_directories_are_replaced(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with whole(tmp_path / "made") as made:
            made.mkdir()
            (made / name).touch()
    assert [str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*")] == ["made", "made/new"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None, "é"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_report_stands_beside_its_table(tmp_path: Path) -> None:
    report(tmp_path / "samples.parquet", time.monotonic() - 2, rows=3, tokens=10, failed=1)
    found = read_json(tmp_path / "samples.json")
    assert (found["rows"], found["tokens"], found["failed"]) == (3, 10, 1)
    assert found["seconds"] >= 2 and found["tokens_per_second"] == 10 / found["seconds"] <= 5
