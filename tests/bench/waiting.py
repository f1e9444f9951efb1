"""The seconds that a campaign took: those a user waited for, and those inside timed calls."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hwprof.measure.records import Measurement

LONGEST_GAP_S = 60.0
"""Between two bursts of one call of ``hwprof profile``; more is a pause between two calls."""


def burst_seconds(measurements: Iterable[Measurement]) -> float:
    """Return the time inside timed calls."""
    return sum(float(b.burst.duration_ns.sum()) * 1e-9 for m in measurements for b in m.bursts)


def waited_seconds(measurements: Iterable[Measurement]) -> float:
    """Return the time from the first burst to the start of the last, without pauses between calls.

    Loading models and starting workers is in it, but for what comes before a call's first burst.
    """
    starts_ns = sorted(int(b.burst.start_ns[0]) for m in measurements for b in m.bursts)
    gaps_s = ((b - a) * 1e-9 for a, b in pairwise(starts_ns))
    return sum(gap_s for gap_s in gaps_s if gap_s <= LONGEST_GAP_S)
