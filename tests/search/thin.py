"""A thin OFA-ResNet-50 whose every tensor matters, and whether two of it are the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from hwprof.search.supernets.elastic import supernet_of
from hwprof.search.supernets.gates import norms_of
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import DesignSpace

THIN = ((24, 32, 40), (40, 48, 64), (48, 64, 80), (64, 80, 96))
"""Widths of the units, so that tests take seconds; everything else is as published."""
IMAGES = torch.from_numpy(
    np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
)


def shaken(space: DesignSpace, dtype: torch.dtype = torch.float32) -> Supernet:
    """A supernet whose every tensor matters: no branch at zero, statistics of its own."""
    net = supernet_of(space, seed=0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            parameter.add_(noise, alpha=0.1)
        for norm in norms_of([net]):
            for buffer in (norm.running_mean, norm.running_var):
                assert buffer is not None
                buffer.add_(torch.rand(buffer.shape, generator=generator, dtype=dtype))
    return net


def state_of(net: Supernet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same_state(net: Supernet, before: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
