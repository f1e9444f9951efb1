"""Random search: the control that every other strategy has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprof.search.strategies.proposer import Proposer
from hwprof.search.strategy import Outcome, Request
from hwprof.space import DesignSpace

if TYPE_CHECKING:
    import numpy as np


class RandomSearch(Proposer):
    """Draws networks as the space does, each once; a latency target does not steer it."""

    name = "random"

    def __init__(
        self, space: DesignSpace, rng: np.random.Generator, *, target_s: float | None = None
    ) -> None:
        super().__init__(space, rng, settings={})

    def ask(self, n: int) -> Request:
        """Return ``n`` random networks, fewer where the space is exhausted."""
        return self._request(n, self._draw)

    def tell(self, outcome: Outcome) -> None:
        """Learn nothing."""
