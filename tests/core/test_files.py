import errno
import hashlib
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from quark.core.files import (
    DamagedError,
    read_json,
    report,
    sums,
    verify,
    whole,
    write_json,
    write_text,
)


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


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "Error writing bytes to file"),  # as of Arrow
        OSError(errno.EDQUOT, "Disk quota exceeded", "scratch"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'errno', '')}",
)
def test_a_full_disk_is_named_with_the_file(tmp_path: Path, error: Exception) -> None:
    target = tmp_path / "file"
    write_text(target, "old")
    said = f"no space left .* make room.*'{target}'"
    with pytest.raises(OSError, match=said) as caught, whole(target) as made:
        made.write_text("half")
        raise error
    assert caught.value.errno == errno.ENOSPC and caught.value.__cause__ is error
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), ValueError("28"), KeyError("x")])
def test_another_error_stays_as_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, whole(tmp_path / "file"):
        raise error
    assert caught.value is error


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no device that is always full")
    with pytest.raises(OSError, match=f"no space left .*{tmp_path}/file"), whole(tmp_path / "file"):
        Path("/dev/full").write_text("x")


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


def test_others_may_read_what_a_library_wrote_for_its_owner(tmp_path: Path) -> None:
    (tmp_path / "ours").touch()
    usual = (tmp_path / "ours").stat().st_mode
    with whole(tmp_path / "made") as made:
        made.mkdir()
        (made / "weights").touch(0o600)
    with whole(tmp_path / "file") as made:
        made.touch(0o600)
    assert (tmp_path / "made/weights").stat().st_mode == usual
    assert (tmp_path / "file").stat().st_mode == usual


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None, "é"]}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_report_stands_beside_its_table(tmp_path: Path) -> None:
    (tmp_path / "samples.parquet").touch()
    report(tmp_path / "samples.parquet", time.monotonic() - 2, rows=3, tokens=10, failed=1)
    found = read_json(tmp_path / "samples.json")
    assert (found["rows"], found["tokens"], found["failed"]) == (3, 10, 1)
    assert found["seconds"] >= 2 and found["tokens_per_second"] == 10 / found["seconds"] <= 5


def test_a_changed_file_is_found_and_the_remedy_named(tmp_path: Path) -> None:
    file, manifest = tmp_path / "pool.parquet", tmp_path / "pool.json"
    file.write_bytes(b"all rows")
    verify(file, manifest)  # nothing was written down
    write_json(manifest, {"rows": 2})
    verify(file, manifest)
    write_json(manifest, {"sha256": sums(file)})
    assert sums(file) == {"pool.parquet": hashlib.sha256(b"all rows").hexdigest()}
    verify(file, manifest)
    file.write_bytes(b"all row")
    with pytest.raises(DamagedError, match=f"{file}: damaged .*--cores all {file} --forcerun"):
        verify(file, manifest)
    with pytest.raises(DamagedError, match=f"--cores all {tmp_path} --forcerun {tmp_path}$"):
        verify(file, manifest, target=tmp_path)


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "pool.json"
    manifest.write_text('{"rows": 2,')
    with pytest.raises(DamagedError, match=f"{manifest}: not JSON .*--forcerun {manifest}"):
        read_json(manifest)


def test_a_report_knows_its_files(tmp_path: Path) -> None:
    out, cache = tmp_path / "samples.parquet", tmp_path / "samples.hidden.safetensors"
    out.write_bytes(b"a")
    cache.write_bytes(b"b")
    report(out, time.monotonic(), rows=1, beside=[cache])
    assert read_json(tmp_path / "samples.json")["sha256"] == sums(out, cache)
