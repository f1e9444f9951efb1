"""From raw bursts to a level that repeats, with its interval: pure functions on arrays.

The *floor* is the target: the time of a call that nothing disturbs, in one of the faster workers
(their lower quartile). A burst tells it by its fastest call, a worker by the lower tenth of its
bursts (:mod:`hwprof.measure.floor`). Percentiles higher up repeat worse the more a machine is
shared: its slow modes last from a millisecond to minutes and cost 10 to 40 %.

Sources: the rules were chosen on measured data (``tests/bench/bench_repeatability.py`` repeats
the comparison); Mann (1945), Kendall (1975) and Theil (1950), Sen (1968) for the trend.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import MeasurementError
from hwprof.interval import NORMAL_975
from hwprof.measure.floor import (
    FLOOR,
    SESSION_SD,
    SLOW_MODE,
    USUAL,
    Rule,
    Within,
    interval_s,
    level_of,
    within_session,
    worker_floors_s,
)
from hwprof.measure.records import EXCLUDING_CAUSES, Burst, LabelledBurst

Float64 = NDArray[np.float64]

LONG_CALL_S = 3e-3
"""A longer call outlives a time slice, so that bursts without any wait are rare."""
WAITING_SHARE = 0.05
FEW_SAMPLES = 10
NO_WAIT = 0.01
"""A sample that stood in the run queue for at most so much of its time counts as undisturbed."""
TREND_P = 0.01
TREND_DRIFT = 0.02


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Whether a series moved in one direction: Mann–Kendall's p, Theil–Sen's total drift."""

    p: float
    drift: float

    @property
    def is_drifting(self) -> bool:
        """Whether the drift is both significant and large enough to matter."""
        return self.p < TREND_P and abs(self.drift) > TREND_DRIFT


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the bursts of one workload say."""

    level_s: float
    within: Within
    """How well the session knows it."""
    session_sd: float
    """What other sessions may differ by, in ln(level)."""
    worker_levels_s: Mapping[str, float]
    confirmed: bool
    trend: Trend
    n_bursts: int
    n_excluded: int
    slow_mode_share: float
    """Bursts more than 10 % above the level."""
    preempted_share: float
    """Samples that stood in the run queue for more than 1 % of their time."""

    @property
    def ci95_s(self) -> tuple[float, float]:
        """The 95 % interval for other sessions on this machine."""
        return interval_s(self.level_s, self.within.half_width, self.session_sd)

    @property
    def beside_ci95_s(self) -> tuple[float, float]:
        """The same against others of the same rounds: without what sessions differ by."""
        return interval_s(self.level_s, self.within.half_width, 0.0)

    @property
    def rel_half_width(self) -> float:
        """Half the interval's width, relative to the level."""
        return self._rel_half_width(self.session_sd)

    @property
    def rel_half_width_when_quiet(self) -> float:
        """What it would be on a quiet machine. More bursts narrow this, and nothing else."""
        return self._rel_half_width(SESSION_SD)

    def _rel_half_width(self, session_sd: float) -> float:
        return math.sinh(math.hypot(self.within.half_width, NORMAL_975 * session_sd))


def samples_s(burst: Burst) -> Float64:
    """Return wall seconds per call of every sample but the first, which finds caches cold."""
    wall: Float64 = burst.duration_ns[1:].astype(np.float64) * (1e-9 / burst.calls_per_sample)
    return wall


def corrected_s(burst: Burst, threads: int) -> Float64:
    """Return seconds per call without run-queue wait, the first sample dropped.

    With several threads one thread's wait is not the call's, so nothing is subtracted.
    """
    if threads > 1 or burst.wait_ns is None:
        return samples_s(burst)
    corrected = np.maximum(burst.duration_ns[1:] - burst.wait_ns[1:], 1).astype(np.float64)
    seconds: Float64 = corrected * (1e-9 / burst.calls_per_sample)
    return seconds


def waiting_share(burst: Burst) -> float:
    """Return the share of the burst's time that its thread stood in the run queue."""
    if burst.wait_ns is None:
        return 0.0
    return float(burst.wait_ns.sum() / burst.duration_ns.sum())


