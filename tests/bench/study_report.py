"""What the cells of a study come to: tables with 95 % intervals over seeds, as Markdown.

A network is chosen by its validation accuracy; what is told of it is its test accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from hwprof.interval import Interval
from hwprof.pareto import front_indices
from hwprof.units import NOTHING

Row = dict[str, Any]
Statistic = Callable[[Row], float | None]

SPACES = ("full", "reduced")
MODES = ("recompute", "two-path", "reinforce")
BLIND = "blind"
METHODS = (*MODES, BLIND, "nsga2", "random")
BESIDE = 1.05
"""What a network may take of a latency that it was searched for, as measured, relative to it."""
CHANCE_PCT = 10.0
"""Top-1 of guessing among ten classes; the accuracy of the reference point."""

COMPARED = (
    ("recompute", BLIND),
    *((mode, control) for control in ("nsga2", "random") for mode in MODES),
    ("nsga2", "random"),
)


def timed(row: Row) -> list[dict[str, Any]]:
    """Return a cell's networks that were measured."""
    return [n for n in row["networks"] if n["latency_s"] is not None]


def at_latency_pct(row: Row, limit_s: float) -> float | None:
    """Return the test accuracy of the network that validation chooses among the fast enough."""
    fast = [n for n in timed(row) if n["latency_s"] <= limit_s]
    if not fast:
        return None
    chosen = max(fast, key=lambda n: (n["validation_pct"], -n["latency_s"]))
    return float(chosen["test_pct"])


def area_ms_pp(row: Row, reference_s: float) -> float:
    """Return the area between the measured front and the reference point, in ms times points.

    The hypervolume, with one difference: networks are on the front by their validation accuracy,
    and count with their test accuracy. For every latency up to the reference this is the test
    accuracy, above chance, of what one would choose there.
    """
    found = [n for n in timed(row) if n["latency_s"] < reference_s]
    latency_s = np.array([n["latency_s"] for n in found])
    front = front_indices(latency_s, [n["validation_pct"] for n in found])
    widths_s = np.diff(latency_s[front], append=reference_s) if front else np.empty(0)
    gains = np.array([found[i]["test_pct"] - CHANCE_PCT for i in front])
    return 1e3 * float(widths_s @ gains)


def off_target_pct(row: Row) -> float | None:
    """Return how far measured latencies are from their targets on average, in percent."""
    off = [abs(n["latency_s"] / n["target_s"] - 1.0) for n in timed(row)]
    return 100.0 * float(np.mean(off)) if off else None


def reached(rows: Sequence[Row]) -> str:
    """Say how near the networks that were derived for a latency come to it, as measured."""
    derived = [n for row in rows for n in timed(row) if "argmax_s" in n]
    if not derived:
        return ""
    off_pct = [100.0 * abs(n["latency_s"] / n["target_s"] - 1.0) for n in derived]
    near = sum(off <= 5.0 for off in off_pct)
    return (
        f" Of {len(derived)} networks derived for a latency {near} take, as measured, what was asked "
        f"for within 5 %: {np.median(off_pct):.1f} % off at the median, {max(off_pct):.1f} % at most."
    )


def argmax_pct(row: Row) -> float | None:
    """Return the latency of the most probable networks over their targets, in percent."""
    found = [n["argmax_s"] / n["target_s"] for n in row["networks"] if "argmax_s" in n]
    return 100.0 * float(np.mean(found)) if found else None


def over_seeds(values: Sequence[float | None]) -> Interval:
    """Return the mean with its 95 % interval by Student's t; None is left out."""
    known = np.array([v for v in values if v is not None], dtype=float)
    if known.size == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(known.mean())
    if known.size == 1:
        return Interval(mean, np.nan, np.nan)
    half = float(stats.t.ppf(0.975, known.size - 1) * known.std(ddof=1) / np.sqrt(known.size))
    return Interval(mean, mean - half, mean + half)


def paired(
    first: Mapping[int, Row], second: Mapping[int, Row], statistic: Statistic
) -> dict[int, float]:
    """Return the first minus the second by seed, of the seeds where both have a value."""
    found = {}
    for seed in sorted(first.keys() & second.keys()):
        one, other = statistic(first[seed]), statistic(second[seed])
        if one is not None and other is not None:
            found[seed] = one - other
    return found


def statistics_of(targets_s: Sequence[float]) -> dict[str, Statistic]:
    """Return by the head of its column what is told of a cell and compared between cells."""
    reference_s = BESIDE * max(targets_s)
    columns: dict[str, Statistic] = {"area, ms·pp": lambda row: area_ms_pp(row, reference_s)}
    for target_s in sorted(targets_s):
        name = f"test % at {target_s * 1e3:.3g} ms"
        columns[name] = partial(at_latency_pct, limit_s=BESIDE * target_s)
    return columns


