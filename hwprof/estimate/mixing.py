"""Between hot and cold: how warm the caches of a network's blocks are.

A block that runs alone, back to back, finds its weights in the cache; flushed before every call it
finds nothing. In a network it is somewhere between: with H and C the sums of a network's parts
timed hot and cold, its latency is y ≈ H + m (C − H). m is 0 where hot sums are right, 1 where cold
ones are; outside of 0 to 1 neither sum is the network (fused operators, dispatch, other layouts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError
from hwprof.estimate.least_squares import t_quantile
from hwprof.interval import Interval
from hwprof.results import Sample
from hwprof.space.pieces import Piece, SkipPiece

if TYPE_CHECKING:
    from hwprof.space import DesignSpace

LEAST_NETWORKS = 10


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """The mixing factor with its 95 % interval, and how far each sum alone is off.

    ``hot_error`` and ``cold_error`` are the median of (sum / measured − 1) over networks,
    ``mixed_error`` the median absolute relative error of the mixture.
    """

    factor: Interval
    n_networks: int
    hot_error: float
    cold_error: float
    mixed_error: float

    def __str__(self) -> str:
        return (
            f"Sums of blocks timed alone are off by {100 * self.hot_error:+.1f} % with hot caches "
            f"and {100 * self.cold_error:+.1f} % with cold ones (median of {self.n_networks} "
            f"networks); a network is {self.factor.value:.2f} "
            f"[{self.factor.lo:.2f}, {self.factor.hi:.2f}] of the way from hot to cold, which leaves "
            f"{100 * self.mixed_error:.1f} %."
        )


def mixing_factor(
    space: DesignSpace,
    samples: Sequence[Sample],
    hot_s: Mapping[Piece, float],
    cold_s: Mapping[Piece, float],
) -> Mixing:
    """Fit the mixing factor by least squares over whole networks.

    The interval is robust to uneven noise (HC1 of the one coefficient); it takes the blocks' own
    times as known.

    Args:
        space: the space of the networks.
        samples: measured networks; those with a piece that was not timed are left out.
        hot_s: seconds of every piece alone, caches hot.
        cold_s: the same with caches flushed before every call.

    Raises:
        DataError: too few networks, or hot and cold sums do not differ.
    """
    rows = []
    for sample in samples:
        if sample.latency_s is None:
            continue
        pieces = [p.piece for p in space.pieces(sample.arch) if not isinstance(p.piece, SkipPiece)]
        if all(piece in hot_s and piece in cold_s for piece in pieces):
            hot, cold = (sum(times[piece] for piece in pieces) for times in (hot_s, cold_s))
            rows.append((sample.latency_s, hot, cold))
    if len(rows) < LEAST_NETWORKS:
        raise DataError(
            f"{len(rows)} networks have all their blocks timed hot and cold; expected at least "
            f"{LEAST_NETWORKS}: profile with --cold and more --networks"
        )
    y, hot, cold = np.array(rows, dtype=np.float64).T
    x, off = cold - hot, y - hot
    strength = float(x @ x)
    if not strength > 0.0:
        raise DataError("hot and cold sums are equal, so nothing lies between them")
    factor = float(x @ off) / strength
    left = off - factor * x
    n = len(y)
    se = float(np.sqrt(np.sum((x * left) ** 2) * n / (n - 1))) / strength
    half = t_quantile(0.975, n - 1.0) * se
    return Mixing(
        factor=Interval(factor, factor - half, factor + half),
        n_networks=n,
        hot_error=float(np.median(hot / y - 1.0)),
        cold_error=float(np.median(cold / y - 1.0)),
        mixed_error=float(np.median(np.abs(left) / y)),
    )
