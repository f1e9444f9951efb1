"""What strategies have in common: each network proposed once, in rounds or generations.

A strategy need not build on this: the runner knows :class:`~.strategy.Strategy` alone.
The keys of the states are those of every checkpoint written so far; they stay.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hwprof.search.strategies.members import Member, members_of
from hwprof.search.strategy import Evaluate, Foresight, NewNetworks, Outcome, Request
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    import numpy as np


class Proposer:
    """The space, the generator, and which networks were proposed.

    Args:
        space: where to search; reductions are respected.
        rng: the only source of chance; its state is part of the strategy's.
        settings: the settings in force, as plain data.
    """

    def __init__(
        self, space: DesignSpace, rng: np.random.Generator, settings: Mapping[str, Any]
    ) -> None:
        self.settings = settings
        """As :class:`~.strategy.Strategy` wants them; a strategy keeps its own object beside."""
        self._space = space
        self._rng = rng
        self._new = NewNetworks(space)
        self._done = False

    @property
    def done(self) -> bool:
        """Whether no new network comes up any more."""
        return self._done

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state and what was proposed."""
        return {
            "rng": self._rng.bit_generator.state,
            "asked": self._new.state(),
            "done": self._done,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._rng.bit_generator.state = state["rng"]
        self._new.load(state["asked"])
        self._done = state["done"]

    def _request(self, n: int, propose: Callable[[], Architecture | None]) -> Request:
        """Ask for ``n`` networks, fewer where ``propose`` has no more: then the search is done."""
        archs: list[Architecture] = []
        while len(archs) < n and not self._done:
            arch = propose()
            if arch is None:
                self._done = True
            else:
                archs.append(arch)
        return Evaluate(archs=tuple(archs))

    def _draw(self) -> Architecture | None:
        """Draw a new network as the space does; None where none comes up any more."""
        return self._new.first(lambda: self._space.sample(self._rng))


class Rounds(Proposer, ABC):
    """Networks planned a round at a time, with latencies foreseen; they wait in a queue.

    Args:
        space: as of :class:`Proposer`.
        rng: likewise.
        settings: likewise.
        target_s: slower networks are not wanted.
    """

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        settings: Mapping[str, Any],
        *,
        target_s: float | None,
    ) -> None:
        super().__init__(space, rng, settings)
        self._ceiling_s = math.inf if target_s is None else target_s
        self._foresight: Foresight | None = None
        self._queue: list[Architecture] = []

    def foresee(self, predict: Foresight) -> None:
        """Learn how to predict the latency of networks before they are judged."""
        self._foresight = predict

    def ask(self, n: int) -> Request:
        """Return at most ``n`` networks of the present round."""
        if not self._queue and not self._done:
            self._queue = self._plan()
            self._done = not self._queue
        asked, self._queue = self._queue[:n], self._queue[n:]
        return Evaluate(archs=tuple(asked))

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, what was proposed and what waits to be asked."""
        return super().state_dict() | {"queue": [arch.to_json() for arch in self._queue]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        self._queue = [Architecture.from_json(data) for data in state["queue"]]

    @abstractmethod
    def _plan(self) -> list[Architecture]:
        """Return the networks of the next round, once all before was told; none: no more come."""


class Generations(Proposer, ABC):
    """A population, renewed each time that a whole generation was told.

    Generations are counted in networks told, so that requests may cut them anywhere.

    Args:
        space: as of :class:`Proposer`.
        rng: likewise.
        settings: likewise.
        size: networks of a generation.
        fewest: members that it takes to breed; until then networks are drawn.
    """

    keys: ClassVar[tuple[str, str]]
    """What the population and the generation under way are called in the state."""

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        settings: Mapping[str, Any],
        *,
        size: int,
        fewest: int,
    ) -> None:
        super().__init__(space, rng, settings)
        self._size = size
        self._fewest = fewest
        self._population: list[Member] = []
        self._generation: list[Member] = []
        self._n_asked = 0
        self._n_told = 0

    def ask(self, n: int) -> Request:
        """Return at most ``n`` networks of the present generation."""
        request = self._request(min(n, self._size - self._n_asked), self._propose)
        self._n_asked += len(request.archs)
        return request

    def tell(self, outcome: Outcome) -> None:
        """Take in what was judged; at the end of a generation the population is renewed."""
        self._generation += members_of(outcome)
        self._n_told += len(outcome.outcomes)
        if self._n_told >= self._size:
            self._population = self._survivors([*self._population, *self._generation])
            self._generation, self._n_asked, self._n_told = [], 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state, what was proposed, and both lists of members."""
        population, generation = self.keys
        return super().state_dict() | {
            population: [m.to_row() for m in self._population],
            generation: [m.to_row() for m in self._generation],
            "n_asked": self._n_asked,
            "n_told": self._n_told,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        super().load_state_dict(state)
        population, generation = self.keys
        self._population = [Member.from_row(row) for row in state[population]]
        self._generation = [Member.from_row(row) for row in state[generation]]
        self._n_asked, self._n_told = state["n_asked"], state["n_told"]

    @abstractmethod
    def _breed(self) -> Architecture:
        """Make a network from members of the population."""

    @abstractmethod
    def _survivors(self, members: Sequence[Member]) -> list[Member]:
        """Return the next population, of the last one followed by the generation."""

    def _propose(self) -> Architecture | None:
        """Breed a new network; where that brings up none (any more), draw one."""
        if len(self._population) >= self._fewest:
            child = self._new.first(self._breed)
            if child is not None:
                return child
        return self._draw()
