"""What a report is made from, and the rows of block friendliness that every output shares.

The functions here, in :mod:`hwprof.reports.contexts`, :mod:`hwprof.reports.fronts` and
:mod:`hwprof.reports.sentences` turn results into plain rows. Figures, page, terminal and CSV
show those rows and compute nothing themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hwprof.estimate.comparing import EffectsComparison
from hwprof.estimate.crossval import HeldOut
from hwprof.interval import Interval
from hwprof.measure.records import Failure, Fingerprint
from hwprof.reports.places import Place
from hwprof.results import Effect, EffectKind, Holdout, Metric, SearchCourse, SearchResult
from hwprof.space import SKIP, Slot
from hwprof.space.reduction import Drop, Reduction
from hwprof.units import Scale, decimals_for, time_scale


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """How much was measured, what failed, and where the time went."""

    n_networks: int
    n_blocks: int
    failures: tuple[Failure, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Stage → seconds."""


@dataclass(frozen=True, kw_only=True)
class VerdictCount:
    """How many workloads carry a verdict, with typical lines of evidence."""

    verdict: str
    n: int
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class IsolatedBlock:
    """A block timed alone, at a place where it may stand."""

    slot: Slot
    block: str
    isolated_hot_s: Interval
    session_half_s: Mapping[str, float] = field(default_factory=dict)
    """What of its half-width is what sessions differ by, by the session that timed it."""
    isolated_cold_s: Interval | None = None
    """With caches flushed before every call, where that was measured."""
    differential_s: Interval | None = None
    """A network with the layer less the same without it, where that was measured."""
    regressed_s: float | None = None
    """In context, where the layer may be absent: what it adds to a network, by regression."""


@dataclass(frozen=True, kw_only=True)
class Hypervolume:
    """The volume that one search's front dominates, up to the report's reference point."""

    strategy: str
    reduced: bool
    value_s_pct: float
    confirmed: bool = True
    """Whether the front's latencies were measured rather than predicted."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report shows. Every part may be missing: an empty tuple, or None."""

    title: str
    space: str
    resolution_px: int
    fingerprint: Fingerprint
    campaign: Campaign
    verdicts: tuple[VerdictCount, ...] = ()
    effects: tuple[Effect, ...] = ()
    mean_latency: Interval | None = None
    mean_accuracy: Interval | None = None
    accuracy_source: str | None = None
    insights: tuple[str, ...] = ()
    devices: EffectsComparison | None = None
    """The report's device beside others, where several runs were named."""
    isolated: tuple[IsolatedBlock, ...] = ()
    holdout: Holdout | None = None
    predictions: tuple[HeldOut, ...] = ()
    reduction: Reduction | None = None
    full_searches: tuple[SearchResult, ...] = ()
    reduced_searches: tuple[SearchResult, ...] = ()
    places: tuple[Place, ...] = ()
    """Devices whose fronts stand beside each other; empty where there is one, and nothing was
    timed elsewhere."""
    courses: tuple[SearchCourse, ...] = ()
    """Of the searches that went by gradient, on the page's device."""
    courses_elsewhere: tuple[SearchCourse, ...] = ()
    """Of those on other devices: their networks are drawn, their latencies have no axis here."""
    hypervolumes: tuple[Hypervolume, ...] = ()
    hypervolume_reference: tuple[float, float] | None = None
    """Latency in seconds and accuracy in percent, common to all hypervolumes."""
    commands: tuple[str, ...] = ()
    """Command lines that make these results again."""
    notes: tuple[str, ...] = ()
    """Known limits of these results, a sentence each."""

    @property
    def device(self) -> str:
        """The device's registered name."""
        return str(self.fingerprint.stable.get("device", "unknown device"))

    @property
    def emulated(self) -> bool:
        """Whether the latencies come from an emulator, so that they mean nothing."""
        return is_emulated(self.fingerprint.to_json())


