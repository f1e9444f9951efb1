"""Fronts as rows: every network with its numbers and its blocks, full against reduced space."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwprof.pareto import front_indices
from hwprof.reports.views import ReportData, short_block
from hwprof.results import SearchResult, Trial
from hwprof.space import SKIP, Architecture
from hwprof.space.nasbench201 import ENDS, parse_cell
from hwprof.units import only_ranked

STRATEGY_NAMES = {
    "nsga2": "NSGA-II",
    "ddpnas": "DDPNAS",
    "random": "random search",
    "proxyless": "ProxylessNAS",
    "te-nas": "TE-NAS",
}


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """A network on a search's front; ``number`` is how page, figure and table call it."""

    number: int
    search: str
    strategy: str
    reduced: bool
    seed: int
    confirmed: bool
    """Whether its latency was measured on the device rather than predicted."""
    trial: Trial
    best: bool = False
    """Whether no other network shown beats it."""

    @property
    def predicted_s(self) -> float | None:
        """What the latency model said."""
        return self.trial.predicted_s if self.confirmed else self.trial.latency_s

    @property
    def measured_s(self) -> float | None:
        """What the device said; None where nobody asked it."""
        return self.trial.latency_s if self.confirmed else None

    def to_row(self) -> dict[str, Any]:
        """Return the columns of ``front.csv``."""
        return {
            "number": self.number,
            "search": self.search,
            "strategy": self.strategy,
            "space": "reduced" if self.reduced else "full",
            "seed": self.seed,
            "confirmed": self.confirmed,
            "best": self.best,
            **{k: v for k, v in self.trial.to_row().items() if k not in ("arch", "ci95_s")},
            "ci95_lo_s": self.trial.ci95_s[0] if self.trial.ci95_s else None,
            "ci95_hi_s": self.trial.ci95_s[1] if self.trial.ci95_s else None,
            "arch": self.trial.arch.canonical_json(),
        }


def strategy_name(strategy: str) -> str:
    """Return a strategy's name as people write it."""
    return STRATEGY_NAMES.get(strategy, strategy)


def search_label(search: SearchResult, *, reduced: bool, with_seed: bool = False) -> str:
    """Return ``NSGA-II, reduced space``."""
    label = f"{strategy_name(search.strategy)}, {'reduced' if reduced else 'full'} space"
    return f"{label}, seed {search.seed}" if with_seed else label


def shown_searches(data: ReportData) -> list[tuple[SearchResult, bool]]:
    """Return (search, reduced) of the fronts to show: confirmed ones alone where there are any.

    Measured and predicted latencies never stand on one chart.
    """
    searches = [(s, False) for s in data.full_searches] + [(s, True) for s in data.reduced_searches]
    return [(s, r) for s, r in searches if s.confirmed] or searches


def front_points(data: ReportData) -> tuple[FrontPoint, ...]:
    """Return every front's networks, fastest first within a front, the best of all marked."""
    searches = shown_searches(data)
    plain = [search_label(s, reduced=r) for s, r in searches]
    seeded = [search_label(s, reduced=r, with_seed=True) for s, r in searches]
    points: list[FrontPoint] = []
    for i, (search, reduced) in enumerate(searches):
        label = seeded[i] if plain.count(plain[i]) > 1 else plain[i]
        if seeded.count(seeded[i]) > 1:  # such as one seed with two budgets
            label += f", no. {seeded[: i + 1].count(seeded[i])}"
        for trial in sorted(search.front, key=lambda t: t.latency_s):
            points.append(
                FrontPoint(
                    number=len(points) + 1,
                    search=label,
                    strategy=search.strategy,
                    reduced=reduced,
                    seed=search.seed,
                    confirmed=search.confirmed,
                    trial=trial,
                )
            )
    best = _best_numbers(points)
    return tuple(replace(p, best=p.number in best) for p in points)


def _best_numbers(points: Sequence[FrontPoint]) -> set[int]:
    latency = [p.trial.latency_s for p in points]
    accuracy = [p.trial.accuracy_pct for p in points]
    return {points[i].number for i in front_indices(latency, accuracy)}


def best_points(points: Iterable[FrontPoint]) -> tuple[FrontPoint, ...]:
    """Return the joint front, fastest first."""
    return tuple(sorted((p for p in points if p.best), key=lambda p: p.trial.latency_s))


def picks(best: Sequence[FrontPoint]) -> tuple[tuple[str, FrontPoint], ...]:
    """Name up to three networks of a front: fastest, balanced (the knee), most accurate.

    Of the last, where a proxy is all that is known, only that it ranks highest.
    """
    if not best:
        return ()
    if len(best) == 1:
        return (("the only one", best[0]),)
    first, last = best[0], best[-1]
    ranked = only_ranked(p.trial.accuracy_source for p in best)
    named = [("fastest", first), ("ranked highest" if ranked else "most accurate", last)]
    if len(best) > 2:
        named.insert(1, ("balanced", max(best[1:-1], key=lambda p: _above_chord(p, first, last))))
    return tuple(named)


