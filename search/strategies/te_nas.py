"""TE-NAS: all cells in one untrained supernet, pruned by two indicators until one cell is left.

Source: Chen et al., ICLR 2021, and its code (VITA-Group/TENAS). Every round asks of every live
candidate by which share the condition number κ of the neural tangent kernel would fall without it,
and by which the number R of linear regions. Both are ranked over all decisions together (dense
ranks, κ's largest fall first, R's least fall first), and every decision loses the candidate with
the smallest sum: the one whose absence helps κ most and hurts R least.

The public code passes its initialiser a name that this does not know, so that its repeats differ
in nothing but data; here every repeat draws its own weights, as the paper says, by fan-in for both
indicators (the public code means fan-out for κ). Within a repeat
all candidates are compared on the same weights, images and patches.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hwprof.errors import DataError, HwprofError, PlanError, SpaceError
from hwprof.progress import Pace, Progress, ProgressCallback
from hwprof.search.events import ChoicesPruned, SearchStarted
from hwprof.search.journal import Journal
from hwprof.search.judging import Latency
from hwprof.search.ledger import Ledger
from hwprof.search.runner import request_of
from hwprof.search.strategies.indicators import Indicate, TeNasConfig
from hwprof.space import Architecture, DesignSpace, Slot
from hwprof.space.nasbench201 import CellSpace

STRATEGY = "te-nas"
NOTHING = "none"
DECIMALS = 3
"""To which shares are rounded, so that equal effects rank equally (the public code)."""


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What the supernet would be without a candidate, and whether it lost it.

    ``condition_fall`` and ``regions_fall`` are shares of κ and of R; ``rank`` is the sum of both
    ranks, small where the candidate is best dropped. A fall of κ that is not finite ranks last.
    """

    slot: Slot
    block: str
    condition_fall: float
    regions_fall: float
    rank: int
    is_removed: bool = False

    def to_row(self) -> dict[str, Any]:
        """Return the removal as plain data."""
        fall = self.condition_fall
        row = asdict(self) | {"condition_fall": fall if math.isfinite(fall) else None}
        slot = row.pop("slot")
        return {"unit": slot[0], "layer": slot[1], **row}


def dense_ranks(values: Sequence[float]) -> list[int]:
    """Rank the smallest 0; equal values share a rank, and what is not finite comes last."""
    places = {v: place for place, v in enumerate(sorted({v for v in values if math.isfinite(v)}))}
    return [places.get(v, len(places)) for v in values]


def judge_removals(
    space: DesignSpace,
    indicate: Indicate,
    draws: Sequence[Sequence[int]],
    tick: Callable[[], None] = lambda: None,
) -> list[Removal]:
    """Rank every live candidate of every decision.

    Args:
        space: what is left.
        indicate: measures the indicators.
        draws: the seeds of each repeat; shares are averaged over them.
        tick: called after each repeat.
    """
    options = [
        (slot, block)
        for slot in space.slots
        if len(space.choices(slot)) > 1
        for block in space.choices(slot)
    ]
    parts = [space, *(without(space, slot, block) for slot, block in options)]
    falls: list[tuple[list[float], list[float]]] = [([], []) for _ in options]
    for seeds in draws:
        whole, *rest = indicate(space, parts, seeds)
        for found, (conditions, regions) in zip(rest, falls, strict=True):
            conditions.append((whole.condition - found.condition) / whole.condition)
            regions.append((whole.regions - found.regions) / whole.regions)
        tick()
    condition_falls = [round(statistics.fmean(c), DECIMALS) for c, _ in falls]
    regions_falls = [round(statistics.fmean(r), DECIMALS) for _, r in falls]
    ranks = zip(dense_ranks([-c for c in condition_falls]), dense_ranks(regions_falls), strict=True)
    return [
        Removal(slot=slot, block=block, condition_fall=c, regions_fall=r, rank=sum(both))
        for (slot, block), c, r, both in zip(
            options, condition_falls, regions_falls, ranks, strict=True
        )
    ]


def without(space: DesignSpace, slot: Slot, block: str) -> DesignSpace:
    """Return the space without one candidate of one slot."""
    return space.restrict({slot: tuple(b for b in space.choices(slot) if b != block)})


class Reach:
    """The networks of a space that are predicted to be within a target."""

    def __init__(self, space: DesignSpace, latency: Latency, target_s: float) -> None:
        """Predict all networks of ``space``.

        Raises:
            DataError: one of them has no latency.
            PlanError: not one is within the target.
        """
        cells = list(product(*(space.choices(slot) for slot in space.slots)))
        try:
            predicted = latency([space.assemble((cell,), ()) for cell in cells])
        except HwprofError as error:
            raise DataError(
                f"{error}; to keep to a target te-nas needs the latency of every cell without "
                f"{NOTHING!r}: name another source with --latency, or leave out --target-ms"
            ) from error
        times_s = [latency_s for latency_s, _ in predicted]
        self.fastest_s = min(times_s)
        self._within = [c for c, time_s in zip(cells, times_s, strict=True) if time_s <= target_s]
        if not self._within:
            raise PlanError(
                f"the fastest cell without {NOTHING!r}, which te-nas drops, is predicted "
                f"{self.fastest_s * 1e3:.4g} ms, slower than the target of {target_s * 1e3:.4g} ms; "
                "raise --target-ms"
            )

    def meets(self, space: DesignSpace) -> bool:
        """Say whether a network of what is left of the space is within the target."""
        live = [frozenset(space.choices(slot)) for slot in space.slots]
        return any(
            all(op in alive for op, alive in zip(cell, live, strict=True)) for cell in self._within
        )


