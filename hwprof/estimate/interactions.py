"""Interaction terms of a latency model, taken only where they predict unseen networks better.

A family of terms is a few fixed functions of a network, so the model stays linear and its
intervals stay what they are. Which family, if any, is decided by ten-fold cross-validation: the
one with the least held-out error, and only where its gain is over two standard errors of the
paired differences. In-sample fit decides nothing. What the model then says of held-out networks is
said by the folds that chose, which flatters a little; networks measured afterwards do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.estimate.crossval import HeldOut
from hwprof.estimate.design_matrix import DesignMatrix, depth_probability
from hwprof.estimate.pair_terms import PairTerms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]


PAIRS = "block x block"
UNUSED = "unused blocks not run"
"""No family of terms, but judged like one: rows without the blocks that nothing uses."""
MEAN_NETWORKS = 1000
"""Random networks over which a term's mean is taken."""
PAYS = 2.0
"""Standard errors that a gain must exceed: by chance 2 % for a family that adds nothing."""


@dataclass(frozen=True, kw_only=True)
class InteractionTest:
    """What cross-validation says of one family.

    ``gain`` is by how much it lowers the mean squared held-out error, as a share of the additive
    model's; ``gain_se`` its standard error over networks.
    """

    family: str
    n_terms: int
    gain: float
    gain_se: float
    taken: bool

    def to_json(self) -> dict[str, Any]:
        """Return the test as plain data."""
        return asdict(self)


class Interactions:
    """The families of a space, as columns of a regression.

    ``depth x depth``: products of the depths of neighbouring units. ``depth squared``: the whole
    depth, squared. ``work squared``: the MACs of all blocks, squared. ``work x work``: products of
    the MACs of neighbouring layers, summed. ``block x block``: a term for every pair of blocks
    that meet (:mod:`hwprof.estimate.pair_terms`), many, so they are shrunk. Depths and MACs are
    taken from their means over random networks, MACs as shares of the mean; of every term its mean
    over random networks is taken away, so that the first coefficient stays the mean latency.
    """

    def __init__(self, design: DesignMatrix) -> None:
        self._design = design
        self._known_means: dict[str, Floats] = {}

    @property
    def families(self) -> tuple[str, ...]:
        """The families that this space can have."""
        found = []
        if len(self._varied_units) > 1:
            found.append("depth x depth")
        if self._varied_units:
            found.append("depth squared")
        return (*found, "work squared", "work x work", PAIRS)

    def columns(self, family: str, codes: Codes) -> Floats:
        """Return ``float64[n, n_terms]`` of a family for encoded networks."""
        return self._raw(family, codes) - self.means(family)

    def means(self, family: str) -> Floats:
        """Return the terms' means over random networks, always the same ones."""
        if family == "depth x depth":
            # Depths of different units are independent.
            return np.zeros(1)
        if family not in self._known_means:
            rng = np.random.default_rng(0)
            space = self._design.space
            codes = np.stack([space.encode(space.sample(rng)) for _ in range(MEAN_NETWORKS)])
            self._known_means[family] = self._raw(family, codes).mean(axis=0)
        return self._known_means[family]

    def _raw(self, family: str, codes: Codes) -> Floats:
        makers: Mapping[str, Callable[[Codes], Floats]] = {
            "depth x depth": self._depth_products,
            "depth squared": lambda c: self._depths(c).sum(axis=1, keepdims=True) ** 2,
            "work squared": lambda c: self._work(c).sum(axis=1, keepdims=True) ** 2,
            "work x work": self._work_products,
            PAIRS: self.pairs.columns,
        }
        return makers[family](codes)

    @cached_property
    def pairs(self) -> PairTerms:
        """The terms of ``block x block``."""
        return PairTerms(self._design)

    @cached_property
    def _varied_units(self) -> tuple[int, ...]:
        space = self._design.space
        return tuple(u for u in range(space.n_units) if len(space.depths(u)) > 1)

    def _depths(self, codes: Codes) -> Floats:
        """Return ``float64[n, units]``, depths less their means; only units where they vary."""
        space = self._design.space
        out = np.empty((len(codes), len(self._varied_units)))
        for column, unit in enumerate(self._varied_units):
            slots = [i for i, slot in enumerate(space.slots) if slot.unit == unit]
            out[:, column] = (codes[:, slots] >= 0).sum(axis=1) - np.mean(space.depths(unit))
        return out

    def _depth_products(self, codes: Codes) -> Floats:
        depths = self._depths(codes)
        return np.asarray(depths[:, :-1] * depths[:, 1:])

    def _work(self, codes: Codes) -> Floats:
        """Return ``float64[n, slots]``: every block's MACs less the slot's mean, of all slots' mean."""
        levels = self._work_levels
        return np.stack([levels[i][codes[:, i] + 1] for i in range(len(levels))], axis=1)

    def _work_products(self, codes: Codes) -> Floats:
        work = self._work(codes)
        return np.asarray((work[:, :-1] * work[:, 1:]).sum(axis=1, keepdims=True))

    @cached_property
    def _work_levels(self) -> tuple[Floats, ...]:
        """Return for every slot the centred MACs of an absent layer, then of every candidate."""
        from hwprof.graph import piece_cost

        space = self._design.space
        macs = space.block_totals(lambda piece: piece_cost(piece).macs)
        tables, total = [], 0.0
        for decision in self._design.decisions:
            if decision.slot is None:
                continue
            unit, layer = decision.slot
            given = np.array([macs.get((decision.slot, name), 0.0) for name in decision.names])
            reach = depth_probability(space, unit, layer + 1)
            mean = reach * float(given[decision.valid[1:]].mean())
            tables.append(np.array([0.0, *given]) - mean)
            total += mean
        return tuple(table / total if total > 0.0 else table for table in tables)


def judge(
    family: str, n_terms: int, plain: tuple[HeldOut, ...], extended: tuple[HeldOut, ...]
) -> InteractionTest:
    """Compare the held-out errors of a model with and without a family, network by network."""
    before = np.array([(h.predicted_s - h.actual_s) ** 2 for h in plain])
    after = np.array([(h.predicted_s - h.actual_s) ** 2 for h in extended])
    scale = float(before.mean())
    rounding_s = 1e-9 * float(np.mean([abs(h.actual_s) for h in plain])) if plain else 0.0
    if len(before) < 2 or not scale > rounding_s**2:
        return InteractionTest(family=family, n_terms=n_terms, gain=0.0, gain_se=0.0, taken=False)
    saved = (before - after) / scale
    gain, se = float(saved.mean()), float(saved.std(ddof=1) / np.sqrt(len(saved)))
    return InteractionTest(
        family=family, n_terms=n_terms, gain=gain, gain_se=se, taken=gain > PAYS * se
    )


def choose(tests: list[InteractionTest]) -> tuple[InteractionTest, ...]:
    """Leave only the best of the families that pay marked as taken."""
    paying = [t for t in tests if t.taken]
    best = max(paying, key=lambda t: t.gain, default=None)
    return tuple(replace(t, taken=t is best) for t in tests)
