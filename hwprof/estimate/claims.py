"""Claims about single slots, with the error of making many of them kept in hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.least_squares import two_sided_p
from hwprof.estimate.responses import Friendliness, Response
from hwprof.results import Effect

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAMILY_ERROR = 0.05
"""Chance that any one of all claims is wrong."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An effect of one block at one slot that is no accident of looking at many."""

    effect: Effect
    adjusted_p: float


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjust p-values for their number (Holm 1979): reject where the result is at most α.

    The i-th smallest of m is multiplied by m + 1 − i, and made no smaller than the one before.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * steps), 1.0)
    return adjusted


def slot_claims(friendliness: Friendliness) -> tuple[Claim, ...]:
    """Return the (slot, block) effects on latency that are not zero, all of them together at 5 %.

    The strongest claim comes first. Effects without noise are claims where they are not zero.
    """
    rows = [i for i, effect in enumerate(friendliness.effects) if effect.kind == "block"]
    adjusted = holm([_p_value(friendliness.latency, row) for row in rows])
    return tuple(
        Claim(effect=friendliness.effects[rows[i]], adjusted_p=float(adjusted[i]))
        for i in np.argsort(adjusted, kind="stable")
        if adjusted[i] <= FAMILY_ERROR
    )


def _p_value(response: Response, row: int) -> float:
    value = float(response.values[row])
    sd = float(np.sqrt(max(response.covariance[row, row], 0.0)))
    if sd == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return two_sided_p(value / sd, response.degrees)
