"""A cache of scores that are slow or costly to get: a file that many processes share.

It needs no torch. The file is an SQLite database with the oldest kind of journal, which works on
the network file system of a cluster. The key of a score is the SHA-256 of scorer, version, prompt
and response, so the file holds no text.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quark.core.progress import track
from quark.core.shards import batched
from quark.scorers import Scorer, ScorerError, why

PATIENCE = 60.0
"""Seconds to wait for another process's write."""


class ScoreCache:
    """Known scores, and the clock of a service's quota.

    Args:
        file: made if missing.

    Raises:
        ScorerError: the file is no cache, or stays locked.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL)")
            database.execute("CREATE TABLE IF NOT EXISTS clocks (name TEXT PRIMARY KEY, next REAL)")

    def find(self, keys: Iterable[str]) -> dict[str, float]:
        """The scores of those keys that are known."""
        wanted = "SELECT key, score FROM scores WHERE key IN (SELECT value FROM json_each(?))"
        with self._open() as database:
            return dict(database.execute(wanted, [json.dumps(list(keys))]))

    def keep(self, scores: Mapping[str, float]) -> None:
        """Write scores by key, all or none."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", scores.items())
            database.execute("COMMIT")

    def turn(self, name: str, per_second: float) -> float:
        """Take the next turn of a clock that all processes share; return the seconds until then."""
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            found = database.execute("SELECT next FROM clocks WHERE name = ?", [name]).fetchone()
            now = time.time()
            at = max(now, found[0]) if found else now
            database.execute(
                "INSERT OR REPLACE INTO clocks VALUES (?, ?)", [name, at + 1 / per_second]
            )
            database.execute("COMMIT")
        return at - now

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone; changes that are not committed are undone."""
        try:
            database = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)
            try:
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise ScorerError(
                f"{self.file}: {error}; if it is no cache of scores, move it away, and all are "
                "requested again"
            ) from error


class Cached:
    """A scorer that calls another one only for scores that are not in the cache.

    Failures are not kept, so the next run tries again.

    Args:
        scorer: its score of a text must not depend on the other texts of the call. If it has the
            attribute `reads_prompts` and that is false, a response is scored once for all prompts.
        cache: where its scores are kept.
        chunk: texts between two writes; after a kill, at most so many are scored again.
    """

    def __init__(self, scorer: Scorer, cache: ScoreCache, chunk: int) -> None:
        self.name, self.version = scorer.name, scorer.version
        self.scorer, self.cache, self.chunk = scorer, cache, chunk

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return scores in [0, 1], shape (n,); NaN where the scorer failed.

        Raises:
            ValueError: `prompts` and `responses` differ in length.
        """
        read = prompts if getattr(self.scorer, "reads_prompts", True) else [""] * len(prompts)
        rows = list(zip(read, responses, strict=True))
        keys = [key(self.name, self.version, *row) for row in rows]
        known = self.cache.find(set(keys))
        new = {k: row for k, row in zip(keys, rows, strict=True) if k not in known}
        waiting = list(new)
        chunks = list(batched(waiting, self.chunk))
        for chunk in track(chunks, f"ask {self.name} for {len(new)} of {len(rows)} texts"):
            asked, texts = zip(*(new[k] for k in chunk), strict=True)
            values = self.scorer.score(asked, texts).tolist()
            got = {k: value for k, value in zip(chunk, values, strict=True) if not np.isnan(value)}
            self.cache.keep(got)
            known |= got
        return np.array([known.get(k, np.nan) for k in keys], dtype=np.float64)

    def why(self, prompt: str, response: str) -> str:
        """Why there is no score."""
        return why(self.scorer, prompt, response)


def key(*parts: str) -> str:
    """The key of a score: SHA-256 of scorer, version, prompt and response."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
