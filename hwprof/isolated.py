"""Blocks timed alone, brought back to every place where they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwprof.interval import NORMAL_975, Interval
from hwprof.measure.floor import SESSION_SD
from hwprof.measure.session_spread import session_name
from hwprof.space.pieces import Piece, SkipPiece

if TYPE_CHECKING:
    from hwprof.space import DesignSpace, Slot
    from hwprof.store import ImportedBlock, Run


@dataclass(frozen=True, kw_only=True)
class IsolatedRow:
    """What ``block`` at ``slot`` costs when it runs alone, caches hot.

    ``slot`` is None for a fixed part, whose name is then in ``block``.
    """

    slot: Slot | None
    block: str
    isolated_hot_s: Interval
    """For other sessions."""
    session_half_s: Mapping[str, float] = field(default_factory=dict)
    """What of its half-width is what sessions differ by, by the session that timed it: blocks of
    one session move together."""

    @property
    def beside_s(self) -> Interval:
        """The same against other blocks of its session."""
        value = self.isolated_hot_s.value
        half_s = own_half_s(self.isolated_hot_s, self.session_half_s)
        return Interval(value, value - half_s, value + half_s)


def own_half_s(level_s: Interval, session_half_s: Mapping[str, float]) -> float:
    """Return an isolated level's half-width without what sessions differ by."""
    sessions = math.fsum(x**2 for x in session_half_s.values())
    return math.sqrt(max(0.0, level_s.half_width**2 - sessions))


Parts = Sequence[tuple[Piece, int]]


def isolated_table(run: Run, space: DesignSpace) -> list[IsolatedRow]:
    """Return the isolated latency of every fixed part and of every block at every slot.

    A block that is made of several pieces (an operator of NAS-Bench-201 stands five times at
    each of three widths) costs their sum; where a slot's widths vary (ResNet-50) it is the mean
    over them. ``skip`` is a layer that is not there and costs nothing. Blocks whose pieces have
    not all been measured are left out.
    """
    imported = run.imported_blocks(space.resolution_px)
    if imported:
        return [_imported_row(block) for block in imported]
    levels = piece_levels(run)
    found = (
        _row(slot, block, parts, levels, bool(space.factors))
        for (slot, block), parts in _places(space).items()
        if all(piece in levels or isinstance(piece, SkipPiece) for piece, _ in parts)
    )
    return list(found)


@dataclass(frozen=True, kw_only=True)
class PieceLevel:
    """A piece alone: its latency against the run's other pieces, and what sessions differ by."""

    level: Interval
    session_sd: float
    """Of ln(level)."""
    session: str
    """Tells those that one group of workers timed from others."""


def piece_levels(run: Run) -> dict[Piece, PieceLevel]:
    """Return the latency of every piece that the run timed alone."""
    return {
        m.workload.piece: PieceLevel(
            level=Interval(m.level_s, *m.beside_ci95_s),
            session_sd=m.telemetry.get("session_sd", SESSION_SD),
            session=session_name(m.telemetry) or "",
        )
        for m in run.measurements()
        if m.workload.piece is not None
    }


def _places(space: DesignSpace) -> Mapping[tuple[Slot | None, str], Parts]:
    """Return the pieces of every fixed part and block, each with how often it stands there."""
    places: dict[tuple[Slot | None, str], list[tuple[Piece, int]]] = {}
    for part in space.fixed_parts():
        places.setdefault((None, part.scope), []).append((part.piece, 1))
    for slot in space.slots:
        for block in space.choices(slot):
            places[slot, block] = []
    for piece, stands in space.block_places().items():
        for place in stands:
            places[place.slot, place.block].append((piece, place.count))
    return places


def _row(
    slot: Slot | None,
    block: str,
    parts: Parts,
    levels: Mapping[Piece, PieceLevel],
    averaged: bool,
) -> IsolatedRow:
    """Return the sum (or mean) over pieces, with its interval for other sessions.

    The errors of different pieces are independent; what sessions differ by moves all alike that
    one of them timed.
    """
    nothing = PieceLevel(level=Interval(0.0, 0.0, 0.0), session_sd=0.0, session="")
    share = 1.0 / len(parts) if averaged else 1.0
    terms = [(levels.get(piece, nothing), share * count) for piece, count in parts]
    value = math.fsum(one.level.value * n for one, n in terms)
    alike: dict[str, float] = {}
    for one, n in terms:
        half_s = NORMAL_975 * one.session_sd * one.level.value * n
        alike[one.session] = alike.get(one.session, 0.0) + half_s
    low = math.hypot(*((one.level.value - one.level.lo) * n for one, n in terms), *alike.values())
    high = math.hypot(*((one.level.hi - one.level.value) * n for one, n in terms), *alike.values())
    return IsolatedRow(
        slot=slot,
        block=block,
        isolated_hot_s=Interval(value, value - low, value + high),
        session_half_s=alike,
    )


def _imported_row(block: ImportedBlock) -> IsolatedRow:
    from hwprof.space import Slot

    slot = None if block.unit is None or block.layer is None else Slot(block.unit, block.layer)
    half_s = NORMAL_975 * (block.se_s or 0.0)
    value = block.latency_s
    return IsolatedRow(
        slot=slot, block=block.block, isolated_hot_s=Interval(value, value - half_s, value + half_s)
    )