def burst_statistic_s(burst: Burst, threads: int) -> float | None:
    """Return a burst's time per call: tenth percentile, minimum if fewer than 10 samples.

    A long call in a burst that waited much has hardly one undisturbed sample: there the
    wait-corrected mean repeats best. None where nothing is left without the first sample.
    """
    x = corrected_s(burst, threads)
    if x.size == 0:
        return None
    if threads == 1 and waiting_share(burst) > WAITING_SHARE and np.median(x) > LONG_CALL_S:
        return float(x.mean())
    return float(x.min()) if x.size < FEW_SAMPLES else _tenth_percentile(x)


def _tenth_percentile(x: Float64) -> float:
    """Return what ``np.quantile`` does, in a fraction of its time: every burst has one."""
    ordered = np.sort(x)
    place = 0.1 * (x.size - 1)
    below = int(place)
    low, high = ordered[below : below + 2].tolist()
    return float(low + (place - below) * (high - low))


def burst_floor_s(burst: Burst, threads: int) -> float:
    """Return a burst's fastest call, of those that did not wait for a core if there are any.

    Else of all, without their wait: a wait that is read a moment late makes a call too short,
    which weighs little only where calls are long. The burst has at least two samples, for the
    first finds caches cold.
    """
    x = corrected_s(burst, threads)
    if threads == 1 and burst.wait_ns is not None:
        undisturbed = burst.wait_ns[1:] <= NO_WAIT * burst.duration_ns[1:]
        if undisturbed.any():
            x = x[undisturbed]
    return float(x.min())


def burst_figure_s(burst: Burst, threads: int, rule: Rule) -> float:
    """Return what a burst of at least two samples says under ``rule``: its floor, or its median."""
    if rule.fastest_call:
        return burst_floor_s(burst, threads)
    return float(np.median(corrected_s(burst, threads)))


def rule_for(bursts: Sequence[LabelledBurst], *, sustained: bool) -> Rule:
    """Return how bursts make a level: by their fast end, unless that is not what is asked for.

    A sustained load asks for what a device keeps up; a GPU's own time has no host's noise to look
    through, and its cold silicon is faster than it will be.
    """
    timed_by_gpu = any(b.burst.enqueue_ns is not None for b in bursts)
    return USUAL if sustained or timed_by_gpu else FLOOR


def used_bursts(bursts: Iterable[LabelledBurst]) -> list[LabelledBurst]:
    """Return the bursts that the level is made of.

    Warm-up stays out, and so does an excluded burst that was repeated; where nothing better
    exists for a worker's round, its last burst stays.
    """
    cells: dict[tuple[str, int], list[LabelledBurst]] = {}
    for burst in bursts:
        if "first" not in burst.causes:
            cells.setdefault((burst.worker, burst.round_index), []).append(burst)
    used: list[LabelledBurst] = []
    for cell in cells.values():
        good = [b for b in cell if EXCLUDING_CAUSES.isdisjoint(b.causes)]
        used += good or cell[-1:]
    return used


@dataclass(frozen=True, kw_only=True, eq=False)
class FloorTable:
    """The floors of a workload's bursts, by worker and round."""

    workers: tuple[str, ...]
    floors_s: Float64
    """``float64[workers, rounds]``, infinite where a worker has no burst in a round."""
    series_s: Sequence[float]
    """The same, burst by burst, in order of time."""

    def by_round(self, own_s: Float64) -> Float64:
        """Return ln(figure / the worker's own), the median over workers of every round.

        The workers' bursts of a round share what the machine did then: they are one reading.
        """
        logs = np.log(self.floors_s / own_s[:, None])
        logs[np.isinf(logs)] = np.nan
        middle: Float64 = np.nanmedian(logs, axis=0)
        return middle


def floor_table(used: Sequence[LabelledBurst], threads: int, rule: Rule = FLOOR) -> FloorTable:
    """Return the figures of bursts of at least two samples each.

    Where a worker has several bursts in a round, none of them undisturbed, the fastest counts.
    """
    workers = list(dict.fromkeys(b.worker for b in used))
    rounds = sorted({b.round_index for b in used})
    series = [burst_figure_s(b.burst, threads, rule) for b in used]
    floors = np.full((len(workers), len(rounds)), np.inf)
    for b, floor_s in zip(used, series, strict=True):
        cell = workers.index(b.worker), rounds.index(b.round_index)
        floors[cell] = min(floors[cell], floor_s)
    return FloorTable(workers=tuple(workers), floors_s=floors, series_s=series)


