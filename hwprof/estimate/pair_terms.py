"""What two blocks cost together beyond what each costs alone: one term for every pair of levels.

The pairs are those of slots that meet (:attr:`hwprof.space.DesignSpace.meeting_slots`): neighbours
in a chain of layers, any two edges of a cell. A pair's terms are a table over the levels of both
slots, absent layers included. They are coded orthonormally, so that a ridge penalty on the
coefficients is one on the tables, every block alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.design_matrix import Decision, DesignMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTable:
    """Seconds that the levels of two decisions add together.

    ``first`` and ``second`` are positions of decisions; ``value_s`` is ``float64[levels of first,
    levels of second]``, level 0 an absent layer and 1 + c code c.
    """

    first: int
    second: int
    value_s: Floats = field(repr=False)


class PairTerms:
    """The columns of all pairs of meeting slots."""

    def __init__(self, design: DesignMatrix) -> None:
        self._decisions = design.decisions
        place = {d.slot: i for i, d in enumerate(design.decisions) if d.slot is not None}
        self.pairs = tuple(
            (place[a], place[b])
            for a, b in design.space.meeting_slots
            if self._decisions[place[a]].n_columns and self._decisions[place[b]].n_columns
        )

    def columns(self, codes: Codes) -> Floats:
        """Return ``float64[n, n_terms]`` for ``int64[n, n_decisions]`` codes, not centred."""
        parts = [np.empty((len(codes), 0))]
        for i, j in self.pairs:
            a, b = self._bases[i][codes[:, i] + 1], self._bases[j][codes[:, j] + 1]
            parts.append((a[:, :, None] * b[:, None, :]).reshape(len(codes), -1))
        return np.hstack(parts)

    def tables(self, coefficients: Floats) -> tuple[PairTable, ...]:
        """Return what every pair of levels adds, from the ``float64[n_terms]`` coefficients."""
        found, start = [], 0
        for i, j in self.pairs:
            a, b = self._bases[i], self._bases[j]
            stop = start + a.shape[1] * b.shape[1]
            core = coefficients[start:stop].reshape(a.shape[1], b.shape[1])
            found.append(PairTable(first=i, second=j, value_s=a @ core @ b.T))
            start = stop
        return tuple(found)

    @cached_property
    def _bases(self) -> tuple[Floats, ...]:
        return tuple(_orthonormal(decision) for decision in self._decisions)


def _orthonormal(decision: Decision) -> Floats:
    """Return the coding with orthonormal columns over the levels that a network can have."""
    coding = decision.coding
    if not decision.n_columns:
        return coding
    triangle = np.linalg.qr(coding[decision.valid])[1]
    return np.asarray(np.linalg.solve(triangle.T, coding.T).T)
