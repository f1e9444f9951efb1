"""What the reducer's rules ask of the effects: contrasts between blocks, with bounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix, Term, depth_probability
from hwprof.estimate.least_squares import t_quantile
from hwprof.estimate.responses import Friendliness, Response
from hwprof.interval import Interval
from hwprof.search.reducing.additive_front import Alternatives, PriceSweep
from hwprof.space import SKIP, DesignSpace, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MEAN_OVER_HEADROOM = 2.0
"""Mean latency over (mean − fastest), where a table lacks the mean: the fastest network of a
space takes about half the mean (Note10 table of OFA-MobileNetV3: 17.8 of 41.8 ms, so 1.74)."""


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A contrast with its standard error and one-sided 95 % bounds."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The effects of one space on one device, ready to be compared."""

    space: DesignSpace
    friendliness: Friendliness
    target_s: tuple[float, float] | None = None
    """Latencies of the networks that are wanted; all where None."""

    @property
    def design(self) -> DesignMatrix:
        """The places of the terms."""
        return self.friendliness.design

    @property
    def latency(self) -> Response:
        """Effects on latency, seconds."""
        return self.friendliness.latency

    @property
    def accuracy(self) -> Response | None:
        """Effects on accuracy, percentage points; None where unknown."""
        return self.friendliness.accuracy

    @cached_property
    def whole(self) -> Alternatives:
        """The space before any cut."""
        alive = {slot: self.space.choices(slot) for slot in self.space.slots}
        return Alternatives(alive=alive, max_depth=self.space.max_depth)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Every block that computes something; skip is depth in disguise and no rule's matter."""
        return tuple(
            str(t.block) for t in self.design.terms if t.kind == "network" and t.block != SKIP
        )

    @cached_property
    def mean_latency_s(self) -> float:
        """Mean latency of random networks: measured, or guessed from the fastest."""
        mean = self.friendliness.mean_latency
        if mean is not None:
            return mean.value
        fastest_s = self._least_sum_s(self.latency.values, self.whole)
        return MEAN_OVER_HEADROOM * (self._mean_sum_s - fastest_s)

    @cached_property
    def offset_s(self) -> float:
        """What is added to a sum of effects (a support's latency) for a network's latency."""
        return self.mean_latency_s - self._mean_sum_s

    def fastest_s(self, left: Alternatives) -> float:
        """Return the latency of the fastest network that is left."""
        return self.offset_s + self._least_sum_s(self.latency.values, left)

    def slowest_s(self, left: Alternatives) -> float:
        """Return the latency of the slowest network that is left."""
        return self.offset_s - self._least_sum_s(-self.latency.values, left)

    @cached_property
    def _mean_sum_s(self) -> float:
        """Mean over random networks of the sum of effects: of depths alone, as blocks are centred."""
        return sum(
            depth_probability(self.space, t.unit, t.depth) * float(self.latency.values[i])
            for i, t in enumerate(self.design.terms)
            if t.kind == "depth" and t.unit is not None and t.depth is not None
        )

    def _least_sum_s(self, effects_s: Floats, left: Alternatives) -> float:
        """Return the least sum of effects that a network of ``left`` has."""
        nothing = np.zeros((1, len(self.design.terms)))
        return PriceSweep(self.design, effects_s, nothing).support(left).fastest_s

    @cached_property
    def n_active_slots(self) -> float:
        """Expected number of layers of a random network, Σ P(d_u ≥ l)."""
        return sum(self.reach(slot) for slot in self.space.slots)

    def reach(self, slot: Slot) -> float:
        """Return P(d_u ≥ l), the share of random networks in which the slot is active."""
        return depth_probability(self.space, slot.unit, slot.layer + 1)

    def slots_of(self, block: str) -> tuple[Slot, ...]:
        """Return the slots where ``block`` is a candidate."""
        return tuple(s for s in self.space.slots if block in self.space.choices(s))

    def place(self, slot: Slot, block: str) -> int:
        """Return the position of a slot's block among the terms."""
        return self.design.index[Term(kind="block", unit=slot.unit, layer=slot.layer, block=block)]

    def here(self, slot: Slot, block: str, other: str) -> Floats:
        """Return the contrast β_block − β_other at ``slot``."""
        weights = np.zeros(len(self.design.terms))
        weights[self.place(slot, block)] += 1.0
        weights[self.place(slot, other)] -= 1.0
        return weights

    def everywhere(self, block: str, other: str) -> Floats | None:
        """Return the contrast W_block − W_other; None where they share no slot.

        Blocks that are not candidates of the same slots are compared on those they share.
        """
        ours, theirs = self.slots_of(block), self.slots_of(other)
        weights = np.zeros(len(self.design.terms))
        if ours == theirs:
            weights[self.design.index[Term(kind="network", block=block)]] += 1.0
            weights[self.design.index[Term(kind="network", block=other)]] -= 1.0
            return weights
        shared = [slot for slot in ours if slot in theirs]
        for slot in shared:
            weights += self.reach(slot) * self.here(slot, block, other)
        return weights if shared else None

    def bounded(self, response: Response, weights: Floats) -> Bounded:
        """Return a contrast with its one-sided 95 % bounds, from the full covariance."""
        value, sd = response.contrast(weights)
        z = t_quantile(0.95, response.degrees)
        return Bounded(value=value, lower=value - z * sd, upper=value + z * sd)

    def net(self, weights: Floats, rate: float) -> Bounded:
        """Return accuracy less latency at ``rate`` points a second, with one-sided bounds.

        The two fits share networks but not noise, so their errors are taken as independent.
        """
        if self.accuracy is None:
            raise ValueError("net worth needs accuracy effects")
        points, points_sd = self.accuracy.contrast(weights)
        seconds, seconds_sd = self.latency.contrast(weights)
        sd = float(np.hypot(points_sd, rate * seconds_sd))
        z = t_quantile(0.95, min(self.accuracy.degrees, self.latency.degrees))
        value = points - rate * seconds
        return Bounded(value=value, lower=value - z * sd, upper=value + z * sd)

    @cached_property
    def last_layers(self) -> dict[int, Floats]:
        """Per unit, the contrast of having its last optional layer against not having it.

        The deepest depth effect; in a space with skip, the average block against skip.
        """
        found: dict[int, Floats] = {}
        for unit in range(self.space.n_units):
            weights = np.zeros(len(self.design.terms))
            deepest = Term(kind="depth", unit=unit, depth=self.space.max_depth[unit])
            skips = [s for s in self.slots_of(SKIP) if s.unit == unit]
            if deepest in self.design.index:
                weights[self.design.index[deepest]] = 1.0
            elif skips:
                for slot in skips:
                    others = [b for b in self.space.choices(slot) if b != SKIP]
                    for block in others:
                        weights += self.here(slot, block, SKIP) / (len(others) * len(skips))
            else:
                continue
            found[unit] = weights
        return found

    @cached_property
    def rate(self) -> float:
        """Points a second: the worst rate at which depth buys accuracy, λ = min_u a_u / l_u.

        Units whose layer costs no time set no price; a layer that loses accuracy makes it 0,
        and so does a space without optional layers (then only dominated blocks go).
        """
        if self.accuracy is None:
            return 0.0
        rates = []
        for weights in self.last_layers.values():
            points, _ = self.accuracy.contrast(weights)
            seconds, _ = self.latency.contrast(weights)
            if seconds > 0.0:
                rates.append(points / seconds)
        return max(0.0, min(rates, default=0.0))

    def intervals(self, weights: Floats) -> tuple[Interval, Interval | None]:
        """Return the two-sided 95 % intervals that stand beside a drop."""
        accuracy = self.accuracy.interval(weights) if self.accuracy else None
        return self.latency.interval(weights), accuracy
