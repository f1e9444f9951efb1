"""Additive predictions by looking up instead of multiplying.

Every decision of a network has one of a few levels, and each level is one row of the coding. So a
prediction is a sum of one number a decision, and its leverage xᵀ C x a sum of one number a pair
of decisions: 231 additions for 21 decisions, where the product with C would take 30,000. Sums go
over decisions in their order, one network independent of the next, so that a network's prediction
is the same number, to the last bit, alone and among a million.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelTables:
    """What every level, and every pair of levels, adds.

    Attributes:
        starts: where the levels of each decision begin, ``int64[n_decisions]``; the first level
            of each is that of an absent layer (code -1).
        constant: prediction and leverage of the intercept alone.
        value: what every level adds to the prediction, ``float64[n_levels]``.
        own: what every level adds to the leverage, ``float64[n_levels]``.
        pair: what every pair of levels adds to the leverage, ``float64[n_levels, n_levels]``.
    """

    starts: Codes
    constant: tuple[float, float]
    value: Floats = field(repr=False)
    own: Floats = field(repr=False)
    pair: Floats = field(repr=False)

    @classmethod
    def of(cls, design: DesignMatrix, coefficients: Floats, inverse: Floats) -> Self:
        """Tabulate ``coefficients``, ``float64[p]``, and C = ``inverse``, ``float64[p, p]``."""
        sizes = [len(decision.coding) for decision in design.decisions]
        rows = np.zeros((sum(sizes), design.n_coefficients))
        starts = np.cumsum([0, *sizes])[:-1]
        for start, size, decision in zip(starts, sizes, design.decisions, strict=True):
            rows[start : start + size, decision.columns] = decision.coding
        pair = rows @ inverse @ rows.T
        return cls(
            starts=starts.astype(np.int64),
            constant=(float(coefficients[0]), float(inverse[0, 0])),
            value=rows @ coefficients,
            own=np.diag(pair) + 2.0 * (rows @ inverse[:, 0]),
            pair=2.0 * pair,
        )

    def look_up(self, codes: Codes) -> tuple[Floats, Floats]:
        """Return predictions and leverages, ``float64[n]`` each; codes are not checked."""
        levels = np.ascontiguousarray((codes + 1 + self.starts).T)
        value = np.full(len(codes), self.constant[0])
        leverage = np.full(len(codes), self.constant[1])
        for i, level in enumerate(levels):
            value += self.value[level]
            leverage += self.own[level]
            pairs = self.pair.ravel()
            row = level * len(self.pair)
            for other in levels[:i]:
                leverage += pairs[row + other]
        # C is positive definite; rounding may leave a leverage of nothing just below it.
        return value, np.maximum(leverage, 0.0)
