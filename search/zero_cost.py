"""Two things that an untrained network says about itself, as TE-NAS uses them.

Source: Chen et al., "Neural Architecture Search on ImageNet in Four GPU Hours", ICLR 2021, and
its code (VITA-Group/TENAS). Neither indicator sees a label, and neither is an accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

RELUS = frozenset(
    (functional.relu, functional.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
)
"""All ways in which a module asks for a ReLU; ``nn.ReLU`` calls the first or the second."""


def ntk_condition(network: nn.Module, images: Tensor) -> float:
    """Return the condition number κ of the neural tangent kernel: lower is easier to train.

    κ = λmax/λmin of Θ = JJᵀ. Row i of J is the gradient of the sum of image i's logits over all
    parameters with "weight" in their names: those of convolutions, linear layers and batch norms,
    no biases. Batch norm takes its statistics from ``images``, so it is left in training mode.

    Args:
        network: gives logits [n, classes]; weights as they are after initialising.
        images: float [n, 3, side, side], n at least 2.

    Returns:
        κ, at least 1; infinite where Θ is singular (to rounding) or not finite: of a network that
        does not tell the images apart, say.
    """
    network.train()
    weights = [p for name, p in network.named_parameters() if "weight" in name]
    rows = []
    for total in network(images).sum(dim=1):
        gradients = torch.autograd.grad(total, weights, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    # Squares of what is single precision: the product must not add to its rounding.
    jacobian = torch.stack(rows).double()
    kernel = jacobian @ jacobian.T
    if not kernel.isfinite().all():
        return math.inf
    eigenvalues = torch.linalg.eigvalsh(kernel)
    least, most = eigenvalues[0].item(), eigenvalues[-1].item()
    # Below this numpy.linalg.matrix_rank takes an eigenvalue for zero.
    is_singular = least <= most * len(rows) * torch.finfo(torch.float64).eps
    return math.inf if is_singular else most / least


def linear_regions(network: nn.Module, images: Tensor) -> int:
    """Return the number of linear regions R that ``images`` fall into: higher is more expressive.

    Two images lie in one region if every ReLU of the network is positive for both or for neither.
    R is at most the number of images: use many, of a few pixels, and a thin network, or all
    networks reach it. Batch norm takes its statistics from ``images`` (in training mode).

    Args:
        network: any module; without a ReLU it is one linear map, with one region.
        images: float [n, channels, side, side].
    """
    network.train()
    signs = _ReluSigns()
    with torch.no_grad(), signs:
        network(images)
    if not signs.found:
        return 1
    patterns = torch.cat(signs.found, dim=1).cpu().numpy()
    return len(np.unique(np.packbits(patterns, axis=1), axis=0))


class _ReluSigns(TorchFunctionMode):
    """Keeps where the outputs of every ReLU are positive: bool [n, units] for each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in RELUS:
            self.found.append((output > 0).flatten(1))
        return output
