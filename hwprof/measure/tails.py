"""What a percentile of timed calls supports: an upper bound, or nothing where calls are too few.

Source: the exact bound from the order statistics (Hahn and Meeker 1991, Statistical Intervals, 5.2),
on the binomial that MLPerf's load generator bases its early stopping on.
"""

from __future__ import annotations

import bisect

import numpy as np
from numpy.typing import NDArray

TAIL_CONFIDENCE = 0.99
"""As in MLPerf's load generator."""


def tail_bounds(samples_s: NDArray[np.float64], *, are_calls: bool) -> dict[str, float | None]:
    """Return what the tail's percentiles lie below; nothing where a sample is several calls."""
    return {
        name: upper_bound_s(samples_s, quantile) if are_calls else None
        for name, quantile in (("p90_bound_s", 0.9), ("p99_bound_s", 0.99))
    }


def upper_bound_s(
    samples_s: NDArray[np.float64], quantile: float, confidence: float = TAIL_CONFIDENCE
) -> float | None:
    """Return what the quantile of the calls' distribution lies below, with the confidence.

    The smallest sample that at least so often has the quantile below it; it supposes calls that do
    not depend on each other, so that slow spells make it too low.

    Args:
        samples_s: ``float64[n]``, one for every call.
        quantile: e.g. 0.99.
        confidence: of the bound.

    Returns:
        None where even the slowest of so few calls bounds nothing: below 44 for a ninetieth
        percentile, below 459 for a ninety-ninth (at 99 %).
    """
    from scipy.special import bdtr

    def at_most(k: int) -> float:
        """Return how likely at most ``k`` calls are below the quantile: the next one is above."""
        return float(bdtr(float(k), n, quantile))

    n = samples_s.size
    place = bisect.bisect_left(range(n), confidence, key=at_most)
    return float(np.partition(samples_s, place)[place]) if place < n else None
