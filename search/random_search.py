"""Random search: the control that every other strategy has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwprof.search.strategy import Evaluate, NewNetworks, Outcome, Request
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    import numpy as np


class RandomSearch:
    """Draws networks as the space does, each once; a latency target does not steer it."""

    name = "random"

    def __init__(
        self, space: DesignSpace, rng: np.random.Generator, *, target_s: float | None = None
    ) -> None:
        self._space = space
        self._rng = rng
        self._new = NewNetworks(space)
        self._done = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """There are none."""
        return {}

    @property
    def done(self) -> bool:
        """Whether no new network comes up any more."""
        return self._done

    def ask(self, n: int) -> Request:
        """Return ``n`` random networks, fewer where the space is exhausted."""
        archs: list[Architecture] = []
        while len(archs) < n and not self._done:
            arch = self._new.first(lambda: self._space.sample(self._rng))
            if arch is None:
                self._done = True
            else:
                archs.append(arch)
        return Evaluate(archs=tuple(archs))

    def tell(self, outcome: Outcome) -> None:
        """Learn nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return generator state and what was drawn."""
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
