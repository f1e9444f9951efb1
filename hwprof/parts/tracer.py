"""What a tracer adds to the time it reports, measured apart from what is traced, and removed.

A tracer costs time twice for every operator: *inside* the interval it reports (it reads the
clock, then describes the inputs; it describes the outputs, then reads the clock again) and in
the *gap* before the next one (it stores the event). The gap is seen and simply not counted.
What lies inside is not seen: it is calibrated on chains of trivial operators, whose own time is
known from calls without the tracer. Between the heavy operators of a real network the tracer's
code and data have left the caches and both costs grow alike, so the calibrated cost is scaled
by the gaps, the network's over those of a small network that stays in the caches. No step looks
at the traced network's latency without the tracer: that the corrected times add up to it is a
test, not a construction.

All arrays are ``float64`` seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

LOWEST_CALLS = 0.2
"""Share of a burst's calls that count, as a mean. A level takes the fastest call alone, which
repeats better, but an operator needs several calls to average the ticks of a coarse clock out: a
sum of parts lies above the level by as much as undisturbed calls differ."""
LOWEST_BURSTS = 0.5
"""Share of the bursts, and of the processes, that count."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedCalls:
    """Calls of one workload under the tracer.

    ``op_s`` and ``gap_s`` are ``[calls, operators]``: an operator's reported interval, and the
    time from its end to the next one's beginning. ``call_s``, ``wait_s`` (run-queue wait inside
    the call) and ``burst`` (number of the burst) are ``[calls]``.
    """

    op_s: Float64
    gap_s: Float64
    call_s: Float64
    wait_s: Float64
    burst: Int64


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedFloor:
    """The undisturbed call: ``op_s`` and ``gap_s`` are ``[operators]``."""

    op_s: Float64
    gap_s: Float64
    call_s: float
    usual_gap_s: float
    """Mean over a call's gaps, median over all calls: the undisturbed call was chosen for its
    short time, and where operators hardly vary that chooses short gaps."""

    @property
    def gaps_s(self) -> float:
        """Time of the call behind its operators."""
        return float(self.gap_s.sum())

    @property
    def outside_s(self) -> float:
        """Time of the call before its first and after its last operator."""
        return self.call_s - float(self.op_s.sum()) - self.gaps_s


@dataclass(frozen=True, kw_only=True)
class TracerCost:
    """What the tracer adds while all of it is in the caches."""

    inside_s: float
    """To the reported interval of an operator with one input."""
    inside_per_input_s: float
    """More, for every further input."""
    gap_s: float
    """Behind an operator."""
    per_call_s: float
    """Before the first and after the last operator of a call."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Corrected:
    """A call without the tracer: ``op_s`` and what was removed, both ``[operators]``."""

    op_s: Float64
    removed_s: Float64
    outside_s: float


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A chain of ``n_ops`` trivial operators with ``n_inputs`` each, run with and without tracer.

    ``added_s`` is what the tracer adds to a call, gaps apart.
    """

    n_ops: int
    n_inputs: int
    added_s: float


def lowest(values_s: Float64, share: float) -> NDArray[np.intp]:
    """Return the indices of the lowest ``share`` of ``values_s``, at least one."""
    count = max(1, math.ceil(share * values_s.size))
    return np.argsort(values_s, kind="stable")[:count]


def floor_s(bursts_s: Sequence[Float64]) -> float:
    """Return the floor of plain calls, estimated like :func:`traced_floor`."""
    each = np.array([x[lowest(x, LOWEST_CALLS)].mean() for x in bursts_s])
    return float(each[lowest(each, LOWEST_BURSTS)].mean())


