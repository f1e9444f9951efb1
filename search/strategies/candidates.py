"""Networks that a round of a search may choose from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.search.strategy import Foresight, NewNetworks
from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that may be judged: its codes, and its latency (nan where not foreseen)."""

    arch: Architecture
    codes: NDArray[np.int64]
    latency_s: float


class Pool:
    """New networks, each once; those that are known to have no latency are left out."""

    def __init__(
        self,
        space: DesignSpace,
        rng: np.random.Generator,
        new: NewNetworks,
        foresight: Foresight | None,
    ) -> None:
        """Start with none.

        Args:
            space: where they are from.
            rng: draws them.
            new: says which networks are new; it is not told about the pool.
            foresight: predicts their latencies.
        """
        self._space = space
        self._rng = rng
        self._new = new
        self._foresight = foresight
        self._met: set[str] = set()
        self.candidates: list[Candidate] = []

    def draw(self, n: int) -> None:
        """Add what is new of ``n`` random networks."""
        self._add(self._space.sample(self._rng) for _ in range(n))

    def breed(self, parents: Sequence[Architecture], n: int) -> None:
        """Add what is new of ``n`` children: mutated, every second one crossed before."""
        self._add(self._child(parents, crossed=i % 2 == 1) for i in range(n if parents else 0))

    def _child(self, parents: Sequence[Architecture], *, crossed: bool) -> Architecture:
        first, second = self._rng.integers(len(parents), size=2).tolist()
        child = parents[first]
        if crossed:
            child = self._space.crossover(child, parents[second], self._rng)
        return self._space.mutate(child, self._rng)

    def _add(self, drawn: Iterable[Architecture]) -> None:
        fresh: list[Architecture] = []
        for arch in drawn:
            found = self._new.peek(arch)
            if found is None:
                continue
            key = self._space.canonical(found).arch_id
            if key not in self._met:
                self._met.add(key)
                fresh.append(found)
        if not fresh:
            return
        times = [np.nan] * len(fresh) if self._foresight is None else self._foresight(fresh)
        self.candidates += [
            Candidate(arch=arch, codes=codes, latency_s=time)
            for arch, codes, time in zip(fresh, self._space.encode_many(fresh), times, strict=True)
            if time is not None
        ]