def is_confirmed(statistics_s: Sequence[float], workers: Sequence[str], level_s: float) -> bool:
    """Return whether at least 3 bursts of at least 2 workers lie within 1 % of the level.

    3 % where a call takes longer than 3 ms.
    """
    tolerance = 0.03 if level_s > LONG_CALL_S else 0.01
    near = [
        w for s, w in zip(statistics_s, workers, strict=True) if abs(s / level_s - 1) <= tolerance
    ]
    return len(near) >= 3 and len(set(near)) >= 2


def trend(series: Float64) -> Trend:
    """Test ``float64[n]`` (logarithms, in order of time) for a monotone trend.

    Mann–Kendall's normal approximation with its correction for ties; the drift is Theil–Sen's
    slope over the whole series, as a relative change.
    """
    n = series.size
    if n < 4:
        return Trend(p=1.0, drift=0.0)
    i, j = np.triu_indices(n, 1)
    differences = series[j] - series[i]
    score = float(np.sign(differences).sum())
    _, counts = np.unique(series, return_counts=True)
    ties = float((counts * (counts - 1) * (2 * counts + 5)).sum())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    drift = math.expm1(float(np.median(differences / (j - i))) * (n - 1))
    if score == 0:
        return Trend(p=1.0, drift=drift)
    z = (abs(score) - 1) / math.sqrt(variance)
    return Trend(p=math.erfc(z / math.sqrt(2)), drift=drift)


def estimate(
    bursts: Sequence[LabelledBurst],
    threads: int,
    *,
    sustained: bool = False,
    session_sd: float = SESSION_SD,
) -> Estimate:
    """Return level, interval and what there is to say about the bursts of one workload.

    Args:
        bursts: all of them.
        threads: of the runtime.
        sustained: whether the level is what the device keeps up, not the best it can do.
        session_sd: what sessions differ by on this machine, in ln(level).

    Raises:
        MeasurementError: no burst is left once warm-up is set apart.
    """
    used = [b for b in used_bursts(bursts) if b.burst.n_samples > 1]
    if not used:
        raise MeasurementError("no burst was timed, so there is no level to give")
    rule = rule_for(used, sustained=sustained)
    table = floor_table(used, threads, rule)
    floors = worker_floors_s(table.floors_s, rule)
    level_s = float(level_of(floors, rule))
    tenths_s = np.array([burst_statistic_s(b.burst, threads) for b in used], dtype=np.float64)
    n_timed = sum("first" not in b.causes for b in bursts)
    return Estimate(
        level_s=level_s,
        within=within_session(table.floors_s, rule),
        session_sd=session_sd,
        worker_levels_s=dict(zip(table.workers, floors.tolist(), strict=True)),
        confirmed=is_confirmed(table.series_s, [b.worker for b in used], level_s),
        trend=trend(table.by_round(floors)),
        n_bursts=len(used),
        n_excluded=n_timed - len(used),
        slow_mode_share=float(np.mean(tenths_s > SLOW_MODE * level_s)),
        preempted_share=_preempted_share([b.burst for b in used]),
    )


def _preempted_share(bursts: Sequence[Burst]) -> float:
    flags = [b.wait_ns[1:] > NO_WAIT * b.duration_ns[1:] for b in bursts if b.wait_ns is not None]
    return float(np.concatenate(flags).mean()) if flags else 0.0


def rounds_done(bursts: Iterable[LabelledBurst], workers: int) -> int:
    """Return how many rounds have a timed burst of at least ``workers`` workers."""
    seen: dict[int, set[str]] = {}
    for burst in bursts:
        if "first" not in burst.causes:
            seen.setdefault(burst.round_index, set()).add(burst.worker)
    return sum(len(names) >= workers for names in seen.values())


def is_settled(found: Estimate, target_rel: float) -> bool:
    """Return whether measuring may end at a look: narrow, confirmed and steady.

    How far sessions of this machine lie apart is left out: more of this session cannot mend it.
    """
    is_narrow = found.rel_half_width_when_quiet <= target_rel
    return is_narrow and found.confirmed and not found.trend.is_drifting
