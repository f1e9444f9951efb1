"""NSGA-II for latency and accuracy, with a ceiling on latency.

Deb et al., IEEE TEC 6(2), 2002: binary tournaments on (violation of the ceiling, rank of the
front, crowding), uniform crossover, mutation, and survival of the best of parents and children
by the same order. Differences: no network is proposed twice, and a child is judged once
whatever its encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import PlanError
from hwprof.pareto import crowding_distances, domination_ranks
from hwprof.search.strategies.members import Member
from hwprof.search.strategies.proposer import Generations
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Nsga2Settings:
    """Population and operators.

    ``crossover`` and ``mutation`` are the chances that a child is crossed and is mutated; a
    child that was neither is drawn again, as it is its parent.
    """

    population: int = 20
    crossover: float = 0.9
    mutation: float = 0.5

    def __post_init__(self) -> None:
        if self.population < 2:
            raise PlanError(f"population is {self.population}; expected at least 2")
        for name in ("crossover", "mutation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise PlanError(f"{name} is {getattr(self, name)}; expected a chance from 0 to 1")


class Nsga2(Generations):
    """The evolving population, best first: a tournament is won by the smaller position."""

    name = "nsga2"
    keys = ("parents", "children")

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        *,
        target_s: float | None = None,
        settings: Nsga2Settings | None = None,
    ) -> None:
        self._settings = settings or Nsga2Settings()
        super().__init__(
            space, rng, asdict(self._settings), size=self._settings.population, fewest=1
        )
        self._target_s = target_s

    def _breed(self) -> Architecture:
        child = self._winner()
        if self._rng.random() < self._settings.crossover:
            child = self._space.crossover(child, self._winner(), self._rng)
        if self._rng.random() < self._settings.mutation:
            child = self._space.mutate(child, self._rng)
        return child

    def _winner(self) -> Architecture:
        first, second = self._rng.integers(len(self._population), size=2)
        return self._population[int(min(first, second))].arch

    def _survivors(self, members: Sequence[Member]) -> list[Member]:
        """Keep the best of parents and children."""
        return self._best_first(members)[: self._settings.population]

    def _best_first(self, members: Sequence[Member]) -> list[Member]:
        """Order by violation, then rank, then crowding (lonely first); stable."""
        latency = np.array([m.latency_s for m in members])
        excess = np.array([m.excess_s(self._target_s) for m in members])
        ranked = [
            i for i, m in enumerate(members) if m.accuracy_pct is not None and excess[i] == 0.0
        ]
        ranks, lonely = np.full(len(members), len(members)), np.zeros(len(members))
        accuracy = np.array([members[i].accuracy_pct for i in ranked], dtype=float)
        ranks[ranked], lonely[ranked] = _ranks_and_crowding(latency[ranked], accuracy)
        order = np.lexsort((-lonely, ranks, excess))
        return [members[i] for i in order]


def _ranks_and_crowding(
    latency: NDArray[np.float64], accuracy: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    ranks = domination_ranks(latency, accuracy)
    crowding = np.zeros(len(latency))
    for rank in np.unique(ranks):
        on_front = ranks == rank
        crowding[on_front] = crowding_distances(latency[on_front], accuracy[on_front])
    return ranks, crowding
