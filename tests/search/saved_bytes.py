"""How much memory a step's activations take, counted exactly and on any device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


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
