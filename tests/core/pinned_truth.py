"""Spaces, pins and additive truths that the tests of the pinned design share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.pinning import Pin, pins_of
from hwprof.space import DesignSpace, Slot, get_space


@lru_cache
def design_of(name: str) -> DesignMatrix:
    return DesignMatrix(get_space(name))


def tiny_space() -> DesignSpace:
    """Two depths in unit 0, two candidates a slot."""
    two = ("mbconv_k3_e3", "mbconv_k7_e6")
    alive = {Slot(0, 0): two, Slot(0, 1): two, Slot(1, 0): two, Slot(2, 0): two}
    return get_space("mobile-mini").restrict(alive, (2, 1, 1))


def pin_at(design: DesignMatrix, unit: int, layer: int, block: int = 0) -> Pin:
    here = [p for p in pins_of(design) if p.slot == Slot(unit, layer)]
    return here[block]


def additive(design: DesignMatrix, seed: int = 0) -> np.ndarray:
    coefficients = np.random.default_rng(seed).normal(0.0, 1e-3, design.n_coefficients)
    coefficients[0] = 0.04
    return coefficients
