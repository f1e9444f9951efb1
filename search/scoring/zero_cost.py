"""What an untrained network says about itself: without labels, and no accuracy.

κ and R are the indicators of TE-NAS (Chen et al., "Neural Architecture Search on ImageNet in Four
GPU Hours", ICLR 2021, and its code, VITA-Group/TENAS). The other two are proxies by which single
networks are ranked: the overlap of activation patterns (Mellor et al., "Neural Architecture Search
without Training", ICML 2021) and synaptic flow (Tanaka et al., NeurIPS 2020, as Abdelfattah et al.,
"Zero-Cost Proxies for Lightweight NAS", ICLR 2021, score whole networks with it).
"""

from __future__ import annotations

import copy
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
UNITS = RELUS | {functional.relu6, functional.hardswish}
"""Activations that are positive exactly where what goes in is."""


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
    signs, _ = _signs(network, images, RELUS)
    if not signs:
        return 1
    patterns = torch.cat(signs, dim=1).cpu().numpy()
    return len(np.unique(np.packbits(patterns, axis=1), axis=0))


def pattern_overlap(network: nn.Module, images: Tensor) -> float:
    """Return log det K, K[i, j] the activations on which images i and j agree: higher is better.

    Two images agree on a unit if it is positive for both or for neither; where images hardly ever
    differ K is singular. Beyond the paper's ReLU every activation of a unit counts that is positive
    where its input is (relu6, hard swish). Batch norm takes its statistics from ``images`` (in
    training mode).

    Args:
        network: any module.
        images: float [n, channels, side, side].

    Returns:
        The logarithm of the determinant; minus infinity where K is singular, or there is no
        activation. NaN where the network's outputs are not finite.
    """
    signs, outputs = _signs(network, images, UNITS)
    if not outputs.isfinite().all():
        return math.nan
    overlap = torch.zeros(len(images), len(images), dtype=torch.float64)
    for positive in signs:
        # Agreements less disagreements are the products of signs; whole numbers, exact up to 2^24.
        sign = positive.float() * 2.0 - 1.0
        overlap += (positive.shape[1] + (sign @ sign.T).double()) / 2.0
    sign_of, logarithm = torch.linalg.slogdet(overlap)
    return logarithm.item() if sign_of.item() > 0.0 else -math.inf


def synaptic_flow(network: nn.Module, image_shape: Sequence[int]) -> float:
    """Return the logarithm of what flows through a network's weights: higher is better.

    With all parameters at their magnitude and ones for an image, R is the sum of outputs, and the
    flow the sum of w · ∂R/∂w over the weights of convolutions and linear layers. Batch norms are
    left out, as Abdelfattah et al. do; activations let everything positive through, and gates of a
    squeeze-and-excitation stand open: under sums of magnitudes every ceiling (relu6, hard sigmoid)
    would be reached at once and nothing flow at all.

    Args:
        network: any module; it is left as it is.
        image_shape: (channels, side, side).

    Returns:
        The logarithm; minus infinity where nothing flows from inputs to outputs, NaN where more
        does than a float holds.
    """
    positive = copy.deepcopy(network).double().eval()
    for part in positive.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
            part.eps = 0.0
    weights = [
        part.weight for part in positive.modules() if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    ones = torch.ones(1, *image_shape, dtype=torch.float64)
    with _Intercepted(_without_ceiling):
        total = positive(ones).sum()
    gradients = torch.autograd.grad(total, weights, materialize_grads=True)
    flow = sum((w * g).sum().item() for w, g in zip(weights, gradients, strict=True))
    if not math.isfinite(flow):
        return math.nan
    return math.log(flow) if flow > 0.0 else -math.inf


Call = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


class _Intercepted(TorchFunctionMode):
    """Makes every call of a torch function by ``call``, which gets function and arguments."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.call(func, args, kwargs or {})


def _signs(
    network: nn.Module, images: Tensor, functions: frozenset[Callable[..., Any]]
) -> tuple[list[Tensor], Tensor]:
    """Run a network in training mode.

    Returns:
        Where the outputs of ``functions`` are positive, bool [n, units] for each call; and the
        network's outputs.
    """
    found = []

    def keep(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if func in functions:
            found.append((output > 0).flatten(1))
        return output

    network.train()
    with torch.no_grad(), _Intercepted(keep):
        outputs: Tensor = network(images)
    return found, outputs


def _without_ceiling(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Call a function of a network in which everything is positive, as if nothing were cut off."""
    if func in UNITS:
        return args[0]
    if func is functional.hardsigmoid:
        return torch.ones_like(args[0])
    return func(*args, **kwargs)