def is_emulated(fingerprint: Mapping[str, Any]) -> bool:
    """Say whether a fingerprint's facts, flat or as :meth:`Fingerprint.to_json`, are emulated."""
    groups = (fingerprint, fingerprint.get("stable", {}), fingerprint.get("volatile", {}))
    return any(bool(group.get("emulated")) for group in groups)


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Effects of one metric, slot by slot and block by block, in display units.

    ``cells[row][column]`` is None where the block is no candidate of the slot. Colours span
    ``±limit``; the few cells beyond it take the end's colour.
    """

    metric: Metric
    unit: str
    decimals: int
    slots: tuple[Slot, ...]
    blocks: tuple[str, ...]
    cells: tuple[tuple[Interval | None, ...], ...]
    limit: float

    @property
    def values(self) -> tuple[Interval, ...]:
        """Every cell that holds an effect."""
        return tuple(c for row in self.cells for c in row if c is not None)

    @property
    def n_settled(self) -> int:
        """How many cells have a settled sign."""
        return sum(c.excludes_zero for c in self.values)

    def goodness(self, cell: Interval) -> float:
        """Return -1 (worst) to 1 (best): faster is good, more accurate is good."""
        share = max(-1.0, min(1.0, cell.value / self.limit))
        return -share if self.metric == "latency" else share


def effects_of_kind(effects: Sequence[Effect], kind: EffectKind) -> tuple[Effect, ...]:
    """Return the effects of one kind, in their order."""
    return tuple(e for e in effects if e.kind == kind)


def latency_scale(values_s: Sequence[float]) -> Scale:
    """Return the unit of time in which all of ``values_s`` are shown together."""
    return time_scale(max((abs(v) for v in values_s), default=0.0))


def scaled(interval: Interval, factor: float) -> Interval:
    """Return the interval in units of ``factor``."""
    return Interval(*(v / factor for v in interval))


def by_slot(effects: Sequence[Effect], metric: Metric) -> dict[Slot, dict[str, Interval]]:
    """Return the effects of single blocks on one metric, by slot and block."""
    found: dict[Slot, dict[str, Interval]] = {}
    for effect in effects_of_kind(effects, "block"):
        value = effect.latency if metric == "latency" else effect.accuracy
        if value is None or effect.unit is None or effect.layer is None or effect.block is None:
            continue
        found.setdefault(Slot(effect.unit, effect.layer), {})[effect.block] = value
    return found


def heat_map(effects: Sequence[Effect], metric: Metric) -> HeatMap | None:
    """Arrange the block effects of ``metric`` by slot and block; None where there are none."""
    found = by_slot(effects, metric)
    if not found:
        return None
    values = [cell.value for row in found.values() for cell in row.values()]
    scale = latency_scale(values) if metric == "latency" else Scale(1.0, "pp")
    slots = tuple(sorted(found))
    blocks = ordered_blocks([block for slot in slots for block in found[slot]])
    limit = _colour_limit([v / scale.factor for v in values])
    return HeatMap(
        metric=metric,
        unit=scale.unit,
        decimals=min(decimals_for(limit), 2),
        slots=slots,
        blocks=blocks,
        cells=tuple(
            tuple(
                scaled(found[slot][block], scale.factor) if block in found[slot] else None
                for block in blocks
            )
            for slot in slots
        ),
        limit=limit,
    )


def _colour_limit(values: Sequence[float]) -> float:
    """Return the 95th percentile of the sizes: one extreme slot must not bleach the others."""
    sizes = sorted(abs(v) for v in values)
    return sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))] or 1.0


def ordered_blocks(names: Sequence[str]) -> tuple[str, ...]:
    """Return each name once in order of appearance (the space's), ``skip`` last."""
    unique = dict.fromkeys(names)
    return (*(n for n in unique if n != SKIP), *((SKIP,) if SKIP in unique else ()))


def short_block(name: str) -> str:
    """Return a block's name as labels show it: ``mbconv_k5_e6`` is ``k5 e6``."""
    if match := re.fullmatch(r"mbconv_(k\d+)_(e\d+)", name):
        return f"{match[1]} {match[2]}"
    if match := re.fullmatch(r"bottleneck_(e[\d.]+)", name):
        return match[1]
    return name.removeprefix("nor_").replace("_", " ")


def slot_label(slot: Slot) -> str:
    """Return ``unit 0, layer 1``."""
    return f"unit {slot.unit}, layer {slot.layer}"


@dataclass(frozen=True, kw_only=True)
class EverywhereRow:
    """A block used at every place, against a random mix of blocks."""

    block: str
    latency: Interval | None
    accuracy: Interval | None
    dropped: bool


def everywhere_rows(data: ReportData) -> tuple[EverywhereRow, ...]:
    """Return the whole-network effect of every block, fastest first."""
    drops = data.reduction.drops if data.reduction else ()
    gone = {d.block for d in drops if d.block is not None and d.unit is None}
    rows = [
        EverywhereRow(
            block=effect.block,
            latency=effect.latency,
            accuracy=effect.accuracy,
            dropped=effect.block in gone,
        )
        for effect in effects_of_kind(data.effects, "network")
        if effect.block is not None
    ]
    return tuple(sorted(rows, key=lambda r: r.latency.value if r.latency else 0.0))


def drop_words(drop: Drop) -> str:
    """Say what the reducer removed, and where."""
    if drop.block is None:
        return f"depth {drop.depth} of unit {drop.unit}"
    if drop.unit is None:
        return f"{drop.block} everywhere"
    if drop.layer is None:
        return f"{drop.block} in unit {drop.unit}"
    return f"{drop.block} in {slot_label(Slot(drop.unit, drop.layer))}"


@dataclass(frozen=True, kw_only=True)
class KeptRow:
    """Neighbouring slots that keep the same blocks."""

    where: str
    blocks: tuple[str, ...]


def kept_rows(reduction: Reduction) -> tuple[KeptRow, ...]:
    """Return what remains, unit by unit; a unit whose layers agree takes one row."""
    rows: list[KeptRow] = []
    for unit, depth in enumerate(reduction.max_depth):
        alive = [tuple(reduction.alive.get(Slot(unit, layer), ())) for layer in range(depth)]
        if len(set(alive)) == 1:
            layers = "1 layer" if depth == 1 else f"up to {depth} layers"
            rows.append(KeptRow(where=f"unit {unit} ({layers})", blocks=alive[0]))
        else:
            rows.extend(
                KeptRow(where=slot_label(Slot(unit, layer)), blocks=blocks)
                for layer, blocks in enumerate(alive)
            )
    return tuple(rows)
