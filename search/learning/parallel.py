"""Training in several processes, as ``torchrun`` starts them: each takes a share of every batch.

All processes draw the same paths and take the same decisions, because what is random depends on
seed and step alone, and because gradients, losses and accuracies are averaged before anything
depends on them. Without a process group every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from hwprof.errors import PlanError


def world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes that ``torchrun`` started, if it did; leave them at the end.

    On ``cuda`` each trains on the device of its local number and they talk over NCCL, on the CPU
    over gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return this process's part of a batch.

    Raises:
        PlanError: the batch does not divide: the mean of the processes' means would not be its.
    """
    size = world_size()
    if len(indices) % size:
        raise PlanError(
            f"a batch of {len(indices)} images does not divide by {size} processes; choose one "
            "that does"
        )
    return indices[rank() :: size]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average the gradients that are there; all processes have run the same path."""
    if world_size() > 1:
        _average([p.grad for p in parameters if p.grad is not None])


def average_statistics(module: nn.Module) -> None:
    """Make the running statistics of batch norm the same everywhere."""
    if world_size() > 1:
        _average([b for b in module.buffers() if b.is_floating_point()])


def mean(value: float) -> float:
    """Return the mean of a number over the processes."""
    if world_size() == 1:
        return value
    found = torch.tensor([value], dtype=torch.float64, device=_device())
    _average([found])
    return found.item()


def decided_by_first(flag: bool) -> bool:
    """Return what the first process says: clocks differ, and all must do the same."""
    if world_size() == 1:
        return flag
    found = torch.tensor([float(flag)], device=_device())
    dist.broadcast(found, src=0)
    return bool(found.item())


def wait() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def _average(tensors: list[Tensor]) -> None:
    # One message for each type of number: most gradients are small.
    for dtype in sorted({t.dtype for t in tensors}, key=str):
        same = [t for t in tensors if t.dtype == dtype]
        flat = torch.cat([t.reshape(-1) for t in same]).to(_device())
        dist.all_reduce(flat)
        flat /= world_size()
        start = 0
        for tensor in same:
            tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
            start += tensor.numel()


def _device() -> torch.device:
    """Return where messages must lie."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
