"""A toy space, and latency models whose entries a test knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hwprof.search.proxyless.choices import Choices
from hwprof.space import SKIP, Architecture, DesignSpace, Slot, get_space

SKEWED = (0.70, 0.20, 0.10)
EDGES = (Slot(0, 1), Slot(0, 2), Slot(0, 3))
BLOCKS = ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3", SKIP)


def toy_space() -> DesignSpace:
    """Three edges with four options each, skip among them; everything else is fixed."""
    whole = get_space("proxylessnas", 32)
    return whole.restrict({s: BLOCKS if s in EDGES else ("mbconv_k3_e3",) for s in whole.slots})


class AdditiveTable:
    """An additive latency model with known entries.

    ``beside_s`` is what whole networks take beyond their sum.
    """

    def __init__(
        self,
        space: DesignSpace,
        table_s: Mapping[tuple[Slot, str], float],
        *,
        constant_s: float,
        beside_s: float = 0.0,
    ) -> None:
        self.space = space
        self._constant_s, self._beside_s = constant_s, beside_s
        self._table = dict(table_s)

    def table(self) -> dict[tuple[Slot, str], float]:
        return dict(self._table)

    def expected_s(
        self,
        probabilities: Mapping[Slot, Any],
        *,
        depths: Mapping[int, Any] | None = None,
        factors: Mapping[str, Any] | None = None,
    ) -> Any:
        total: Any = self._constant_s
        for slot in self.space.slots:
            lengths = self.space.depths(slot.unit)
            given = (depths or {}).get(slot.unit, [1.0])
            reach: Any = sum(p for d, p in zip(lengths, given, strict=True) if d > slot.layer)
            for block, p in zip(self.space.choices(slot), probabilities[slot], strict=True):
                total = total + reach * p * self._table[slot, block]
        return total

    def predict_many(self, archs: Sequence[Architecture]) -> tuple[Any, Any]:
        found = [
            self._constant_s
            + self._beside_s
            + sum(
                self._table[Slot(u, layer), block]
                for u, blocks in enumerate(arch.units)
                for layer, block in enumerate(blocks)
            )
            for arch in archs
        ]
        return np.array(found), np.zeros(len(found))


class PlantedTable(AdditiveTable):
    """The same entry for a block wherever it stands; blocks without one are left out."""

    def __init__(
        self, space: DesignSpace, costs: Mapping[str, float], constant_s: float = 0.01
    ) -> None:
        table = {
            (slot, block): costs[block]
            for slot in space.slots
            for block in space.choices(slot)
            if block in costs
        }
        super().__init__(space, table, constant_s=constant_s)


COSTS = {"mbconv_k3_e3": 0.001, "mbconv_k5_e3": 0.003, "mbconv_k7_e3": 0.006, SKIP: 0.0}


def set_probabilities(choices: Choices, p: np.ndarray) -> None:
    with torch.no_grad():
        for alpha in choices.alpha.values():
            alpha.copy_(torch.from_numpy(np.log(p)))


def skewed_choices() -> Choices:
    """Three options on every edge, with the probabilities of the specification's example."""
    three = ("mbconv_k3_e3", "mbconv_k5_e3", SKIP)
    choices = Choices(toy_space().restrict(dict.fromkeys(EDGES, three)), seed=0)
    set_probabilities(choices, np.array(SKEWED))
    return choices
