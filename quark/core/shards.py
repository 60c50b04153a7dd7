"""Shards of a stage, which can run side by side on several machines and are merged afterwards.

It imports no torch. The shards divide the largest batches that a stage may make. These do not
depend on memory, so every row is in one shard, if all shards run on GPUs or all run without one. A
shard cuts its batches further if its memory requires it. The union of the shards equals the result
of the undivided stage, up to rounding; with the same memory and one thread each, byte for byte.
(Two threads may round differently from one, and so may a GPU with other free memory, or vLLM.)
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


class ShardError(ValueError):
    """An invalid shard, or shards that do not fit together; the text says what is wrong."""


@dataclass(frozen=True)
class Shard:
    """Shard `number` (from 1) of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "2-of-8", as Snakemake writes it.

        Raises:
            ShardError: it is not of this form, or there is no such shard.
        """
        found = re.fullmatch(r"(\d+)-of-(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ShardError(f"shard {text!r}: write it as 2-of-8")
        return cls(int(found[1]), int(found[2]))

    def part(self, number: int, count: int) -> "Shard":
        """Part `number` (from 1) of `count` parts of this shard."""
        return Shard(self.number + (number - 1) * self.count, self.count * count)

    def of(self, batches: Iterable[T]) -> Iterator[T]:
        """Every `count`-th batch."""
        return islice(batches, self.number - 1, None, self.count)


def batched(rows: list[T], length: int) -> Iterator[list[T]]:
    """Cut rows into batches of `length`, the last may be shorter; like `itertools.batched`."""
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


WHOLE = Shard(1, 1)
"""The only shard of an undivided stage."""
