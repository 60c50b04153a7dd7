"""Training on several GPUs: one process for each, started by torchrun (`quark train --processes`).

`--nodes` starts torchrun on several nodes of a SLURM job.

Every process takes its share of each batch's rows. The gradients of all are added before the
optimiser's step, so the step equals that of one process, up to the order of a sum. Each process
holds the whole model, or with `--layers split` its part of each layer, of the layer's gradients
and of Adam's moments (torch's FSDP2), and a whole layer only while that layer computes. All other
parts are always whole: embeddings, head, last norm, reward tokens. All processes draw the same
random numbers; only the first one writes files.
"""

import os
import sys
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from quark.config import ConfigError

PORTS = range(29400, 30400)
"""Where the nodes of a job find each other; the job's number chooses one."""


def launch(processes: int, nodes: int = 1, threads: int = 1) -> None:
    """Start the same command in several processes, unless this is one of them already.

    Args:
        processes: how many, on each node.
        nodes: of a SLURM job, in which this process is the only one so far.
        threads: cores of a node for these processes.

    Raises:
        ConfigError: several nodes are asked for outside a SLURM job.
    """
    if processes * nodes == 1 or "RANK" in os.environ:
        return
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if nodes == 1:
        run.append("--standalone")
    else:
        job = os.environ.get("SLURM_JOB_ID")
        if job is None:
            raise ConfigError(f"--nodes {nodes}: this is no SLURM job; use profiles/slurm")
        where = f"{os.uname().nodename}:{PORTS.start + int(job) % len(PORTS)}"  # the job's first
        meet = [f"--rdzv-id={job}", "--rdzv-backend=c10d", f"--rdzv-endpoint={where}"]
        each = ["srun", "--kill-on-bad-exit=1", f"--nodes={nodes}", f"--ntasks={nodes}"]
        run = [*each, f"--cpus-per-task={threads}", *run, f"--nnodes={nodes}", *meet]
    os.execvp(run[0], [*run, "--module", "quark.cli", *sys.argv[1:]])


def join() -> None:
    """Join the group of processes that torchrun started; without torchrun, do nothing."""
    if "RANK" not in os.environ:
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo")


def leave() -> None:
    """Leave the group of processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number, from 0; the first one writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum each parameter's gradient over all processes; split layers have the sum already.

    A process whose rows do not use a parameter has no gradient for it, and adds zero.
    """
    if world() == 1:
        return
    for parameter in parameters:
        if isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)


def add_terms(terms: dict[str, float]) -> dict[str, float]:
    """The sums of all processes' terms; a process without rows has none of its own."""
    if world() == 1:
        return terms
    everyone: list[dict[str, float]] = [{}] * world()
    distributed.all_gather_object(everyone, terms)
    return {name: sum(each.get(name, 0.0) for each in everyone) for name in max(everyone, key=len)}


def least(number: int) -> int:
    """The least of all processes' numbers."""
    everyone = [number] * world()
    if world() > 1:
        distributed.all_gather_object(everyone, number)
    return min(everyone)


# ----------------------------------------------------------------------------------- split layers
def split_layers(layers: Iterable[nn.Module]) -> None:
    """Give each process its part of each layer's parameters; gradients of rows are summed."""
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (world(),))
    for layer in layers:
        part = fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # the only one that gloo has


def has_split_layers(module: nn.Module) -> bool:
    """Whether layers of a model are split, so that no process can continue alone."""
    return any(isinstance(each, FSDPModule) for each in module.modules())


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a split tensor, on the first process's CPU; an empty tensor on the others.

    All processes must call it. Any other tensor is returned unchanged.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if rank() == 0 else full.new_empty(0, device="cpu")


def part_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, moved to a parameter's device and split like the parameter."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def own_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor takes in this process."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own.numel() * own.element_size()


def clip_gradients(parameters: Sequence[Tensor], bound: float) -> float:
    """Scale all gradients together so that their norm is at most `bound`; return the old norm."""
    kinds = [[p for p in parameters if isinstance(p, DTensor) is kind] for kind in (False, True)]
    norms = []
    for kind in filter(None, kinds):
        norm = nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])
        norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = torch.stack(norms).norm() if len(norms) > 1 else norms[0]
    for kind in filter(None, kinds):
        nn.utils.clip_grads_with_norm_(kind, bound, total)
    return float(total)
