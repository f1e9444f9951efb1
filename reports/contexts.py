"""Blocks alone against blocks in a network, and the latency model against the clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwprof.interval import Interval
from hwprof.isolated import own_half_s
from hwprof.reports.views import IsolatedBlock, ReportData, by_slot
from hwprof.results import Effect
from hwprof.space import Slot


@dataclass(frozen=True, kw_only=True)
class ContextRow:
    """A block's cost alone and in context, both as differences from its slot's mean (s)."""

    slot: Slot
    block: str
    isolated: Interval
    in_context: Interval

    @property
    def gap_s(self) -> float:
        """How much more the block costs in a network than alone, against its neighbours."""
        return self.in_context.value - self.isolated.value

    @property
    def disagrees(self) -> bool:
        """Whether the gap is larger than both intervals together explain."""
        return abs(self.gap_s) > math.hypot(self.isolated.half_width, self.in_context.half_width)


@dataclass(frozen=True, kw_only=True)
class ContextSummary:
    """How well timing blocks alone tells what they cost in a network."""

    n: int
    n_disagree: int
    slope: float
    """Least-squares slope through zero of in-context on isolated differences."""
    correlation: float | None


def context_rows(
    isolated: Sequence[IsolatedBlock], effects: Sequence[Effect]
) -> tuple[ContextRow, ...]:
    """Join isolated times with in-context effects, both centred over the slot's common blocks.

    Where a layer is always there only contrasts between its blocks can be identified from
    whole networks, so absolute isolated times have nothing to be compared with.
    """
    alone: dict[Slot, dict[str, IsolatedBlock]] = {}
    for row in isolated:
        alone.setdefault(row.slot, {})[row.block] = row
    within = by_slot(effects, "latency")
    rows = []
    for slot in sorted(set(alone) & set(within)):
        common = [block for block in within[slot] if block in alone[slot]]
        if len(common) < 2:
            continue
        isolated_s = centred({b: alone[slot][b] for b in common})
        mean = math.fsum(within[slot][b].value for b in common) / len(common)
        for block in common:
            effect_s = within[slot][block]
            rows.append(
                ContextRow(
                    slot=slot,
                    block=block,
                    isolated=isolated_s[block],
                    in_context=Interval(*(v - mean for v in effect_s)),
                )
            )
    return tuple(rows)


def centred(times: Mapping[str, IsolatedBlock]) -> dict[str, Interval]:
    """Return times of a slot's blocks less their mean.

    Their own errors are independent. What sessions differ by moves all blocks of one session
    together, so that of it stays what a block and the mean do not share.
    """
    n = len(times)
    mean = math.fsum(t.isolated_hot_s.value for t in times.values()) / n
    own = {b: own_half_s(t.isolated_hot_s, t.session_half_s) ** 2 for b, t in times.items()}
    squares = math.fsum(own.values())
    shared: dict[str, float] = {}
    for time in times.values():
        for session, half_s in time.session_half_s.items():
            shared[session] = shared.get(session, 0.0) + half_s / n
    out = {}
    for block, time in times.items():
        # Var(x_b − mean) = (1 − 1/n)² s_b² + Σ_{j≠b} s_j² / n², and a session's deviation counts
        # with the difference of what it does to the block and to the mean.
        errors = (1 - 1 / n) ** 2 * own[block] + (squares - own[block]) / n**2
        sessions = [time.session_half_s.get(s, 0.0) - part for s, part in shared.items()]
        half = math.sqrt(errors + math.fsum(x**2 for x in sessions))
        value = time.isolated_hot_s.value - mean
        out[block] = Interval(value, value - half, value + half)
    return out


def context_summary(rows: Sequence[ContextRow]) -> ContextSummary | None:
    """Summarise the agreement; None where there is nothing to compare."""
    xx = math.fsum(r.isolated.value**2 for r in rows)
    yy = math.fsum(r.in_context.value**2 for r in rows)
    xy = math.fsum(r.isolated.value * r.in_context.value for r in rows)
    if xx == 0.0:
        return None
    return ContextSummary(
        n=len(rows),
        n_disagree=sum(r.disagrees for r in rows),
        slope=xy / xx,
        correlation=xy / math.sqrt(xx * yy) if yy > 0.0 else None,
    )


def largest_gaps(rows: Sequence[ContextRow], n: int = 8) -> tuple[ContextRow, ...]:
    """Return the blocks that isolated timing misjudges most, among those that disagree."""
    return tuple(sorted((r for r in rows if r.disagrees), key=lambda r: -abs(r.gap_s))[:n])


@dataclass(frozen=True, kw_only=True)
class PredictionRow:
    """A network's latency as predicted unseen and as measured (s)."""

    source: str
    """``held out`` (cross-validation) or ``finalist`` (measured again after the search)."""
    predicted_s: float
    measured_s: float
    half_width_s: float | None = None


def prediction_rows(data: ReportData) -> tuple[PredictionRow, ...]:
    """Return held-out networks and measured finalists of all searches."""
    rows = [
        PredictionRow(
            source="held out",
            predicted_s=p.predicted_s,
            measured_s=p.actual_s,
            half_width_s=p.half_s,
        )
        for p in data.predictions
    ]
    for search in (*data.full_searches, *data.reduced_searches):
        rows.extend(
            PredictionRow(source="finalist", predicted_s=t.predicted_s, measured_s=t.latency_s)
            for t in search.finalists
            if t.latency_source == "measured" and t.predicted_s is not None
        )
    return tuple(rows)
