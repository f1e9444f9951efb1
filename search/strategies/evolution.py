"""Regularised evolution: the oldest dies, not the worst.

Real et al., AAAI 2019, algorithm 1: a queue of ``population`` networks; each step draws
``sample`` of them at random, mutates the best of these, and the child replaces the oldest. As
every network has to be found anew by its descendants, one lucky score does not last.

The algorithm has one goal. Here a step draws the goal as well: in each tournament a price of
time λ, uniform over the angle between "only accuracy" and "only latency" on goals scaled to the
range of those that meet, and the winner is the best of accuracy − λ · latency (random
scalarisation, as in ParEGO, Knowles 2006), so that one population covers the front. With a
target, as in the paper: the most accurate wins, and networks beyond the ceiling lose to all
others, least violation first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import PlanError
from hwprof.search.strategies.members import Member
from hwprof.search.strategies.proposer import Generations
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray


BROOD = 8
"""Children that share one population, so that several networks can be judged at a time."""


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """Networks alive at a time, and how many of them meet in a tournament."""

    population: int = 50
    sample: int = 10

    def __post_init__(self) -> None:
        if self.population < 2:
            raise PlanError(f"population is {self.population}; expected at least 2")
        if not 1 <= self.sample <= self.population:
            raise PlanError(
                f"sample is {self.sample}; expected 1 to the population, {self.population}"
            )


class Evolution(Generations):
    """The queue of living networks, oldest first, renewed by :data:`BROOD` at a time."""

    name = "evolution"
    keys = ("alive", "brood")

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        *,
        target_s: float | None = None,
        settings: EvolutionSettings | None = None,
    ) -> None:
        self._settings = settings or EvolutionSettings()
        super().__init__(
            space, rng, asdict(self._settings), size=BROOD, fewest=self._settings.population
        )
        self._target_s = target_s

    def _breed(self) -> Architecture:
        return self._space.mutate(self._winner(), self._rng)

    def _survivors(self, members: Sequence[Member]) -> list[Member]:
        """Let the oldest die."""
        return list(members[-self._settings.population :])

    def _winner(self) -> Architecture:
        drawn = self._rng.choice(len(self._population), size=self._settings.sample, replace=False)
        angle = float(self._rng.random()) * np.pi / 2.0
        entrants = [self._population[i] for i in np.sort(drawn).tolist()]
        return tournament(entrants, angle if self._target_s is None else 0.0, self._target_s)


def tournament(
    entrants: Sequence[Member], angle: float, target_s: float | None = None
) -> Architecture:
    """Return the best entrant.

    Args:
        entrants: networks that meet; those without an accuracy lose to all that have one.
        angle: 0 looks at accuracy alone, π/2 at latency alone.
        target_s: ceiling on latency.
    """
    judged = [m for m in entrants if m.accuracy_pct is not None and not m.excess_s(target_s)]
    if not judged:
        return min(entrants, key=lambda m: (m.excess_s(target_s), m.latency_s)).arch
    latency = _scaled([m.latency_s for m in judged])
    accuracy = _scaled([float(m.accuracy_pct or 0.0) for m in judged])
    values = np.cos(angle) * accuracy - np.sin(angle) * latency
    return judged[int(np.argmax(values))].arch


def _scaled(values: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=float)
    span = float(np.ptp(found))
    return np.asarray((found - found.min()) / (span if span > 0.0 else 1.0))