def _above_chord(point: FrontPoint, first: FrontPoint, last: FrontPoint) -> float:
    """Return how far ``point`` lies above the line from the front's start to its end."""
    spans = (
        last.trial.latency_s - first.trial.latency_s,
        last.trial.accuracy_pct - first.trial.accuracy_pct,
    )
    x = (point.trial.latency_s - first.trial.latency_s) / spans[0]
    y = (point.trial.accuracy_pct - first.trial.accuracy_pct) / spans[1]
    return y - x


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """What one strategy found in the full or in the reduced space, over its seeds."""

    strategy: str
    reduced: bool
    n_searches: int
    n_judged: int
    """Networks judged by each search on average."""
    n_front: int
    fastest_s: float | None
    most_accurate_pct: float | None
    confirmed: bool
    hypervolume_s_pct: float | None
    hypervolume_range: tuple[float, float] | None
    """Smallest and largest over the seeds; None for one search."""
    gain: float | None
    """Relative change of the hypervolume against the same strategy in the full space."""


def comparison_rows(data: ReportData) -> tuple[ComparisonRow, ...]:
    """Compare full and reduced space, strategy by strategy."""
    groups: dict[tuple[str, bool], list[SearchResult]] = {}
    for search in data.full_searches:
        groups.setdefault((search.strategy, False), []).append(search)
    for search in data.reduced_searches:
        groups.setdefault((search.strategy, True), []).append(search)
    rows = {key: _comparison(key, found, data) for key, found in groups.items()}
    out = []
    for strategy, reduced in sorted(rows):
        row, full = rows[strategy, reduced], rows.get((strategy, False))
        if reduced and full is not None and full.confirmed == row.confirmed:
            before, after = full.hypervolume_s_pct, row.hypervolume_s_pct
            row = replace(row, gain=after / before - 1.0 if before and after is not None else None)
        out.append(row)
    return tuple(out)


def _comparison(
    key: tuple[str, bool], searches: Sequence[SearchResult], data: ReportData
) -> ComparisonRow:
    strategy, reduced = key
    # Measured and predicted latencies do not mix: where some were measured, those alone.
    confirmed = any(s.confirmed for s in searches)
    searches = [s for s in searches if s.confirmed == confirmed]
    volumes = [
        h.value_s_pct
        for h in data.hypervolumes
        if (h.strategy, h.reduced, h.confirmed) == (strategy, reduced, confirmed)
    ]
    front = [trial for search in searches for trial in search.front]
    return ComparisonRow(
        strategy=strategy,
        reduced=reduced,
        n_searches=len(searches),
        n_judged=round(sum(len(s.trials) for s in searches) / len(searches)),
        n_front=round(len(front) / len(searches)),
        fastest_s=min((t.latency_s for t in front), default=None),
        most_accurate_pct=max((t.accuracy_pct for t in front), default=None),
        confirmed=confirmed,
        hypervolume_s_pct=sum(volumes) / len(volumes) if volumes else None,
        hypervolume_range=(min(volumes), max(volumes)) if len(volumes) > 1 else None,
        gain=None,
    )


@dataclass(frozen=True, kw_only=True)
class DrawnBlock:
    """A block as the page draws it: ``height`` in 0..1, ``tone`` 0 (light) to 3 (dark)."""

    name: str
    label: str
    height: float
    tone: int


def unit_texts(arch: Architecture) -> tuple[tuple[str, str], ...]:
    """Return (part, its blocks) for each unit, the cell, and the parts beside the units."""
    parts = [
        (f"unit {index}", ", ".join(short_block(b) for b in unit))
        for index, unit in enumerate(arch.units)
    ]
    if arch.cell is not None:
        parts.append(("cell", arch.cell))
    if arch.stem_depth is not None:
        parts.append(("stem depth", str(arch.stem_depth)))
    if arch.widths is not None:
        parts.append(("width indices", ", ".join(map(str, arch.widths))))
    return tuple(parts)


def drawing(arch: Architecture) -> tuple[tuple[str, tuple[DrawnBlock, ...]], ...]:
    """Return (title, blocks) for each unit, to be drawn in a row.

    Height shows the expansion, tone the kernel: what mobile blocks differ in. Other blocks
    have full height and a middle tone.
    """
    if arch.cell is not None:
        blocks = tuple(
            replace(_drawn(op), label=f"{target}←{source} {short_block(op)}")
            for op, (source, target) in zip(parse_cell(arch.cell), ENDS, strict=True)
        )
        return (("cell", blocks),)
    return tuple(
        (f"unit {index}", tuple(_drawn(block) for block in unit))
        for index, unit in enumerate(arch.units)
    )


def _drawn(name: str) -> DrawnBlock:
    height, tone = 1.0, 2
    if name in (SKIP, "none"):
        height, tone = 0.0, 0
    elif match := re.fullmatch(r"mbconv_k(\d+)_e(\d+)", name):
        kernel, expand = int(match[1]), int(match[2])
        height, tone = min(1.0, expand / 6), min(3, (kernel - 1) // 2)
    elif match := re.fullmatch(r"bottleneck_e([\d.]+)", name):
        height = min(1.0, float(match[1]) / 0.35)
    return DrawnBlock(name=name, label=short_block(name), height=height, tone=tone)
