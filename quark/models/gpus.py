"""Jobs on a machine with several GPUs: each job computes on a GPU that no other job uses."""

import fcntl
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch

log = logging.getLogger(__name__)
_held: list[IO[str]] = []


def take_gpu() -> None:
    """Make a GPU that no other job uses the current one, until this process ends.

    With fewer than two GPUs, and for processes of torchrun, which have one each, nothing changes.
    If all are used, this job shares one.
    """
    count = torch.cuda.device_count()
    if count < 2 or "RANK" in os.environ or _held:
        return
    names = [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]
    free = take(names)
    if free is None:
        log.info("all %d GPUs are used by other jobs: this job shares one", count)
    torch.cuda.set_device(os.getpid() % count if free is None else free)


def take(names: Sequence[str], folder: Path | None = None) -> int | None:
    """Return the place of the first name that no other process holds, and hold it; None: none.

    Args:
        names: of the GPUs, the same for all jobs, whatever GPUs each of them sees.
        folder: directory of the locks; None: that of temporary files.
    """
    for i, name in enumerate(names):
        path = (folder or Path(tempfile.gettempdir())) / f"quark-{os.getuid()}-gpu-{name}.lock"
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)  # the lock ends with the process, however it ends
        return i
    return None
