"""Run the shards of one stage side by side, each in its own process with one thread.

Sampling runs thousands of small operations. Two threads that share each of them wait for each
other; two processes do not. The processes are forks: they share the memory of the models' weights.
"""

import ctypes
import gc
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from quark.core.shards import Shard

T = TypeVar("T")

CAN_FORK = sys.platform == "linux" and not torch.cuda.is_available()
"""A process that uses a GPU cannot be forked; on macOS system libraries may crash after a fork."""

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


class WorkerError(RuntimeError):
    """A process of a stage died."""


class _Shards(IterableDataset[bytes]):
    """A data set of which each process iterates over a part of its own.

    It pickles its results: tensors would be sent through shared memory, which is small in
    containers.
    """

    def __init__(self, run: Callable[[Shard], Iterable[object]], shard: Shard) -> None:
        self.run, self.shard = run, shard

    def __iter__(self) -> Iterator[bytes]:
        info = get_worker_info()
        assert info is not None, "iterated by the processes of a DataLoader"
        try:
            for item in self.run(self.shard.part(info.id + 1, info.num_workers)):
                yield pickle.dumps(item)
        except Exception as error:
            error.add_note(traceback.format_exc())  # pickle drops the traceback, and keeps notes
            yield pickle.dumps(_Failed(error))


class _Failed:
    def __init__(self, error: Exception) -> None:
        self.error = error


def side_by_side(run: Callable[[Shard], Iterable[T]], shard: Shard, workers: int) -> Iterator[T]:
    """Yield the results of `run` on the parts of a shard, in any order.

    Args:
        run: gives picklable items of a shard.
        shard: is cut into one part for each process.
        workers: processes; 1: `run` is called in this one.

    Raises:
        Exception: the first that a process raised.
        WorkerError: a process died.
    """
    if workers == 1:
        yield from run(shard)
        return
    gc.freeze()  # else garbage collection in a process would copy shared pages
    loader = DataLoader(
        _Shards(run, shard),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork",
        worker_init_fn=_die_with_parent,
        in_order=False,
        generator=torch.Generator(),  # not the global one, which others may draw from
    )
    found = iter(loader)
    while True:
        try:
            item = pickle.loads(next(found))
        except StopIteration:
            return
        except RuntimeError as error:
            if "killed by signal" in str(error) or "exited unexpectedly" in str(error):
                raise WorkerError(
                    f"{error}: the machine's memory may have ended; run fewer jobs at once, or "
                    "give this one fewer threads (Snakemake's --set-threads, --threads of a verb)"
                ) from None
            raise
        if isinstance(item, _Failed):
            raise item.error
        yield cast(T, item)


def _die_with_parent(worker: int) -> None:
    """Let the system kill this process when its parent is killed and cannot stop it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