def prune(
    space: DesignSpace, removals: Sequence[Removal], reach: Reach | None
) -> tuple[DesignSpace, list[Removal]]:
    """Drop the best-ranked candidate of every decision (of equals the first).

    With a ``reach`` a candidate stays if no network within the target would be left, and the next
    of its decision goes. There is one: what no such network can do without is one candidate.

    Returns:
        What is left, and the removals with those marked that were made.
    """
    removed: dict[Slot, str] = {}
    for removal in sorted(removals, key=lambda r: r.rank):
        if removal.slot in removed:
            continue
        smaller = without(space, removal.slot, removal.block)
        if reach is None or reach.meets(smaller):
            space, removed[removal.slot] = smaller, removal.block
    marked = [replace(r, is_removed=removed.get(r.slot) == r.block) for r in removals]
    return space, marked


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """The network that is left, every round, the settings and the time that it took."""

    arch: Architecture
    rounds: tuple[tuple[Mapping[str, Any], ...], ...]
    """:meth:`Removal.to_row` of every candidate, round by round."""
    settings: Mapping[str, Any]
    seconds: float


def search_te_nas(
    space: DesignSpace,
    indicate: Indicate,
    config: TeNasConfig,
    *,
    latency: Latency,
    target_s: float | None = None,
    images: str = "",
    folder: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Pruned:
    """Prune ``space`` to one network.

    Args:
        space: NAS-Bench-201, or what is left of it; ``none`` is dropped first where it may be.
        indicate: measures the indicators.
        config: repeats and seed; recorded.
        latency: predicts latencies; asked only where there is a target.
        target_s: the network's predicted latency is at most this.
        images: the digest of the task, recorded.
        folder: keeps every round at once; called again, the search goes on with the next.
        progress: called after each repeat.

    Raises:
        DataError: there is a target, and a network without a latency.
        IncompatibleRunError: ``folder`` holds a search that was asked something else.
        PlanError: no network is within the target.
        SpaceError: the space is another one.
        StoreError: ``folder`` cannot be used.
    """
    require_cells(space)
    left = _with_something(space)
    reach = None if target_s is None else Reach(left, latency, target_s)
    settings = {k: v for k, v in asdict(config).items() if k != "seed"}
    request = {
        **request_of(
            space, strategy=STRATEGY, settings=settings, target_s=target_s, seed=config.seed
        ),
        "images": images,
        # Where it was another latency source, rounds so far were pruned for other networks.
        "fastest_s": None if reach is None else float(f"{reach.fastest_s:.6g}"),
    }
    ledger = Ledger()
    with Journal(folder, request) as journal:
        rounds: list[tuple[Mapping[str, Any], ...]] = []
        if journal.resumed is None:
            journal.record(SearchStarted(request=request), ledger.tick())
        else:
            ledger.wall_s = journal.resumed.ledger["wall_s"]
            rounds = [tuple(found) for found in journal.resumed.strategy["rounds"]]
        for row in (row for found in rounds for row in found if row["is_removed"]):
            left = without(left, Slot(row["unit"], row["layer"]), row["block"])
        done = len(rounds) * config.repeats
        pace = Pace(total=done + _rounds(left) * config.repeats, done_before=done)

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                eta_s = pace.eta_s(done)
                progress(Progress(stage="search", done=done, total=pace.total, eta_s=eta_s))

        while _rounds(left):
            draws = [(config.seed, len(rounds), repeat) for repeat in range(config.repeats)]
            removals = judge_removals(left, indicate, draws, tick)
            left, removals = prune(left, removals, reach)
            rounds.append(tuple(removal.to_row() for removal in removals))
            event = ChoicesPruned(round=len(rounds), candidates=rounds[-1])
            journal.record(event, ledger.tick())
            journal.checkpoint({"rounds": rounds}, ledger.to_json())
    cell = tuple(left.choices(slot)[0] for slot in left.slots)
    return Pruned(
        arch=left.assemble((cell,), ()),
        rounds=tuple(rounds),
        settings=settings,
        seconds=ledger.tick(),
    )


def require_cells(space: DesignSpace) -> None:
    """Refuse a space that TE-NAS does not search here.

    Raises:
        SpaceError: it is not NAS-Bench-201.
    """
    if not isinstance(space, CellSpace):
        raise SpaceError(
            f"te-nas does not search {space.name!r}: its indicators are defined for cells of ReLU "
            "networks; expected nasbench201 (for layers in slots there is --strategy proxyless)"
        )


def _with_something(space: DesignSpace) -> DesignSpace:
    """Drop ``none`` from every decision that has something else."""
    kept = {s: tuple(b for b in space.choices(s) if b != NOTHING) for s in space.slots}
    return space.restrict({slot: found for slot, found in kept.items() if found})


def _rounds(space: DesignSpace) -> int:
    """Return how many rounds of pruning are left."""
    return max(len(space.choices(slot)) for slot in space.slots) - 1
