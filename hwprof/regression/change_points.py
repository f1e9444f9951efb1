"""Where a series of levels changed: E-divisive (Matteson and James, JASA 109, 2014). Pure functions.

The energy distance of two stretches X (n values) and Y (m values), with exponent 1, is

    E(X, Y) = 2/(nm) ΣΣ|x − y| − 2/(n(n−1)) Σ|x − x'| − 2/(m(m−1)) Σ|y − y'|

over pairs; it is scaled to Q = nm/(n + m)·E. A stretch is split at the τ where Q of [0, τ) and
[τ, κ) is largest over all τ and κ; of all stretches the best split is taken first. It counts if
few permutations of the values within their stretches give as large a Q; then the search goes on in
the pieces. Nothing is asked of the values' distribution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

SIGNIFICANCE = 0.001
SMALLEST_CHANGE = 0.02
FEWEST_EACH_SIDE = 5
PERMUTATIONS = 4999
SEED = 0
"""Of the permutations where nobody names one: the same sessions get the same answer everywhere."""
FEWEST_POINTS = 14
"""Fewer cannot reach p < 0.001: the clearest change, 6 values and then 7 others, and its mirror
image are 2 of 1716 orders of 13 values."""
MOST_POINTS = 200
"""Latest points that are looked at: a permutation takes time and memory in the square of their number,
and thousands of points would take an hour for each change."""
_SAME = 1e-9
"""Equal sets of values give equal Q but for rounding."""


@dataclass(frozen=True, kw_only=True)
class ChangePoint:
    """A change that is confirmed.

    ``index`` is the first point of the new level; ``shift`` is relative, between the mean logarithms
    of the stretches before and behind it; ``p`` is the permutation test's.
    """

    index: int
    shift: float
    p: float


def change_points(levels_s: Sequence[float], rng: np.random.Generator) -> tuple[ChangePoint, ...]:
    """Return the confirmed changes among the latest points of a series, oldest first.

    Confirmed: p < 0.001, at least five points on either side, and a shift of 2 % or more.

    Args:
        levels_s: one level a session, oldest first; positive.
        rng: draws the permutations.
    """
    if len(levels_s) < FEWEST_POINTS:
        return ()
    skipped = first_looked_at(len(levels_s))
    logs = np.log(np.asarray(levels_s[skipped:], dtype=np.float64))
    found = _large_enough(logs, significant_splits(logs, rng))
    return tuple(replace(change, index=skipped + change.index) for change in found)


def first_looked_at(n_points: int) -> int:
    """Return the index of the first point that changes are looked for from."""
    return max(0, n_points - MOST_POINTS)


def since_change(levels_s: Sequence[float], rng: np.random.Generator) -> int:
    """Return the index of the first point that is known to be of the level that holds now."""
    found = change_points(levels_s, rng)
    return found[-1].index if found else first_looked_at(len(levels_s))


def significant_splits(
    values: Float64,
    rng: np.random.Generator,
    *,
    fewest: int = FEWEST_EACH_SIDE,
    significance: float = SIGNIFICANCE,
    permutations: int = PERMUTATIONS,
) -> dict[int, float]:
    """Return index → p of every split of ``values[n]`` that permutations do not explain."""
    found: dict[int, float] = {}
    while True:
        bounds = [0, *sorted(found), values.size]
        pieces = [values[a:b] for a, b in itertools.pairwise(bounds)]
        splits = [best_split(piece, fewest) for piece in pieces]
        which = max(range(len(pieces)), key=lambda i: splits[i][1])
        offset, largest = splits[which]
        if not math.isfinite(largest):
            return found
        p = _permutation_p(pieces, largest, rng, fewest, significance, permutations)
        if p >= significance:
            return found
        found[bounds[which] + offset] = p


def _permutation_p(
    pieces: Sequence[Float64],
    largest: float,
    rng: np.random.Generator,
    fewest: int,
    significance: float,
    n: int,
) -> float:
    """Return (1 + permutations that split as well) / (1 + n).

    Ends where that is no longer below ``significance``, which spares most of the draws.
    """
    limit = largest * (1.0 - _SAME)
    as_large = 0
    for _ in range(n):
        as_large += max(best_split(rng.permutation(p), fewest)[1] for p in pieces) >= limit
        if as_large + 1 >= significance * (n + 1):
            break
    return (as_large + 1) / (n + 1)


def best_split(values: Float64, fewest: int = FEWEST_EACH_SIDE) -> tuple[int, float]:
    """Return where ``values[n]`` is best split, and Q there; (0, −∞) where it is too short."""
    n = values.size
    if n < 2 * fewest or fewest < 2:
        return 0, -math.inf
    sums = np.zeros((n + 1, n + 1))
    sums[1:, 1:] = np.abs(values[:, None] - values[None, :]).cumsum(axis=0).cumsum(axis=1)
    corner = np.diagonal(sums)
    # inside[i, j]: over the pairs of values[i:j].
    inside = 0.5 * (corner[None, :] - sums - sums.T + corner[:, None])
    tau, kappa = np.arange(fewest, n - fewest + 1)[:, None], np.arange(2 * fewest, n + 1)[None, :]
    first, second = tau, np.maximum(kappa - tau, 2)
    before, behind = inside[0, tau], inside[tau, kappa]
    across = inside[0, kappa] - before - behind
    energy = 2.0 * (
        across / (first * second)
        - before / (first * (first - 1))
        - behind / (second * (second - 1))
    )
    q = np.where(kappa - tau >= fewest, first * second / (first + second) * energy, -np.inf)
    at = int(np.argmax(q))
    return fewest + at // q.shape[1], float(q.flat[at])


def _large_enough(logs: Float64, splits: dict[int, float]) -> tuple[ChangePoint, ...]:
    """Join stretches, the most alike first, until all changes are of 2 % or more."""
    kept = sorted(splits)
    while kept:
        bounds = [0, *kept, logs.size]
        means = [float(logs[a:b].mean()) for a, b in itertools.pairwise(bounds)]
        steps = [b - a for a, b in itertools.pairwise(means)]
        least = min(range(len(kept)), key=lambda i: abs(steps[i]))
        # A speed-up by 1/1.02 mirrors a slowdown by 1.02.
        if abs(steps[least]) >= math.log1p(SMALLEST_CHANGE):
            return tuple(
                ChangePoint(index=k, shift=math.expm1(s), p=splits[k])
                for k, s in zip(kept, steps, strict=True)
            )
        del kept[least]
    return ()
