"""Memory: what a step's activations take, counted exactly, and files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from hwprof.errors import DataError

NO_MEMORY = "can't allocate memory"
"""In what torch raises, a RuntimeError, where the host gives no more."""


def refuse_too_large(path: str | Path, error: Exception) -> None:
    """Tell a file that does not fit into memory from one that is damaged.

    Args:
        path: the file.
        error: what reading it raised.

    Raises:
        DataError: it was the memory; the file may be sound.
    """
    if isinstance(error, MemoryError) or NO_MEMORY in str(error):
        raise DataError(
            f"cannot read the checkpoint {str(path)!r}: it does not fit into the memory that is "
            "free; end what else runs, and call again"
        ) from error


def saved_bytes(module: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Return the bytes that autograd keeps for the backward pass of ``forward``.

    Every storage counts once, however many operators keep it; parameters of ``module`` do not
    count.
    """
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()
    # Kept alive until here: a freed storage's address may be given out again.
    del output
    return sum(kept.values())
