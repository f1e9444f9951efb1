"""Regularised evolution: the oldest dies, not the worst.

Real et al., AAAI 2019, algorithm 1: a queue of ``population`` networks; each step draws
``sample`` of them at random, mutates the best of these, and the child replaces the oldest. As
every network has to be found anew by its descendants, one lucky score does not last.

The algorithm has one goal. Here a step draws the goal as well: in each tournament a price of
time λ, uniform over the angle between "only accuracy" and "only latency" on goals scaled to the
range of the population, and the winner is the best of accuracy − λ · latency (random
scalarisation, as in ParEGO, Knowles 2006), so that one population covers the front. With a
target, as in the paper: the most accurate wins, and networks beyond the ceiling lose to all
others, least violation first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import PlanError
from hwprof.search.members import Member
from hwprof.search.strategy import Evaluate, NewNetworks, Outcome, Request
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


class Evolution:
    """The queue of living networks, renewed by :data:`BROOD` networks at a time."""

    name = "evolution"

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        *,
        target_s: float | None = None,
        settings: EvolutionSettings | None = None,
    ) -> None:
        self._space = space
        self._rng = rng
        self._target_s = target_s
        self._settings = settings or EvolutionSettings()
        self._new = NewNetworks(space)
        self._alive: list[Member] = []
        """Oldest first."""
        self._brood: list[Member] = []
        self._n_told = 0
        self._n_asked = 0
        self._done = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """Sizes of population and tournament."""
        return asdict(self._settings)

    @property
    def done(self) -> bool:
        """Whether neither mutating nor drawing brings up a new network."""
        return self._done

    def ask(self, n: int) -> Request:
        """Return at most ``n`` networks of the present brood."""
        archs: list[Architecture] = []
        wanted = min(n, BROOD - self._n_asked)
        while len(archs) < wanted and not self._done:
            arch = self._propose()
            if arch is None:
                self._done = True
            else:
                archs.append(arch)
        self._n_asked += len(archs)
        return Evaluate(archs=tuple(archs))

    def tell(self, outcome: Outcome) -> None:
        """Take in what was judged; once the brood is whole, the oldest die."""
        members = (Member.of(judged) for judged in outcome.outcomes)
        self._brood += [member for member in members if member is not None]
        self._n_told += len(outcome.outcomes)
        if self._n_told >= BROOD:
            self._alive = [*self._alive, *self._brood][-self._settings.population :]
            self._brood, self._n_told, self._n_asked = [], 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return generator state, who is alive and what was proposed."""
        return {
            "rng": self._rng.bit_generator.state,
            "asked": self._new.state(),
            "alive": [m.to_row() for m in self._alive],
            "brood": [m.to_row() for m in self._brood],
            "n_told": self._n_told,
            "n_asked": self._n_asked,
            "done": self._done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._rng.bit_generator.state = state["rng"]
        self._new.load(state["asked"])
        self._alive = [Member.from_row(row) for row in state["alive"]]
        self._brood = [Member.from_row(row) for row in state["brood"]]
        self._n_told, self._n_asked = state["n_told"], state["n_asked"]
        self._done = state["done"]

    def _propose(self) -> Architecture | None:
        """Draw until the population is full, then mutate; where nothing new comes up, draw."""
        if len(self._alive) >= self._settings.population:
            child = self._new.first(lambda: self._space.mutate(self._winner(), self._rng))
            if child is not None:
                return child
        return self._new.first(lambda: self._space.sample(self._rng))

    def _winner(self) -> Architecture:
        drawn = self._rng.choice(len(self._alive), size=self._settings.sample, replace=False)
        angle = float(self._rng.random()) * np.pi / 2.0
        entrants = [self._alive[i] for i in np.sort(drawn).tolist()]
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
