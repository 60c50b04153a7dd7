"""Progress: a bar on a terminal, a plain line from time to time in a log."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.progress import track as bar

log = logging.getLogger(__name__)
T = TypeVar("T")

SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` and show the progress; `total` is needed if they have no length."""
    total = len(items) if isinstance(items, Sized) else total
    if sys.stderr.isatty():
        from rich.console import Console

        yield from bar(items, what, total=total, console=Console(stderr=True))
        return
    begun = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES or done == total:
            last = now
            log.info("%s: %d of %s, %.0f s", what, done, total or "?", now - begun)
