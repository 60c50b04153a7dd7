"""Shards of one stage side by side: what they find, and what they say when they fail."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from quark.core.shards import WHOLE, Shard
from quark.generation.workers import CAN_FORK, WorkerError, side_by_side

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="processes cannot be forked here")
BATCHES = list(range(11))


def squares(shard: Shard) -> Iterator[tuple[int, int, torch.Tensor]]:
    for batch in shard.of(BATCHES):
        yield batch, os.getpid(), torch.full((2,), batch**2, dtype=torch.bfloat16)


@pytest.mark.parametrize("shard", [WHOLE, Shard(2, 3)])
def test_each_batch_is_found_once(shard: Shard) -> None:
    found = list(side_by_side(squares, shard, 2))
    assert sorted(batch for batch, *_ in found) == list(shard.of(BATCHES))
    assert len({process for _, process, _ in found}) == 2
    assert os.getpid() not in {process for _, process, _ in found}
    assert all(torch.equal(t, torch.full((2,), b**2, dtype=torch.bfloat16)) for b, _, t in found)


def test_one_worker_is_this_process() -> None:
    assert {process for _, process, _ in side_by_side(squares, WHOLE, 1)} == {os.getpid()}


def test_each_has_one_thread_and_leaves_ours_alone(two_threads: None) -> None:
    state = torch.get_rng_state()
    assert set(side_by_side(lambda shard: [torch.get_num_threads()], WHOLE, 2)) == {1}
    assert torch.get_num_threads() == 2 and torch.equal(torch.get_rng_state(), state)


def test_an_error_arrives_as_it_was_raised() -> None:
    def fail(shard: Shard) -> Iterator[int]:
        yield 1
        raise ValueError(f"no batch {shard.number}")

    with pytest.raises(ValueError) as found:
        list(side_by_side(fail, WHOLE, 2))
    assert str(found.value) in ("no batch 1", "no batch 2")
    assert "in fail" in found.value.__notes__[0]  # `quark --debug` shows where


def test_a_process_that_dies_is_no_silent_end() -> None:
    def die(shard: Shard) -> Iterator[int]:
        yield shard.number
        if shard.number == 2:
            time.sleep(0.2)  # so that it dies while its parent waits for it
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerError, match="memory may have ended; run fewer jobs"):
        list(side_by_side(die, WHOLE, 2))


ORPHANS = """
import os, sys, time
from quark.core.shards import WHOLE
from quark.generation.workers import side_by_side

def large(shard):
    print(os.getpid(), flush=True)
    while True:
        yield bytes(10_000_000)  # more than a pipe holds

for item in side_by_side(large, WHOLE, 2):
    time.sleep(60)
"""


def test_processes_end_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphans = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    deadline = time.monotonic() + 30
    while any(is_alive(process) for process in orphans):
        assert time.monotonic() < deadline, "they outlive their parent"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status
