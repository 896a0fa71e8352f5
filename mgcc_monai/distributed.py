"""Several processes that train or generate together, one a GPU, started by ``torchrun``."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from mgcc_monai.errors import MGCCError

__all__ = [
    "average_gradients",
    "device",
    "gather",
    "is_main_process",
    "join",
    "largest",
    "leave",
    "rank_and_size",
    "wait",
]


def join(timeout: float = 300.0) -> None:
    """Make this process one of those that ``torchrun`` started: NCCL on GPUs, gloo on CPUs.

    Args:
        timeout: seconds that a process waits for the others before it ends the run.

    Raises:
        MGCCError: when ``torchrun`` did not start it.
    """
    if "RANK" not in os.environ:
        raise MGCCError(
            "configs/multi_gpu_*.json: this is one process alone; start it by 'torchrun --nproc_per_node N -m "
            "monai.bundle run ...', or leave this file out of --config_file."
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=float(timeout)))


def leave() -> None:
    """Undo :func:`join`; the first process may still be writing what the run has made."""
    if dist.is_initialized():
        dist.destroy_process_group()


def device() -> torch.device:
    """Return this process's own GPU, or the CPU."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_main_process() -> bool:
    """Whether this process writes the files: rank 0, or the only one."""
    return rank_and_size()[0] == 0


def wait() -> None:
    """Wait until every process has come here."""
    if rank_and_size()[1] > 1:
        dist.barrier()


def gather(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what all processes collected, by key, so that an image that a sampler dealt out twice counts once."""
    if rank_and_size()[1] == 1:
        return dict(rows)
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, dict(rows))
    return {key: value for part in parts for key, value in part.items()}


def largest(value: int) -> int:
    """Return the largest of all processes' numbers; every process must ask."""
    if rank_and_size()[1] == 1:
        return value
    found = torch.tensor(value, device=device() if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def average_gradients(weights: Iterable[torch.nn.Parameter]) -> None:
    """Average the gradients of weights that no ``DistributedDataParallel`` looks after."""
    size = rank_and_size()[1]
    for weight in weights if size > 1 else ():
        if weight.grad is not None:
            dist.all_reduce(weight.grad)
            weight.grad /= size
