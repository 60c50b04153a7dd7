"""Files that are written whole or not at all, and checked by their checksums.

It imports no torch. Every stage writes through this module, so a job that is killed leaves
either the finished file or nothing.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
"""The file of a model's weights, the one whose checksum its manifest has."""


class DamagedError(ValueError):
    """A file that differs from what its stage wrote; the text says how to make it again."""


@contextmanager
def whole(target: Path | str) -> Iterator[Path]:
    """Yield a path beside `target`; rename it to `target` if the block ends without an error.

    The block writes a file or a directory at the yielded path. If it raises, its output is
    removed and an older `target` stays unchanged.

    Raises:
        OSError: the disk is full; the error names `target`.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = scratch / target.name
        yield made
        _open_to_others(made, scratch)
        if target.is_dir():  # a directory cannot be replaced: move the old one away whole
            os.replace(target, scratch / "old")
        os.replace(made, target)
    except Exception as error:
        if _says_full(error):
            said = "no space left on this disk or in its quota; make room, then run again"
            raise OSError(errno.ENOSPC, said, str(target)) from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _says_full(error: Exception) -> bool:
    """Whether the error means a full disk; safetensors has an error of its own for it."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in full
    return any(f"(os error {code})" in str(error) for code in full)


def _open_to_others(made: Path, scratch: Path) -> None:
    """Give files the default mode of new files; some libraries let only the owner read them."""
    (scratch / "new").touch()
    mode = (scratch / "new").stat().st_mode
    for file in [made, *made.rglob("*")]:
        if file.is_file():
            file.chmod(mode)


def write_text(target: Path | str, text: str) -> None:
    """Write `text` to `target`, whole or not at all."""
    with whole(target) as made:
        made.write_text(text)


def write_json(target: Path | str, content: Any) -> None:
    """Write `content` as indented JSON; NaN is refused, since JSON has none."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(source: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        DamagedError: it is not valid JSON.
    """
    try:
        return json.loads(Path(source).read_text())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{source}: not JSON ({error}). {mend(source)}") from None


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sums(*files: Path) -> dict[str, str]:
    """The checksum of each file by its name, in the form that `verify` reads."""
    return {file.name: sha256(file) for file in files}


def verify(file: Path, manifest: Path, target: Path | None = None) -> None:
    """Check that a file has the bytes that its stage wrote.

    Args:
        file: the file, before it is read.
        manifest: JSON beside it, written after it; its key `sha256` holds checksums by name, or the
            one of model.safetensors. Without a manifest, or without this key, nothing is compared.
        target: Snakemake's name for the file; None: the file itself.

    Raises:
        DamagedError: the bytes differ.
    """
    known = _known(file, manifest, target or file)
    if known and sha256(file) != known:
        raise DamagedError(
            f"{file}: damaged or changed since it was written ({manifest} has another checksum). "
            + mend(target or file)
        )


def verify_once(file: Path, manifest: Path, target: Path | None = None) -> None:
    """Check as `verify` does, but read a file again only after it has changed.

    A small file beside it, .NAME.verified, holds the checksum, and the file's size, modification
    time and inode at the check. If the folder is not writable, each call reads the file.
    """
    known = _known(file, manifest, target or file)
    if not known:
        return
    state = file.stat()
    stamp = file.with_name(f".{file.name}.verified")
    found = f"{known} {state.st_size} {state.st_mtime_ns} {state.st_ino}\n"
    with suppress(OSError, ValueError):  # the stamp is missing, or is not text
        if stamp.read_text() == found:
            return
    verify(file, manifest, target)
    with suppress(OSError):
        write_text(stamp, found)


def _known(file: Path, manifest: Path, target: Path) -> str | None:
    """A file's checksum in a manifest; None: the manifest has none."""
    content = read_json(manifest) if manifest.is_file() else {}
    if not isinstance(content, dict):
        raise DamagedError(f"{manifest}: not an object of JSON. {mend(target)}")
    sums = content.get("sha256")
    if isinstance(sums, str):
        sums = {WEIGHTS: sums}
    known: str | None = sums.get(file.name) if isinstance(sums, dict) else None
    return known


def mend(target: Path | str) -> str:
    """The sentence in an error message that says how to make a target again."""
    return f"Make it again, with the run's --configfile if it has one: {again(target)}"


def again(target: Path | str) -> str:
    """The command that makes this file again, and no other."""
    return f"snakemake --cores all {target} --forcerun {target}"


def cost(begun: float, *, rows: int, tokens: int) -> dict[str, Any]:
    """The cost of a stage that began at `begun` (monotonic seconds)."""
    seconds = time.monotonic() - begun
    return {
        "rows": rows,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
    }


def report(
    out: Path,
    begun: float,
    *,
    rows: int,
    tokens: int = 0,
    beside: Sequence[Path] = (),
    **facts: Any,
) -> None:
    """Write a stage's cost, checksums, and other facts, as JSON beside its table `out`.

    Args:
        out: the table.
        begun: when the stage began, in monotonic seconds.
        rows: number of rows that it wrote.
        tokens: number of tokens that it sampled or read.
        beside: other files that it wrote.
        facts: other facts, as JSON values.
    """
    spent = cost(begun, rows=rows, tokens=tokens)
    write_json(out.with_suffix(".json"), {**spent, **facts, "sha256": sums(out, *beside)})
