"""Three answers to what a block costs: traced inside, alone, and by leaving it out.

*Alone* shows the block at its best (caches hot) with the changes of layout that it needs at its
ends; *differential* is the network minus the network without the block, which only layers that
are optional have. The three need not agree, and where they do not is worth knowing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hwprof.errors import PlanError
from hwprof.interval import Interval
from hwprof.measure.records import Measurement, Result
from hwprof.parts.records import PartsResult, PartTime
from hwprof.space import Architecture, DesignSpace, Slot, space_of
from hwprof.space.architecture import SKIP
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload, distinct


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is timed beside a network; both by the scope of the block's place."""

    alone: Mapping[str, Workload]
    without: Mapping[str, Workload]

    @property
    def workloads(self) -> list[Workload]:
        """Everything there is to time, once each: equal blocks stand in several places."""
        return distinct([*self.alone.values(), *self.without.values()])


def comparison(network: Workload) -> Comparison:
    """Return what is timed beside a network of a design space.

    Raises:
        PlanError: the workload is no network of a space.
    """
    arch = network.arch
    if arch is None:
        raise PlanError(
            f"{network.label!r} is a model of your own, whose parts cannot be run alone; "
            "--isolated takes a network of a design space"
        )
    space = space_of(arch)
    places = [p for p in space.pieces(arch) if not isinstance(p.piece, SkipPiece)]
    alone = {p.scope: Workload.block(p.piece, f"{p.scope} alone") for p in places}
    shorter = {p.scope: without(space, arch, p.slot) for p in places if p.slot is not None}
    return Comparison(
        alone={scope: replace(w, seed=network.seed) for scope, w in alone.items()},
        without={
            scope: replace(Workload.network(other, f"without {scope}"), seed=network.seed)
            for scope, other in shorter.items()
            if other is not None
        },
    )


def without(space: DesignSpace, arch: Architecture, slot: Slot) -> Architecture | None:
    """Return the network without the block at ``slot``, or None where the layer is always there.

    A layer is optional where ``skip`` is a candidate, or where it is the last of a unit that
    may be shallower.
    """
    if not arch.units:
        return None
    units = [list(unit) for unit in arch.units]
    blocks = units[slot.unit]
    if SKIP in space.base_choices(slot):
        blocks[slot.layer] = SKIP
    elif slot.layer == len(blocks) - 1 and len(blocks) - 1 in space.depths(slot.unit):
        blocks.pop()
    else:
        return None
    return replace(arch, units=tuple(tuple(unit) for unit in units))


def compare_parts(
    result: PartsResult,
    beside: Comparison,
    results: Mapping[str, Result],
    layouts_s: Mapping[str, float],
) -> PartsResult:
    """Return the parts with what was timed beside them; what failed stays empty.

    Args:
        result: the traced parts.
        beside: what was timed.
        results: measurements and failures by workload key.
        layouts_s: changes of layout inside the blocks alone, by workload key.
    """

    def timed(workload: Workload | None) -> Measurement | None:
        found = None if workload is None else results.get(workload.key)
        return found if isinstance(found, Measurement) else None

    # Where the network was measured once more the machine had changed: a difference takes what
    # was timed beside the shorter networks, whichever of its levels is shown.
    whole = timed(result.measurement.workload)

    def compared(part: PartTime) -> PartTime:
        alone = beside.alone.get(part.part)
        if part.kind != "block" or alone is None:
            return part
        block, shorter = timed(alone), timed(beside.without.get(part.part))
        return replace(
            part,
            isolated_hot_s=None if block is None else Interval(block.level_s, *block.beside_ci95_s),
            isolated_layout_s=layouts_s.get(alone.key),
            differential_s=difference(whole, shorter) if whole and shorter else None,
        )

    return replace(result, parts=tuple(compared(part) for part in result.parts))


def difference(more: Measurement, less: Measurement) -> Interval:
    """Return the difference of two levels of one campaign; their errors are taken for independent.

    What sessions differ by falls on both where the same workers timed them. A campaign may have
    several groups of workers (:mod:`hwprof.measure.room`); two of those are two sessions.
    """
    value = more.level_s - less.level_s
    together = not _workers(more).isdisjoint(_workers(less))
    intervals = (m.beside_ci95_s if together else m.ci95_s for m in (more, less))
    half = math.hypot(*(0.5 * (high - low) for low, high in intervals))
    return Interval(value, value - half, value + half)


def _workers(found: Measurement) -> frozenset[str]:
    return frozenset(found.telemetry.get("worker_levels_s", ()))
