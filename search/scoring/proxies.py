"""``proxy:NAME``: networks ranked without training, as percentiles of their space.

What a proxy gives has no unit and is no accuracy; it can only rank. So that it can stand where
accuracies do, a network gets the percentile of its score among random networks of its space at its
resolution, as if those were normal: 100 Φ((s - m) / d), with their median m and d 1.4826 times the
median distance from it. So a median network has 50, and a higher score a higher percentile, beyond
the best of those networks too.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError, MissingExtraError
from hwprof.graph import architecture_cost, network_graph, to_torch
from hwprof.space import Architecture, DesignSpace, space_of
from hwprof.units import PERCENTILE_BY

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)

Score = Callable[[DesignSpace, Architecture], float]
"""Higher is better; minus infinity is the worst there is, NaN no score at all."""

N_REFERENCE = 100
"""Random networks among which percentiles are taken."""
N_IMAGES = 16
"""Of normal noise, on which activations are compared (Mellor et al. take 128 of the task)."""
SEED = 0
"""Of weights, images and reference networks: a proxy gives a network the same score always."""
STANDARD = NormalDist()
PER_MEDIAN_DISTANCE = 1.0 / STANDARD.inv_cdf(0.75)
"""Standard deviations of a normal distribution in its median distance from the median: 1.4826."""


class ProxyAccuracy:
    """Percentiles by a proxy, in place of accuracies."""

    def __init__(self, proxy: str) -> None:
        """Choose a proxy.

        Args:
            proxy: a name of :data:`PROXIES`.

        Raises:
            DataError: there is no such proxy.
            MissingExtraError: it needs torch, which is not installed.
        """
        if proxy not in PROXIES:
            raise DataError(f"there is no proxy {proxy!r}; expected one of {', '.join(PROXIES)}")
        if proxy in OF_WEIGHTS and find_spec("torch") is None:
            raise MissingExtraError("torch", "search", f"the proxy {proxy}")
        self.proxy = proxy
        self._scales: dict[tuple[str, int], tuple[float, float]] = {}

    @property
    def name(self) -> str:
        """How the source is shown."""
        return f"{PERCENTILE_BY}proxy:{self.proxy}"

    @property
    def digest(self) -> str:
        """Hash of all that scores depend on."""
        facts = f"proxy 1 {self.proxy} {N_REFERENCE} {N_IMAGES} {SEED}"
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return the percentile of each architecture among random networks; None without a score.

        Raises:
            DataError: the proxy tells most networks of a space nothing.
        """
        return [self._percentile(arch) for arch in archs]

    def _percentile(self, arch: Architecture) -> float | None:
        space = space_of(arch)
        key = (arch.space, arch.resolution_px)
        if key not in self._scales:
            self._scales[key] = self._scale(space)
        median, deviation = self._scales[key]
        score = PROXIES[self.proxy](space, arch)
        return None if math.isnan(score) else 100.0 * STANDARD.cdf((score - median) / deviation)

    def _scale(self, space: DesignSpace) -> tuple[float, float]:
        """Return the median score of random networks, and their deviation but for outliers."""
        log.warning(
            "proxy:%s gives no accuracies: what stands in their place are percentiles among %d "
            "random networks of %s",
            self.proxy,
            N_REFERENCE,
            space.name,
        )
        rng = np.random.default_rng(SEED)
        scores = [PROXIES[self.proxy](space, space.sample(rng)) for _ in range(N_REFERENCE)]
        # Of those that have a score.
        median = float(np.nanmedian(scores))
        distances = np.abs(np.subtract(scores, median))
        deviation = PER_MEDIAN_DISTANCE * float(np.nanmedian(distances))
        # NaN where most have minus infinity, and zero where most have the same.
        if not (math.isfinite(median) and deviation > 0.0):
            raise DataError(
                f"proxy:{self.proxy} gives most of {N_REFERENCE} random networks of {space.name} "
                f"one score or none; expected networks that it tells apart: take another of "
                f"{', '.join(PROXIES)}"
            )
        return median, deviation


def _naswot(space: DesignSpace, arch: Architecture) -> float:
    import torch

    from hwprof.search.scoring.zero_cost import pattern_overlap

    network, generator = _untrained(space, arch)
    side_px = arch.resolution_px
    images = torch.randn(N_IMAGES, 3, side_px, side_px, generator=generator)
    return pattern_overlap(network, images)


def _synflow(space: DesignSpace, arch: Architecture) -> float:
    from hwprof.search.scoring.zero_cost import synaptic_flow

    network, _ = _untrained(space, arch)
    return synaptic_flow(network, (3, arch.resolution_px, arch.resolution_px))


def _macs(space: DesignSpace, arch: Architecture) -> float:
    return math.log(architecture_cost(space, arch).macs)


def _params(space: DesignSpace, arch: Architecture) -> float:
    return math.log(architecture_cost(space, arch).params)


def _untrained(space: DesignSpace, arch: Architecture) -> tuple[nn.Module, torch.Generator]:
    """Return the network as it is initialised, and a generator for what else is random."""
    import torch

    from hwprof.search.supernets.initial import initialise

    network = to_torch(network_graph(space, arch))
    generator = torch.Generator().manual_seed(SEED)
    initialise(network, generator)
    return network, generator


OF_WEIGHTS: Mapping[str, Score] = {"naswot": _naswot, "synflow": _synflow}
"""Proxies that look at an untrained network, in torch."""
PROXIES: Mapping[str, Score] = {**OF_WEIGHTS, "macs": _macs, "params": _params}
"""Every proxy by name; the last two are what any other has to beat."""
