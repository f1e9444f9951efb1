"""Checks 4 and 7 to 11: does a device's level mean what it says?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hwprof.checks.records import CannotCheckError, Case, CheckResult, CheckSpec, worst
from hwprof.checks.rig import Rig
from hwprof.checks.workloads import BLOCK, IDENTITY, network, parts
from hwprof.measure.floor import worker_floors_s
from hwprof.measure.level import LONG_CALL_S, samples_s
from hwprof.measure.records import Burst, plan_for
from hwprof.units import format_seconds

DISPATCH = CheckSpec(
    check=4,
    name="dispatch",
    limit=10.0,
    unit="µs",
    advice="calling the runtime costs too much to time short blocks: look for a debug build, a "
    "profiler or an instrumented interpreter",
)
PLAIN_LOOP = CheckSpec(
    check=7,
    name="plain loop",
    limit=2.0,
    unit="%",
    advice="a plain loop and the level differ, as they do where other work disturbs the loop: "
    "stop it, or measure when the machine is quieter",
)
SHIFT_LIMIT = 2.0
LONG_CALL_LIMIT = 3.0
FOREIGN_LOAD = CheckSpec(
    check=8,
    name="foreign load",
    limit=SHIFT_LIMIT,
    unit="%",
    advice="the level moves with other work: caches, clocks or a core are shared with it; keep "
    "other work off this machine while measuring",
)
PARKED = CheckSpec(
    check=9,
    name="parked workers",
    limit=10.0,
    unit="%",
    advice="workers that stand still slow the one that runs: use --threads 1",
)
PAGE_FAULTS = CheckSpec(
    check=10,
    name="page faults",
    limit=0.1,
    unit="per call",
    advice="the allocator returns memory to the system between calls, which is part of what is "
    "timed: make it keep its memory, or read the levels as including it",
)
SUM_OF_PARTS = CheckSpec(
    check=11,
    name="sum of parts",
    limit=1.02,
    unit="of the network",
    advice="blocks alone do not add up to the network: tables made of them will mislead; use "
    "the costs regressed from whole networks",
)

LOOP_S = 3.0
FASTEST_SUM = 0.85
"""A network's blocks run slower in context than alone, but not by more than this."""

_FIVE_WORKERS = plan_for("standard", looks=(8,))
_TWO_SESSIONS = plan_for("quick", sessions=2, session_gap_s=0.0)
"""One would do. With the second all checks together take as many sessions beside a network as it
needs to know how far those lie apart, for a few seconds."""
_COLD = plan_for("quick", cache="cold", workers=2, looks=(3,), min_calls=3)
"""Caches are flushed before every call, which takes far longer than the call."""


