"""What the sessions of one run differ by, taken out of its latencies.

A campaign times its networks in groups of up to 31, minutes apart. On shared machines clock and
memory move in between by per cents, as much as a block costs, and all networks of a group move
alike: every group brings a factor of its own. The factors are estimated beside the effects, from
networks that were assigned to groups at random, and stay only where they explain more than chance
would (F test); else everything is as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.latency_fit import OLS_RATIO
from hwprof.estimate.least_squares import t_quantile, upper_f_p
from hwprof.units import format_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.estimate.design_matrix import DesignMatrix

    Floats = NDArray[np.float64]

SIGNIFICANCE = 0.01
"""Below this p the sessions of a run are taken to differ."""
FEWEST_DEGREES = 10
"""Degrees of freedom that have to be left over to judge by."""
PASSES = 3
"""A factor acts on what a network would take, which is known better once factors are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SessionLevels:
    """How far the sessions of a run lie apart.

    Attributes:
        factors: ``float64[n]``, of each network: its session's level over the run's mean.
        columns: ``float64[n, sessions - 1]``, regressors of what is left of the factors: whoever
            fits effects beside them pays for the factors with degrees of freedom.
        n_sessions: how many there are.
        sd: standard deviation of a network's factor.
    """

    factors: Floats = field(repr=False)
    columns: Floats = field(repr=False)
    n_sessions: int
    sd: float

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the mean over sessions, as a share of it."""
        between = self.n_sessions - 1
        return t_quantile(0.975, between) * self.sd / math.sqrt(between)

    def __str__(self) -> str:
        return (
            f"the run's {self.n_sessions} sessions lay {format_share(self.sd, 1)} apart (standard "
            "deviation), which is taken out of its latencies"
        )


def levels_of(
    design: DesignMatrix,
    codes: NDArray[np.int64],
    y: Floats,
    sessions: Sequence[str | None],
    guess: Floats | None,
) -> SessionLevels | None:
    """Return what the sessions of a latency model's networks differ by, however few there are.

    Args:
        design: the design matrix.
        codes: ``int64[n, n_decisions]`` of the networks.
        y: ``float64[n]``, their latencies.
        sessions: in which session each was timed; None where that is not known.
        guess: what effects look like beforehand (:func:`hwprof.estimate.prior.directions`): where
            there are too few networks for every effect, sessions are judged beside the guesses.
    """
    if len(set(sessions)) < 2:
        return None
    rows = design.rows(codes)
    n, p = rows.shape
    if n <= OLS_RATIO * p + len(set(sessions)):
        if guess is None or guess.shape[1] == 0:
            return None
        rows = np.column_stack([np.ones(n), rows @ guess])
    return session_levels(rows, y, sessions)


def session_levels(rows: Floats, y: Floats, sessions: Sequence[str | None]) -> SessionLevels | None:
    """Return what the sessions of measured networks differ by; None where that may be chance.

    Args:
        rows: ``float64[n, k]``, regressors of the networks' latencies.
        y: ``float64[n]``, latencies.
        sessions: in which session each was timed; None where that is not known. Nor is anything said
            where a latency is not finite.
    """
    names = list(dict.fromkeys(sessions))
    n, n_sessions = len(y), len(names)
    if None in names or n_sessions < 2 or not np.isfinite(y).all():
        return None
    member = np.array([names.index(s) for s in sessions])
    # Every session against the first, so that the factors of all networks have a mean of 1.
    coded = np.eye(n_sessions)[member]
    coded = coded[:, 1:] - coded[:, :1] * (coded[:, 1:].sum(axis=0) / coded[:, 0].sum())
    alone, _, rank, _ = np.linalg.lstsq(rows, y, rcond=None)
    degrees = n - int(rank) - (n_sessions - 1)
    if degrees < FEWEST_DEGREES:
        return None
    expected = rows @ alone
    left_alone = float(np.sum((y - expected) ** 2))
    for _ in range(PASSES):
        columns = coded * expected[:, None]
        both = np.linalg.lstsq(np.hstack([rows, columns]), y, rcond=None)[0]
        expected = rows @ both[: rows.shape[1]]
    factors = 1.0 + coded @ both[rows.shape[1] :]
    left = float(np.sum((y - factors * expected) ** 2))
    strength = (left_alone - left) / (n_sessions - 1)
    if strength <= 0.0 or not (factors > 0.0).all():
        return None
    # Nothing left over at all is no chance.
    if left > 0.0 and upper_f_p(strength * degrees / left, n_sessions - 1, degrees) >= SIGNIFICANCE:
        return None
    return SessionLevels(
        factors=factors,
        columns=coded * expected[:, None],
        n_sessions=n_sessions,
        sd=float(np.std(factors)),
    )