def report(rows: Sequence[Row], targets_s: Sequence[float]) -> str:
    """Return all tables.

    Args:
        rows: finished cells; ``latency_s`` of a network is None where it was not measured.
        targets_s: the latencies that were searched for.
    """
    cells: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        cells.setdefault((row["space"], row["method"]), {})[row["seed"]] = row
    columns = statistics_of(targets_s)
    networks = [n for row in rows for n in row["networks"]]
    untimed = sum(n["latency_s"] is None for n in networks)
    parts = [
        f"{len(rows)} cells, {len(networks)} networks"
        + (f", of which {untimed} have no measured latency and are left out" if untimed else "")
        + f". Reference point of the area: {BESIDE * max(targets_s) * 1e3:.4g} ms, "
        f"{CHANCE_PCT:g} %. Means over seeds with 95 % intervals by Student's t." + reached(rows),
        _table(_methods(cells, columns)),
        "Paired by seed; in *both* a seed's value is the mean over the two spaces.",
        _table(_comparisons(cells, columns)),
        "The reduced space minus the full one, paired by seed.",
        _table(_reductions(cells, columns)),
    ]
    return "\n\n".join(parts)


def _methods(
    cells: Mapping[tuple[str, str], Mapping[int, Row]], columns: Mapping[str, Statistic]
) -> list[dict[str, str]]:
    lines = []
    for (space, method), found in sorted(cells.items(), key=_order):
        rows = list(found.values())

        def mean(values: Sequence[float | None], digits: int) -> str:
            return _shown(over_seeds(values)._replace(lo=np.nan, hi=np.nan), digits)

        lines.append(
            {
                "space": space,
                "method": method,
                "seeds": str(len(rows)),
                **{name: _shown(over_seeds([f(r) for r in rows])) for name, f in columns.items()},
                "networks": mean([len(r["networks"]) for r in rows], 1),
                "off target, %": mean([off_target_pct(r) for r in rows], 1),
                "argmax / target, %": mean([argmax_pct(r) for r in rows], 0),
                "images trained, 1000": mean([1e-3 * r["trained_images"] for r in rows], 0),
                "images judged, 1000": mean([1e-3 * r["judged_images"] for r in rows], 0),
                "CPU s": mean([r["cpu_s"] for r in rows], 0),
            }
        )
    return lines


def _comparisons(
    cells: Mapping[tuple[str, str], Mapping[int, Row]], columns: Mapping[str, Statistic]
) -> list[dict[str, str]]:
    lines = []
    spaces = [s for s in SPACES if any(space == s for space, _ in cells)]
    for first, second in COMPARED:
        by_space = {
            space: {
                name: paired(cells.get((space, first), {}), cells.get((space, second), {}), f)
                for name, f in columns.items()
            }
            for space in spaces
        }
        if len(spaces) > 1:
            by_space["both"] = {
                name: _both([by_space[s][name] for s in spaces]) for name in columns
            }
        lines += [_difference(f"{first} − {second}", s, found) for s, found in by_space.items()]
    return lines


def _reductions(
    cells: Mapping[tuple[str, str], Mapping[int, Row]], columns: Mapping[str, Statistic]
) -> list[dict[str, str]]:
    methods = [method for space, method in sorted(cells, key=_place) if space == "full"]
    return [
        _difference(
            method,
            "reduced − full",
            {
                name: paired(cells.get(("reduced", method), {}), cells["full", method], f)
                for name, f in columns.items()
            },
        )
        for method in methods
    ]


def _both(found: Sequence[Mapping[int, float]]) -> dict[int, float]:
    seeds = set.intersection(*(set(f) for f in found))
    return {seed: float(np.mean([f[seed] for f in found])) for seed in sorted(seeds)}


def _difference(what: str, space: str, found: Mapping[str, Mapping[int, float]]) -> dict[str, str]:
    pairs = max((len(f) for f in found.values()), default=0)
    line = {"difference": what, "space": space, "pairs": str(pairs)}
    for name, by_seed in found.items():
        fewer = f" ({len(by_seed)} pairs)" if len(by_seed) < pairs else ""
        line[name] = _shown(over_seeds(list(by_seed.values())), sign="+") + fewer
    return line


def _order(item: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    return _place(item[0])


def _place(cell: tuple[str, str]) -> tuple[int, int]:
    return SPACES.index(cell[0]), METHODS.index(cell[1])


def _shown(value: Interval, digits: int = 2, sign: str = "") -> str:
    if not np.isfinite(value.value):
        return NOTHING
    text = f"{value.value:{sign}.{digits}f}"
    if np.isfinite(value.lo):
        text += f" [{value.lo:{sign}.{digits}f}, {value.hi:{sign}.{digits}f}]"
    return text


def _table(lines: Sequence[Mapping[str, str]]) -> str:
    if not lines:
        return "nothing is finished yet"
    words = ("space", "method", "difference")
    rows = [list(lines[0]), ["---" if n in words else "---:" for n in lines[0]]]
    rows += [list(line.values()) for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
