"""Best accuracy at every latency of an additive model, and what a smaller space loses of it.

With additive effects the best network at a price of m points a second maximises, unit by unit
and over depth, Σ max_b (β^A − m β^L) + δ^A − m δ^L: a closed form. Sweeping m gives the concave
front. While the fastest network stays, the largest gap between two fronts over latency equals
the largest gap between their maxima over prices (conjugates of concave functions), so losses
are taken over prices. Where the fastest network goes, prices at which the full space would take
one that is faster than any left are not compared: the loss there is time, told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix, Term
from hwprof.space import Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_PRICES = 96
"""Prices swept over six decades around the space's own rate, 15 % apart, and price zero."""


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """What is left of a space: blocks of every slot, and the maximum depth of every unit."""

    alive: Mapping[Slot, tuple[str, ...]]
    max_depth: tuple[int, ...]

    def within_depths(self) -> dict[Slot, tuple[str, ...]]:
        """Return ``alive`` without the slots that no network reaches any more."""
        return {s: b for s, b in self.alive.items() if s.layer < self.max_depth[s.unit]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Support:
    """The best network at every price.

    ``value`` is ``float64[draws, prices]``, its accuracy minus price times latency (points);
    ``latency_s`` of the same shape; ``fastest_s`` the latency of the fastest network. All are
    relative to one constant.
    """

    value: Floats
    latency_s: Floats
    fastest_s: float

    def __add__(self, other: Support) -> Support:
        """Return the support of independent decisions together."""
        return Support(
            value=self.value + other.value,
            latency_s=self.latency_s + other.latency_s,
            fastest_s=self.fastest_s + other.fastest_s,
        )


class PriceSweep:
    """Supports of a space's reductions, for one vector of latencies and many of accuracies.

    Args:
        design: gives the terms their places.
        latency_s: ``float64[n_terms]`` effects on latency.
        accuracy_pp: ``float64[draws, n_terms]`` effects on accuracy, one row a possible truth.
    """

    def __init__(self, design: DesignMatrix, latency_s: Floats, accuracy_pp: Floats) -> None:
        self._design = design
        self._latency = latency_s
        self._accuracy = accuracy_pp
        self._units: dict[object, Support] = {}
        own = [i for i, t in enumerate(design.terms) if t.kind != "network"]
        spread = float(np.ptp(latency_s[own]))
        rate = float(np.ptp(accuracy_pp[:, own])) / spread if spread > 0.0 else 1.0
        steps = np.logspace(-3.0, 3.0, N_PRICES) if rate > 0.0 else np.empty(0)
        self._prices = np.concatenate([[0.0], rate * steps])

    def support(self, left: Alternatives) -> Support:
        """Return the support of all networks of ``left``."""
        units = range(len(left.max_depth))
        total = self._nothing()
        for unit in units:
            total = total + self._unit(unit, left)
        for factor in self._design.space.factors:
            names = [f"{factor.name}={level}" for level in factor.levels]
            total = total + self._best([Term(kind="factor", block=name) for name in names])
        return total

    def loss(
        self, full: Support, reduced: Support, within_s: tuple[float, float] | None = None
    ) -> Floats:
        """Return ``float64[draws]``, the most accuracy lost at any latency, in points.

        Prices at which the full space takes a network faster than any that is left are left out.

        Args:
            full: support of the whole space.
            reduced: support of what is left.
            within_s: count only prices at which the full space takes a network of these
                latencies, relative as supports are; where there is none, the price that comes
                closest.
        """
        slack = 1e-12 * max(abs(reduced.fastest_s), 1e-12)
        comparable = full.latency_s >= reduced.fastest_s - slack
        if within_s is not None:
            low, high = within_s
            outside = np.maximum(low - full.latency_s, full.latency_s - high).clip(min=0.0)
            comparable &= outside <= outside.min(axis=1, keepdims=True)
        gap = np.where(comparable, full.value - reduced.value, 0.0)
        most: Floats = gap.max(axis=1).clip(min=0.0)
        return most

    def _unit(self, unit: int, left: Alternatives) -> Support:
        depths = [d for d in self._design.space.depths(unit) if d <= left.max_depth[unit]]
        layers = tuple(left.alive[Slot(unit, layer)] for layer in range(depths[-1]))
        key = (unit, layers)
        if key not in self._units:
            self._units[key] = self._unit_support(unit, depths, layers)
        return self._units[key]

    def _unit_support(
        self, unit: int, depths: list[int], layers: tuple[tuple[str, ...], ...]
    ) -> Support:
        chain, options = self._nothing(), []
        for layer, blocks in enumerate(layers):
            chain = chain + self._best(
                [Term(kind="block", unit=unit, layer=layer, block=block) for block in blocks]
            )
            depth = Term(kind="depth", unit=unit, depth=layer + 1)
            if depth in self._design.index:
                chain = chain + self._best([depth])
            if layer + 1 in depths:
                options.append(chain)
        value = np.stack([o.value for o in options], axis=-1)
        latency = np.stack([o.latency_s for o in options], axis=-1)
        return _choose(value, latency, min(o.fastest_s for o in options))

    def _best(self, terms: list[Term]) -> Support:
        at = [self._design.index[term] for term in terms]
        latency = self._latency[at]
        value = self._accuracy[:, None, at] - self._prices[:, None] * latency
        return _choose(value, np.broadcast_to(latency, value.shape), float(latency.min()))

    def _nothing(self) -> Support:
        empty = np.zeros((len(self._accuracy), len(self._prices)))
        return Support(value=empty, latency_s=empty, fastest_s=0.0)


def _choose(value: Floats, latency: Floats, fastest_s: float) -> Support:
    """Return the best of the last axis."""
    best = value.argmax(axis=-1)[..., None]
    return Support(
        value=np.take_along_axis(value, best, axis=-1)[..., 0],
        latency_s=np.take_along_axis(latency, best, axis=-1)[..., 0],
        fastest_s=fastest_s,
    )
