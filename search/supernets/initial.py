"""Weights that training starts from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from hwprof.space.pieces import BottleneckPiece, MBConvPiece

Branched = MBConvPiece | BottleneckPiece
"""Blocks of a branch and, where the shape stays, the identity beside it."""

CENTRE_PX = 1.0
"""Width of the bell under which depthwise kernels of a supernet are drawn."""


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew: normal with variance 2 / fan-in (He et al., ICCV 2015).

    The classifier has variance 1 / fan-in; norms start as the identity, biases at 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            deviation = sqrt(2.0 / part.weight[0].numel())
            nn.init.normal_(part.weight, 0.0, deviation, generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, sqrt(1.0 / part.in_features), generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and part.bias is not None:
            nn.init.zeros_(part.bias)


def start_alike(
    candidates: Sequence[tuple[Branched, nn.Module]], generator: torch.Generator
) -> None:
    """Let the candidates of a slot start as nearly the same function.

    A path through a fresh supernet meets other candidates at every step. Where they were drawn
    apart, each layer sees another code in every step and hundreds of steps pass before anything
    is learnt. So the smaller candidates start as parts of one draw for the largest, the leading
    channels and the middle of the kernel, as once-for-all (Cai et al., ICLR 2020) shares them
    throughout; and a branch beside a shortcut starts at zero (Goyal et al., 2017), so that every
    depth starts as the same function too.
    """
    alike: defaultdict[str, list[nn.Conv2d]] = defaultdict(list)
    for piece, module in candidates:
        for name, part in module.named_modules():
            if isinstance(part, nn.Conv2d):
                alike[name].append(part)
        if isinstance(piece, MBConvPiece):
            is_beside, last = piece.shortcut, "project"
        else:
            is_beside, last = not piece.downsample, "expand"
        if is_beside:
            norm = module.get_submodule(f"{piece.kind}.{last}.norm")
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.zeros_(norm.weight)
    for convolutions in alike.values():
        _share_draw(convolutions, generator)


def _share_draw(convolutions: Sequence[nn.Conv2d], generator: torch.Generator) -> None:
    shapes = [c.weight.shape for c in convolutions]
    draw = torch.randn([max(sizes) for sizes in zip(*shapes, strict=True)], generator=generator)
    with torch.no_grad():
        for convolution in convolutions:
            outputs, inputs, kernel, _ = convolution.weight.shape
            start = (draw.shape[2] - kernel) // 2
            middle = slice(start, start + kernel)
            # Most of the weight lies in the middle, which kernels of every size have.
            weight = draw[:outputs, :inputs, middle, middle] * _bell(kernel)
            deviation = sqrt(2.0 / weight[0].numel())
            convolution.weight.copy_(weight * (deviation / weight.square().mean().sqrt()))


def _bell(side: int) -> Tensor:
    offset = torch.arange(side) - (side - 1) / 2
    return torch.exp(-(offset[:, None] ** 2 + offset**2) / (2.0 * CENTRE_PX**2))
