"""Several processes that train or generate together, one per GPU, started by ``torchrun``; over ignite.distributed.

Importing this module, and asking for the rank in a process that is alone, imports neither torch nor ignite.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from mgcc_monai.errors import MGCCError

__all__ = [
    "all_reduce_max",
    "average_gradients",
    "barrier",
    "device",
    "finalize",
    "gather",
    "initialize",
    "is_main_process",
    "rank_and_size",
]


def initialize(timeout: float = 300.0) -> None:
    """Make this process one of those that ``torchrun`` started: NCCL on GPUs, gloo on CPUs.

    Args:
        timeout: seconds that a process waits for the others before it ends the run.

    Raises:
        MGCCError: when ``torchrun`` did not start it.
    """
    if "RANK" not in os.environ:
        raise MGCCError(
            "configs/multi_gpu_*.json: this process is alone; start it by 'torchrun --nproc_per_node N -m "
            "monai.bundle run ...', or leave this file out of --config_file."
        )
    import ignite.distributed as idist
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(device())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    idist.initialize(backend, timeout=datetime.timedelta(seconds=float(timeout)))


def finalize() -> None:
    """Undo :func:`initialize`; the first process may still be writing what the run has made."""
    if _initialized():
        import ignite.distributed as idist

        idist.finalize()


def _initialized() -> bool:
    dist = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


def device() -> Any:
    """Return this process's own GPU, or the CPU."""
    import torch

    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    )


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process and how many there are."""
    if not _initialized():
        return 0, 1
    import ignite.distributed as idist

    return idist.get_rank(), idist.get_world_size()


def is_main_process() -> bool:
    """Tell whether this process writes the files: rank 0, or the only one."""
    return rank_and_size()[0] == 0


def barrier() -> None:
    """Wait until every process has come here."""
    if rank_and_size()[1] > 1:
        import ignite.distributed as idist

        idist.barrier()


def gather(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what all processes collected, by key, so that an image that a sampler dealt out twice counts once."""
    size = rank_and_size()[1]
    if size == 1:
        return dict(rows)
    import torch.distributed as dist

    parts: list[Any] = [None] * size
    dist.all_gather_object(parts, dict(rows))
    return {key: value for part in parts for key, value in part.items()}


def all_reduce_max(value: int) -> int:
    """Return the largest of all processes' numbers; every process must ask."""
    if rank_and_size()[1] == 1:
        return value
    import ignite.distributed as idist

    return int(idist.all_reduce(value, op="MAX"))


def average_gradients(weights: Iterable[Any]) -> None:
    """Average the gradients of weights that no ``DistributedDataParallel`` looks after."""
    size = rank_and_size()[1]
    for weight in weights if size > 1 else ():
        if weight.grad is not None:
            import ignite.distributed as idist

            weight.grad.copy_(idist.all_reduce(weight.grad) / size)
