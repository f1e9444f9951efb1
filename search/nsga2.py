"""NSGA-II for latency and accuracy, with a ceiling on latency.

Deb et al., IEEE TEC 6(2), 2002: binary tournaments on (violation of the ceiling, rank of the
front, crowding), uniform crossover, mutation, and survival of the best of parents and children
by the same order. Differences: no network is proposed twice, and a child is judged once
whatever its encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import PlanError
from hwprof.pareto import crowding_distances, domination_ranks
from hwprof.search.members import Member
from hwprof.search.strategy import Evaluate, NewNetworks, Outcome, Request
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


class Nsga2:
    """The evolving population.

    Generations are counted in networks told, so that requests may cut them anywhere.
    """

    name = "nsga2"

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        *,
        target_s: float | None = None,
        settings: Nsga2Settings | None = None,
    ) -> None:
        self._space = space
        self._rng = rng
        self._target_s = target_s
        self._settings = settings or Nsga2Settings()
        self._new = NewNetworks(space)
        self._parents: list[Member] = []
        """Best first: a tournament is won by the smaller position."""
        self._children: list[Member] = []
        self._n_asked = 0
        self._n_told = 0
        self._done = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """Population size and the chances of the operators."""
        return asdict(self._settings)

    @property
    def done(self) -> bool:
        """Whether neither breeding nor drawing brings up a new network."""
        return self._done

    def ask(self, n: int) -> Request:
        """Return at most ``n`` networks of the present generation."""
        archs: list[Architecture] = []
        wanted = min(n, self._settings.population - self._n_asked)
        while len(archs) < wanted and not self._done:
            arch = self._propose()
            if arch is None:
                self._done = True
            else:
                archs.append(arch)
        self._n_asked += len(archs)
        return Evaluate(archs=tuple(archs))

    def tell(self, outcome: Outcome) -> None:
        """Take in what was judged; at the end of a generation the best survive."""
        for judged in outcome.outcomes:
            member = Member.of(judged)
            if member is not None:
                self._children.append(member)
        self._n_told += len(outcome.outcomes)
        if self._n_told >= self._settings.population:
            ordered = self._best_first([*self._parents, *self._children])
            self._parents = ordered[: self._settings.population]
            self._children, self._n_asked, self._n_told = [], 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return generator state, population and what was proposed."""
        return {
            "rng": self._rng.bit_generator.state,
            "asked": self._new.state(),
            "parents": [m.to_row() for m in self._parents],
            "children": [m.to_row() for m in self._children],
            "n_asked": self._n_asked,
            "n_told": self._n_told,
            "done": self._done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._rng.bit_generator.state = state["rng"]
        self._new.load(state["asked"])
        self._parents = [Member.from_row(row) for row in state["parents"]]
        self._children = [Member.from_row(row) for row in state["children"]]
        self._n_asked, self._n_told = state["n_asked"], state["n_told"]
        self._done = state["done"]

    def _propose(self) -> Architecture | None:
        """Breed a new network; where that brings up none any more, draw one."""
        if self._parents:
            child = self._new.first(self._breed)
            if child is not None:
                return child
        return self._new.first(lambda: self._space.sample(self._rng))

    def _breed(self) -> Architecture:
        child = self._winner()
        if self._rng.random() < self._settings.crossover:
            child = self._space.crossover(child, self._winner(), self._rng)
        if self._rng.random() < self._settings.mutation:
            child = self._space.mutate(child, self._rng)
        return child

    def _winner(self) -> Architecture:
        first, second = self._rng.integers(len(self._parents), size=2)
        return self._parents[int(min(first, second))].arch

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
