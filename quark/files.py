"""Files that appear whole or not at all.

Layer 0: imports no torch. Every stage writes through this module, so a job that is killed leaves
either the finished file or nothing.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(target: Path | str) -> Iterator[Path]:
    """Yield a path beside `target`; rename it to `target` if the block ends well.

    The block writes a file or a directory at the yielded path. If it raises, what it wrote is
    removed and an older `target` stays as it was.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = scratch / target.name
        yield made
        if target.is_dir():  # a directory cannot be replaced: move the old one away whole
            os.replace(target, scratch / "old")
        os.replace(made, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(target: Path | str, text: str) -> None:
    """Write `text` to `target`, whole or not at all."""
    with whole(target) as made:
        made.write_text(text)


def write_json(target: Path | str, content: Any) -> None:
    """Write `content` as indented JSON; NaN is refused, since JSON has none."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(source: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(source).read_text())


def cost(begun: float, *, rows: int, tokens: int) -> dict[str, Any]:
    """What a stage cost that began at `begun` (monotonic seconds)."""
    seconds = time.monotonic() - begun
    return {
        "rows": rows,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
    }


def report(out: Path, begun: float, *, rows: int, tokens: int = 0, **facts: Any) -> None:
    """Write a stage's cost, and other facts, as JSON beside its table `out`."""
    write_json(out.with_suffix(".json"), {**cost(begun, rows=rows, tokens=tokens), **facts})