def dispatch(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 4: a model that does nothing takes at most 10 µs.

    Raises:
        CannotCheckError: the device does not take it.
        MeasurementError: it fails there.
    """
    found = rig.measure([IDENTITY], plan_for("quick", seed=seed))[IDENTITY.label]
    value_us = 1e6 * found.level_s
    return DISPATCH.result(value_us, f"a model that does nothing takes {value_us:.1f} µs a call")


def plain_loop(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 7: the level lies within 2 % of a plain loop's p10, and not above its mean.

    Raises:
        CannotCheckError: the device does not take the block.
        MeasurementError: it fails there.
    """
    wall = samples_s(rig.plain_loop(BLOCK, LOOP_S))
    p10_s, mean_s = float(np.quantile(wall, 0.1)), float(wall.mean())
    level_s = rig.measure([BLOCK], plan_for("standard", seed=seed))[BLOCK.label].level_s
    return PLAIN_LOOP.result(
        100 * abs(level_s / p10_s - 1),
        f"level {format_seconds(level_s)}; a plain loop's p10 is {format_seconds(p10_s)}, its "
        f"mean {format_seconds(mean_s)}",
        holds=level_s <= mean_s,
        figures={"level_s": level_s, "loop_p10_s": p10_s, "loop_mean_s": mean_s},
    )


def foreign_load(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 8: a busy neighbour moves a block's level by at most 2 %, a long call's by 3 %.

    Raises:
        CannotCheckError: the device does not take the workloads.
        MeasurementError: one fails there.
    """
    workloads = [BLOCK, network()]
    plan = replace(_FIVE_WORKERS, seed=seed)
    quiet = rig.measure(workloads, plan)
    with rig.foreign_load():
        loaded = rig.measure(workloads, plan)
    shifts_pct = {w: 100 * (loaded[w].level_s / quiet[w].level_s - 1) for w in quiet}
    case = worst(
        Case(w, abs(shift), LONG_CALL_LIMIT if quiet[w].level_s > LONG_CALL_S else SHIFT_LIMIT)
        for w, shift in shifts_pct.items()
    )
    return FOREIGN_LOAD.result(
        case.value,
        f"with one core kept busy the {case.label} moves by {shifts_pct[case.label]:+.1f} %",
        limit=case.limit,
        figures={f"shift_pct of {w}": shift for w, shift in shifts_pct.items()},
    )


def parked_workers(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 9: with two threads, parked workers slow the one that runs by at most 10 %.

    Raises:
        CannotCheckError: two threads cannot be timed here.
        MeasurementError: the network fails with two threads.
    """
    workload = network()
    plan = replace(_FIVE_WORKERS, workers=2, seed=seed)
    parked_s = rig.measure([workload], plan, threads=2)[workload.label].level_s
    alone_s = _floor_s(rig.plain_loop(workload, LOOP_S, threads=2))
    return PARKED.result(
        100 * (parked_s / alone_s - 1),
        f"the network takes {format_seconds(parked_s)} beside parked workers, "
        f"{format_seconds(alone_s)} alone",
        figures={"parked_s": parked_s, "alone_s": alone_s},
    )


def page_faults(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 10: fewer than one page fault in ten calls.

    Raises:
        CannotCheckError: the device does not take the workloads.
        MeasurementError: one fails there.
    """
    measured = rig.measure([BLOCK, network()], replace(_TWO_SESSIONS, seed=seed))
    faults = {
        m.workload.label: float(m.telemetry["page_faults_per_call"]) for m in measured.values()
    }
    case = worst(Case(label, value, PAGE_FAULTS.limit) for label, value in faults.items())
    return PAGE_FAULTS.result(
        case.value,
        f"a call of the {case.label} causes {case.value:.2g} page faults",
        figures={f"per call of {label}": value for label, value in faults.items()},
    )


def sum_of_parts(rig: Rig, seed: int = 0) -> CheckResult:
    """Check 11: hot parts sum to 0.85 to 1.02 of their network, cold ones to no less than it.

    Raises:
        CannotCheckError: several threads are asked for, or the device does not take a part.
        MeasurementError: a part fails there.
    """
    if rig.threads != 1:
        raise CannotCheckError("parts add up with one thread only: use --threads 1")
    whole, pieces = network(), parts()
    workloads = [p.workload for p in pieces]
    hot = rig.measure([whole, *workloads], plan_for("quick", seed=seed))
    cold = rig.measure(workloads, replace(_COLD, seed=seed))
    network_s = hot[whole.label].level_s
    hot_s = math.fsum(p.count * hot[p.workload.label].level_s for p in pieces)
    cold_s = math.fsum(p.count * cold[p.workload.label].level_s for p in pieces)
    ratio, cold_ratio = hot_s / network_s, cold_s / network_s
    return SUM_OF_PARTS.result(
        ratio,
        f"hot parts sum to {ratio:.3f} of the network ({FASTEST_SUM} to {SUM_OF_PARTS.limit} is "
        f"sound), cold ones to {cold_ratio:.3f} (at least 1 is sound)",
        holds=ratio >= FASTEST_SUM and cold_ratio >= 1.0,
        figures={"hot_ratio": ratio, "cold_ratio": cold_ratio, "network_s": network_s},
    )


def _floor_s(burst: Burst) -> float:
    """Return a plain loop's floor as a level takes it.

    The fastest of as many calls as a burst times, and of those the lower tenth.
    """
    wall_s, plan = samples_s(burst), _FIVE_WORKERS
    n_calls = max(plan.min_calls - 1, round(plan.burst_s / float(np.median(wall_s))))
    n_calls = min(n_calls, wall_s.size)
    n_bursts = wall_s.size // n_calls
    fastest_s = wall_s[: n_bursts * n_calls].reshape(n_bursts, n_calls).min(axis=1)
    return float(worker_floors_s(fastest_s))
