"""Mixed precision: the type that a forward pass computes in, and gradients too small for it.

``bf16`` has the range of float32, and needs nothing more. ``fp16`` has not: gradients below 6e-8
vanish. So the loss is scaled before the backward pass and gradients are scaled back before they are
used; where they overflow the step is left out and the scale halved (Micikevicius et al., ICLR 2018;
``torch.amp.GradScaler``). Weights, their gradients and what the optimiser keeps stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

from hwprof.errors import DeviceUnavailableError

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
DTYPES: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 1.0
"""Gradients that overflow even at this scale are not the scale's fault."""


def autocast(device: str, precision: Precision) -> torch.autocast:
    """Return the context of a forward pass."""
    dtype = DTYPES.get(precision, torch.bfloat16)
    return torch.autocast(torch.device(device).type, dtype, enabled=precision in DTYPES)


def scaler(device: str, precision: Precision) -> GradScaler:
    """Return what scales losses on ``device``; it does nothing unless the precision is fp16."""
    return GradScaler(torch.device(device).type, enabled=precision == "fp16")


def require_precision(device: str, precision: Precision) -> None:
    """Check that torch computes in fp16 on ``device``, forwards and backwards.

    Raises:
        DeviceUnavailableError: it does not; has torch's reason.
    """
    if precision != "fp16":
        return
    try:
        _try_layers(device, precision)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DeviceUnavailableError(
            f"cannot train in fp16 on {device!r}: torch says {reason!r}; train in bf16 "
            "(--train-precision bf16), or on a GPU"
        ) from error


def _try_layers(device: str, precision: Precision) -> None:
    """Run what networks are made of on a few numbers."""
    x = torch.ones(2, 2, 4, 4, device=device, requires_grad=True)
    weight = torch.ones(2, 1, 3, 3, device=device, requires_grad=True)
    norm = nn.BatchNorm2d(2).to(device)
    with autocast(device, precision):
        y = norm(functional.conv2d(x, weight, padding=1, groups=2))
        y = functional.hardswish(y) * functional.hardsigmoid(y.mean(dim=(2, 3), keepdim=True))
        y = functional.max_pool2d(functional.avg_pool2d(y, 2), 2).flatten(1)
        y = functional.linear(y, weight.flatten(1)[:, :2])
    y.float().sum().backward()  # type: ignore[no-untyped-call]
