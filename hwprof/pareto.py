"""Pareto arithmetic for two goals: latency down, accuracy up.

Every function takes two equally long sequences of finite numbers, ``float[n]``, and answers
with positions in them. Units are the caller's: seconds and percent throughout this package.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = Sequence[float] | NDArray[np.float64]


def front_indices(latency: Values, accuracy: Values) -> list[int]:
    """Return the positions of the points that no other point dominates, fastest first.

    A point survives unless another is at least as good in both goals; of equal points the
    first stays. So latency and accuracy both rise strictly along the front. O(n log n).

    Raises:
        DataError: lengths differ, or a value is not a finite number.
    """
    time, score = _checked(latency, accuracy)
    order = _fastest_first(time, score)
    best_before = np.maximum.accumulate(np.concatenate(([-np.inf], score[order][:-1])))
    front: list[int] = order[score[order] > best_before].tolist()
    return front


def hypervolume(latency: Values, accuracy: Values, reference: tuple[float, float]) -> float:
    """Return the area that the points dominate, bounded by ``reference``; exact.

    Args:
        latency: of every point.
        accuracy: of every point.
        reference: the latency and the accuracy of a point worse than what is wanted; points
            that are not better than it in both goals add nothing.

    Returns:
        The area, in units of latency times units of accuracy; 0 without points.

    Raises:
        DataError: lengths differ, or a value is not a finite number.
    """
    time, score = _checked(latency, accuracy)
    worst_time, worst_score = reference
    counted = (time < worst_time) & (score > worst_score)
    time, score = time[counted], score[counted]
    front = front_indices(time, score)
    widths = np.diff(time[front], append=worst_time)
    return float(widths @ (score[front] - worst_score))


def domination_ranks(latency: Values, accuracy: Values) -> NDArray[np.int64]:
    """Return how many fronts have to be peeled off before each point is on one, ``int64[n]``.

    Rank 0 is the front. Equal points share their rank (they do not dominate each other).
    One sweep in order of latency with a binary search over the fronts met so far: O(n log n)
    (Jensen, IEEE TEC 7(5), 2003).

    Raises:
        DataError: lengths differ, or a value is not a finite number.
    """
    time, score = _checked(latency, accuracy)
    ranks = np.zeros(time.size, dtype=np.int64)
    # Minus the best accuracy on every front so far: ascending, so that it can be bisected.
    best: list[float] = []
    previous = -1
    for index in _fastest_first(time, score).tolist():
        if previous >= 0 and (time[index], score[index]) == (time[previous], score[previous]):
            ranks[index] = ranks[previous]
            continue
        # In this order a front dominates the point where its best is at least as accurate.
        rank = bisect_right(best, -float(score[index]))
        best[rank : rank + 1] = [-float(score[index])]
        ranks[index], previous = rank, index
    return ranks


def crowding_distances(latency: Values, accuracy: Values) -> NDArray[np.float64]:
    """Return how lonely each point of one front is, ``float64[n]`` (Deb et al. 2002, NSGA-II).

    The sum over both goals of the gap between a point's neighbours, relative to the range of
    the goal; infinite at both ends.

    Raises:
        DataError: lengths differ, or a value is not a finite number.
    """
    time, score = _checked(latency, accuracy)
    distances = np.zeros(time.size)
    if time.size == 0:
        return distances
    for values in (time, score):
        order = np.argsort(values, kind="stable")
        span = values[order[-1]] - values[order[0]]
        if span > 0.0:
            distances[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
        distances[order[[0, -1]]] = np.inf
    return distances


def spread_indices(latency: Values, accuracy: Values, n: int) -> list[int]:
    """Choose at most ``n`` points that cover the cloud well, in the order of choosing.

    The most accurate one, the fastest one, then always the one farthest from all chosen
    (both goals scaled to their range). Of equal points one is chosen at most.

    Raises:
        DataError: lengths differ, or a value is not a finite number.
    """
    time, score = _checked(latency, accuracy)
    if time.size == 0 or n <= 0:
        return []
    points = np.column_stack([_to_unit_range(time), _to_unit_range(score)])
    nearest = np.full(time.size, np.inf)
    chosen: list[int] = []
    ends = [int(np.lexsort((time, -score))[0]), int(_fastest_first(time, score)[0])]
    while len(chosen) < min(n, time.size):
        pick = ends[len(chosen)] if len(chosen) < len(ends) else int(np.argmax(nearest))
        if nearest[pick] == 0.0:
            pick = int(np.argmax(nearest))
        if nearest[pick] == 0.0:
            break
        chosen.append(pick)
        nearest = np.minimum(nearest, np.hypot(*(points - points[pick]).T))
    return chosen


def _to_unit_range(values: NDArray[np.float64]) -> NDArray[np.float64]:
    span = float(np.ptp(values))
    return np.asarray((values - values.min()) / (span if span > 0.0 else 1.0))


def _fastest_first(time: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the order by latency, of equal latency the most accurate first; stable."""
    return np.lexsort((-score, time))


def _checked(latency: Values, accuracy: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    time, score = np.asarray(latency, dtype=float), np.asarray(accuracy, dtype=float)
    if time.ndim != 1 or time.shape != score.shape:
        raise DataError(
            f"latencies of shape {time.shape} do not go with accuracies of shape {score.shape}; "
            "expected one of each for every network"
        )
    for name, values in (("latency", time), ("accuracy", score)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise DataError(
                f"the {name} of point {bad[0]} is {values[bad[0]]}; "
                "leave out networks that have no number"
            )
    return time, score
