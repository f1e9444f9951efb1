"""Checks 1 to 3: does the clock tell the time, and the loop the length of what it times?"""

from __future__ import annotations

from functools import partial

import numpy as np

from hwprof.checks.instruments import Instruments
from hwprof.checks.records import Case, CheckResult, CheckSpec, worst
from hwprof.errors import MeasurementError
from hwprof.measure.level import burst_statistic_s, samples_s
from hwprof.measure.timing import calls_per_sample
from hwprof.units import format_seconds

CLOCK = CheckSpec(
    check=1,
    name="clock pair",
    limit=0.5,
    unit="µs",
    advice="the clock is slow, coarse or runs backward: choose a faster clocksource (tsc)",
)
BUSY_WAIT = CheckSpec(
    check=2,
    name="busy wait",
    limit=0.5,
    unit="µs",
    advice="the timing loop misses known durations: measure when the machine is quieter",
)
FIXED_WORK = CheckSpec(
    check=3,
    name="fixed work",
    limit=0.5,
    unit="%",
    advice="n times the work does not take n times as long: lock the clock frequency, or "
    "measure when the machine is quieter",
)

N_READINGS = 20_000
WAITS_S = (20e-6, 50e-6, 100e-6, 500e-6, 1e-3, 2e-3, 5e-3)
ABSOLUTE_ERROR_S = 0.5e-6
RELATIVE_ERROR = 0.002
WORK_UNITS = (1, 2, 4, 8, 16)
BURST_S = 0.02
FEWEST_CALLS = 10
N_ROUNDS = 8
"""Bursts of every duration, taken in turn: a slow second must not fall on one of them alone."""


def clock_pair(instruments: Instruments) -> CheckResult:
    """Check 1: two readings cost at most 0.5 µs, and the second is never the smaller one.

    Raises:
        MeasurementError: the clock stands still.
    """
    now = instruments.now_ns
    steps = np.diff(np.array([now() for _ in range(N_READINGS)], dtype=np.int64))
    forward = steps[steps > 0]
    if forward.size == 0:
        raise MeasurementError(f"{N_READINGS} readings in a row show the same time")
    # A coarse clock gives equal readings: what counts then is how far it jumps.
    cost_us = 1e-3 * float(max(np.median(steps), forward.min()))
    n_backward = int(np.sum(steps < 0))
    detail = f"two readings take {cost_us:.2f} µs"
    if n_backward:
        detail += f"; the clock went backward {n_backward} times in {N_READINGS} readings"
    return CLOCK.result(cost_us, detail, holds=n_backward == 0, figures={"n_backward": n_backward})


def busy_wait(instruments: Instruments) -> CheckResult:
    """Check 2: waits of 20 µs to 5 ms are timed to 0.5 µs + 0.2 %."""
    lowest_s = dict.fromkeys(WAITS_S, float("inf"))
    for _ in range(N_ROUNDS):
        for wait_s in WAITS_S:
            burst = instruments.burst(
                partial(instruments.spin, wait_s),
                BURST_S,
                FEWEST_CALLS,
                per_sample=calls_per_sample(wait_s),
            )
            # A wait ends by the clock: nothing shortens it, and what it stood in the run queue
            # must not be subtracted.
            found_s = float(samples_s(burst).min())
            lowest_s[wait_s] = min(lowest_s[wait_s], found_s)
    cases = [
        Case(
            format_seconds(wait_s),
            1e6 * abs(found_s - wait_s),
            1e6 * (ABSOLUTE_ERROR_S + RELATIVE_ERROR * wait_s),
        )
        for wait_s, found_s in lowest_s.items()
    ]
    case = worst(cases)
    return BUSY_WAIT.result(
        case.value,
        f"a busy wait of {case.label} is timed {case.value:.2f} µs off",
        limit=case.limit,
        figures={f"error_us of {c.label}": c.value for c in cases},
    )


def fixed_work(instruments: Instruments) -> CheckResult:
    """Check 3: 1 to 16 times the same work lies on a line within 0.5 %."""
    lowest_s = dict.fromkeys(WORK_UNITS, float("inf"))
    for _ in range(N_ROUNDS):
        for units in WORK_UNITS:
            burst = instruments.burst(
                partial(instruments.work, units), BURST_S, FEWEST_CALLS, per_sample=1
            )
            found_s = burst_statistic_s(burst, threads=1)
            lowest_s[units] = min(lowest_s[units], found_s or float("inf"))
    counts = np.array(WORK_UNITS, dtype=np.float64)
    times_s = np.array([lowest_s[u] for u in WORK_UNITS])
    # Relative errors count, so every point is weighted by its own time.
    slope, offset = np.polyfit(counts, times_s, 1, w=1.0 / times_s)
    off_pct = 100 * np.abs(times_s / (offset + slope * counts) - 1)
    at = int(np.argmax(off_pct))
    return FIXED_WORK.result(
        float(off_pct[at]),
        f"{WORK_UNITS[at]} times the work is {off_pct[at]:.2f} % off the line "
        f"({format_seconds(float(slope))} a piece)",
        figures={f"off_pct at {u}": float(p) for u, p in zip(WORK_UNITS, off_pct, strict=True)},
    )