def traced_floor(calls: TracedCalls, runs_per_call: float) -> TracedFloor:
    """Return the undisturbed call: the lowest calls of the lowest bursts, averaged.

    ``runs_per_call`` is how many operators run in a call (those in loops several times).
    """
    calls = without_waits(calls)
    rows = []
    for burst in np.unique(calls.burst):
        members = np.flatnonzero(calls.burst == burst)
        rows.append(members[lowest(calls.call_s[members], LOWEST_CALLS)])
    each = np.array([calls.call_s[r].mean() for r in rows])
    kept = [rows[i] for i in lowest(each, LOWEST_BURSTS)]
    return TracedFloor(
        op_s=np.mean([calls.op_s[r].mean(axis=0) for r in kept], axis=0),
        gap_s=np.mean([calls.gap_s[r].mean(axis=0) for r in kept], axis=0),
        call_s=float(np.mean([calls.call_s[r].mean() for r in kept])),
        usual_gap_s=float(np.median(calls.gap_s.sum(axis=1)) / runs_per_call),
    )


def without_waits(calls: TracedCalls) -> TracedCalls:
    """Take run-queue waits out of the calls and of the operators they fell into.

    The system tells how long a call waited but not where, so its wait is taken from the
    operators (or gaps, or what is before and behind them all) that exceed their own median most.
    Where most calls wait the median does so too: what is left is taken from all alike, or operators
    would take longer than the call that they are of.
    """
    around_s = calls.call_s - calls.op_s.sum(axis=1) - calls.gap_s.sum(axis=1)
    cells = np.column_stack([calls.op_s, calls.gap_s, np.maximum(around_s, 0.0)])
    excess = np.maximum(cells - np.median(cells, axis=0), 0.0)
    for row in np.flatnonzero(calls.wait_s > 0):
        left_s = calls.wait_s[row]
        for cell in np.argsort(-excess[row], kind="stable"):
            taken_s = min(left_s, excess[row, cell])
            if taken_s <= 0:
                break
            cells[row, cell] -= taken_s
            left_s -= taken_s
        if left_s > 0:  # a call takes no less than it waits
            cells[row] *= 1.0 - left_s / cells[row].sum()
    n_ops = calls.op_s.shape[1]
    return TracedCalls(
        op_s=cells[:, :n_ops],
        gap_s=cells[:, n_ops:-1],
        call_s=calls.call_s - calls.wait_s,
        wait_s=np.zeros_like(calls.wait_s),
        burst=calls.burst,
    )


def calibrate(narrow: Chain, wide: Chain, short: Chain, hot_gap_s: float) -> TracerCost:
    """Return the tracer's cost from chains whose own time is known.

    Args:
        narrow: a chain of operators with one input.
        wide: a chain of operators with several inputs.
        short: fewer of the operators of ``narrow``: two lengths tell what the tracer adds to an
            operator from what it adds to a call.
        hot_gap_s: the usual gap in a small network that stays in the caches; trivial operators
            leave the first-level cache to the tracer, which no network does.
    """
    inside_s = (narrow.added_s - short.added_s) / (narrow.n_ops - short.n_ops)
    per_call_s = short.added_s - short.n_ops * inside_s
    wide_s = (wide.added_s - per_call_s) / wide.n_ops
    per_input_s = (wide_s - inside_s) / (wide.n_inputs - narrow.n_inputs)
    return TracerCost(
        inside_s=inside_s,
        inside_per_input_s=max(per_input_s, 0.0),
        gap_s=hot_gap_s,
        per_call_s=max(per_call_s, 0.0),
    )


def correct(floor: TracedFloor, n_inputs: Int64, runs: Float64, cost: TracerCost) -> Corrected:
    """Remove the tracer's cost, operator by operator (nothing is scaled to fit a sum).

    An operator that takes next to no time may come out a little below zero: clipping it would
    bias the sum.

    Args:
        floor: the undisturbed call.
        n_inputs: ``int64[operators]``.
        runs: ``float64[operators]``, how often each runs in one call (1 outside of loops).
        cost: what the tracer adds, from :func:`calibrate`.
    """
    coldness = floor.usual_gap_s / cost.gap_s
    inside_s = coldness * runs * (cost.inside_s + cost.inside_per_input_s * (n_inputs - 1))
    return Corrected(
        op_s=floor.op_s - inside_s,
        removed_s=inside_s + floor.gap_s,
        outside_s=max(floor.outside_s - coldness * cost.per_call_s, 0.0),
    )
