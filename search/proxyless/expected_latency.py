"""The expected latency of a distribution over networks, differentiable.

Exact for the sum of effects and for terms of pairs of blocks. Other interaction terms, where the
model has them, enter rewards and the latency of the most probable network only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwprof.errors import IncompatibleRunError, SpaceError
from hwprof.search.proxyless.choices import Where
from hwprof.space import Architecture, DesignSpace, Factor, Slot

DIGEST_NETWORKS = 16
"""Random networks whose latencies tell models apart that have the same table."""


class LatencyTable(Protocol):
    """An additive latency model: what an architecture search needs of it."""

    @property
    def space(self) -> DesignSpace:
        """The space it was made for; a search may be in a reduction of it."""
        ...

    def table(self) -> dict[tuple[Slot, str], float]:
        """Return seconds of every block that it knows, at every slot."""
        ...

    def expected_s(
        self,
        probabilities: Mapping[Slot, Any],
        *,
        depths: Mapping[int, Any] | None = None,
        factors: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the expectation over independent decisions, of effects and pairs of blocks."""
        ...

    def predict_many(
        self, archs: Sequence[Architecture]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return latencies and half-widths of single networks."""
        ...


class ExpectedLatency:
    """E = constant + Σ_slots P(layer is there) Σ_j p_j F_j over a table of blocks.

    Where the model has terms for pairs of blocks, Σ p_j p_k G_jk over neighbouring slots comes to
    it. The expectation is over the whole distribution, whatever a step has sampled; other
    interaction terms, where the model has them, are in :meth:`of` only.

    Raises:
        SpaceError: the table has no latency for a block of the space; names it.
        IncompatibleRunError: the table is of another space or resolution.
    """

    def __init__(self, model: LatencyTable, space: DesignSpace) -> None:
        known = model.space
        if (known.name, known.resolution_px) != (space.name, space.resolution_px):
            raise IncompatibleRunError(
                f"the latencies are of {known.name!r} at {known.resolution_px} px, the search is "
                f"in {space.name!r} at {space.resolution_px} px: profile that one"
            )
        table = model.table()
        for slot in space.slots:
            for block in space.choices(slot):
                if (slot, block) not in table:
                    raise SpaceError(
                        f"the latency table has no entry for {block} in unit {slot.unit} layer "
                        f"{slot.layer} of {space.name!r}; profile more networks, or import a "
                        "table that has it"
                    )
        self._model = model
        self._space = space
        self.table: Mapping[tuple[Slot, str], float] = table
        """Seconds of every block that the model knows, at every slot; negative ones are possible
        where a layer is always there, as only differences mean something then."""

    @cached_property
    def constant_s(self) -> float:
        """What remains of networks on average once the entries of blocks and levels are taken away.

        On average, because terms of pairs of blocks do not cancel in any single one.
        """
        return float(self(self._uniform).item() - self._mean_blocks_s)

    @cached_property
    def levels_s(self) -> Mapping[Factor, tuple[float, ...]]:
        """Seconds of every level of every factor, against the mean of its levels."""
        found = {}
        for factor in self._space.factors:
            n = len(factor.levels)
            totals = [self({**self._uniform, factor: _one_hot(i, n)}).item() for i in range(n)]
            found[factor] = tuple(t - self.constant_s - self._mean_blocks_s for t in totals)
        return found

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the latencies.

        Raises:
            SpaceError: the model cannot predict the networks of the space.
        """
        lines = sorted(
            f"{slot} {block} {_whole_ps(value)}" for (slot, block), value in self.table.items()
        )
        # The table has neither the constant part nor interaction terms.
        rng = np.random.default_rng(0)
        networks = [self._space.sample(rng) for _ in range(DIGEST_NETWORKS)]
        lines += [str(_whole_ps(latency_s)) for latency_s in self.of(networks)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def __call__(self, probabilities: Mapping[Where, Tensor]) -> Tensor:
        """Return the expected latency in seconds, a float64 scalar.

        Args:
            probabilities: of every decision of the space; what is not decided has one option.
                Levels of a factor that is left out count alike.
        """
        known = self._model.space
        blocks = {slot: self._spread_blocks(slot, probabilities) for slot in known.slots}
        depths = {
            unit: _spread(known.depths(unit), self._space.depths(unit), probabilities.get(unit))
            for unit in range(known.n_units)
        }
        factors = {
            factor.name: probabilities[factor]
            for factor in known.factors
            if factor in probabilities
        }
        expected: Tensor = self._model.expected_s(blocks, depths=depths, factors=factors)
        return expected

    def of(self, archs: Sequence[Architecture]) -> list[float]:
        """Return the model's latency of single networks, seconds; interaction terms included."""
        return [float(v) for v in self._model.predict_many(archs)[0]]

    @cached_property
    def _uniform(self) -> Mapping[Where, Tensor]:
        """Random networks, as a distribution without factors."""
        space = self._space
        numbers: dict[Where, int] = {slot: len(space.choices(slot)) for slot in space.slots}
        numbers |= {unit: len(space.depths(unit)) for unit in range(space.n_units)}
        return {
            where: torch.full((n,), 1.0 / n, dtype=torch.float64) for where, n in numbers.items()
        }

    @cached_property
    def _mean_blocks_s(self) -> float:
        total = 0.0
        for slot in self._space.slots:
            depths, blocks = self._space.depths(slot.unit), self._space.choices(slot)
            reach = sum(depth > slot.layer for depth in depths) / len(depths)
            total += reach * sum(self.table[slot, block] for block in blocks) / len(blocks)
        return total

    def _spread_blocks(self, slot: Slot, probabilities: Mapping[Where, Tensor]) -> list[Any]:
        known = self._model.space.choices(slot)
        if slot.layer >= self._space.max_depth[slot.unit]:
            return [0.0] * len(known)
        return _spread(known, self._space.choices(slot), probabilities.get(slot))


def _whole_ps(latency_s: float) -> int:
    """Return a latency without its last bits, which another number of threads fits otherwise."""
    return round(latency_s * 1e12)


def _one_hot(index: int, n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)[index]


def _spread(known: Sequence[Any], mine: Sequence[Any], shares: Tensor | None) -> list[Any]:
    """Return one share for each option that the table knows: 0 where the space has it not."""
    own = [1.0] if shares is None else shares
    given = dict(zip(mine, own, strict=True))
    return [given.get(option, 0.0) for option in known]
