"""Training on several GPUs: one process for each, started by torchrun (`quark train --processes`).

Layer 2. Every process holds the whole model and takes its share of each batch's rows; the gradients
of all are added before the optimiser's step, so that the step is that of one process but for the
order of a sum. Processes draw the same random numbers and write nothing but the first.
"""

import os
import sys
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def launch(processes: int) -> None:
    """Start this very command again in several processes, unless it is one of them already."""
    if processes > 1 and "RANK" not in os.environ:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*run, f"--nproc-per-node={processes}", "--module", "quark.cli", *sys.argv[1:]]
        os.execv(sys.executable, command)


def join() -> None:
    """Meet the other processes that torchrun started; alone, do nothing."""
    if "RANK" not in os.environ:
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo")


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number, from 0; the first one writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Make each parameter's gradient the sum of all processes' gradients."""
    if world() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # none of this process's rows had to do with it
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)


def add_terms(terms: dict[str, float]) -> dict[str, float]:
    """The sums of all processes' terms; a process without rows has none of its own."""
    if world() == 1:
        return terms
    everyone: list[dict[str, float]] = [{}] * world()
    distributed.all_gather_object(everyone, terms)
    return {name: sum(each.get(name, 0.0) for each in everyone) for name in max(everyone, key=len)}
