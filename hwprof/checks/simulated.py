"""Check 12: the statistics on a simulated machine, whose floor is known and which needs none.

The machine has what was seen on shared virtual ones: modes up to 1.4 times slower that last
from a millisecond to three seconds and that nothing reports, spikes, waits in the run queue,
processes that differ for life and a few that never leave the slow mode. Bursts made of it go
through the code that real ones go through: level, interval, verdict, paired gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwprof.checks.pairs import PLAN
from hwprof.checks.records import CheckResult, CheckSpec
from hwprof.checks.workloads import BLOCK
from hwprof.measure.floor import FLOOR
from hwprof.measure.level import estimate, is_settled
from hwprof.measure.measurement import measurement_from
from hwprof.measure.paired import judge_pairs, log_ratios, normal_quantile
from hwprof.measure.records import (
    Burst,
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
    MeasurePlan,
    plan_for,
)

Float64 = NDArray[np.float64]

SIMULATED = CheckSpec(
    check=12,
    name="simulated machine",
    limit=0.01,
    unit="false alarms",
    advice="the statistics themselves are wrong: this copy of hwprof is broken, install it anew",
)

LEAST_COVERAGE = 0.90
N_LEVELS = 200
N_PAIRS = 250
MOST_SLOWED = 100
"""Power needs no rare event to be seen, so fewer pairs are slowed."""
SLOWDOWN = 0.05
TURN_S = 2e-3
"""From the end of one burst to the start of the next: a worker is parked, another resumed."""
_FINGERPRINT = Fingerprint(stable={"device": "simulated", "hardware": "simulated", "threads": 1})
_LOADED = Loaded(load_s=0.0, artifact_bytes=0, peak_memory_bytes=None)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A noisy machine. Shares are of time for modes, of calls for spikes and waits."""

    floor_s: float = 0.77e-3
    noise: float = 0.01
    """Calls take floor · exp(noise · |N(0, 1)|)."""
    slow_factors: tuple[float, ...] = (1.2, 1.4)
    slow_share: float = 0.3
    dwell_s: tuple[float, float] = (1e-3, 3.0)
    """Slow modes last log-uniformly long; the fast mode so that the share is right."""
    process_sd: float = 0.005
    """How processes differ for life, in logarithms."""
    session_sd: float = 0.003
    """How sessions differ, for all processes alike."""
    layout_sd: float = 0.003
    """How two candidates in one process differ for life."""
    stuck_share: float = 0.05
    """Processes that never leave the slow mode."""
    spike_share: float = 0.01
    spike_s: float = 0.5e-3
    wait_share: float = 0.02
    wait_s: float = 4e-3
    wait_trace_s: float = 0.2e-3
    """A call that waited takes up to so much longer even without its wait: its caches are cold."""

    @property
    def target_s(self) -> float:
        """The level's stated target: an undisturbed call in the lower quartile of the workers.

        Stuck workers are at the upper end: the quartile is taken of the others.
        """
        own_sd = math.hypot(self.process_sd, self.layout_sd)
        share = FLOOR.level_quantile / (1.0 - self.stuck_share)
        return self.floor_s * math.exp(own_sd * normal_quantile(share))


@dataclass(frozen=True, kw_only=True)
class Session:
    """How a simulated session is laid out: the plan, its candidates, and how many stand by.

    ``neighbours`` are further candidates of the group: they take time but are not simulated.
    """

    plan: MeasurePlan
    candidates: int = 1
    neighbours: int = 0


def simulate(
    machine: Machine, session: Session, rng: np.random.Generator
) -> list[list[LabelledBurst]]:
    """Return the bursts of one session, a list for every candidate.

    Rounds run as the engine runs them: a reference block, one burst for every candidate and
    worker in random order, the reference again, all on one line of time.
    """
    plan = session.plan
    n_samples = max(plan.min_calls, round(plan.burst_s / machine.floor_s))
    shape = (plan.looks[-1], plan.workers, session.candidates, n_samples)
    starts_s, total_s = _burst_starts(session, rng)
    call_s = _undisturbed(machine, shape, rng)
    at_s = starts_s[..., None] + machine.floor_s * np.arange(n_samples)
    stuck = rng.random((1, shape[1], 1, 1)) < machine.stuck_share
    mode = np.where(stuck, max(machine.slow_factors), _modes(machine, total_s, rng)(at_s))
    call_s = call_s * mode
    call_s += (rng.random(shape) < machine.spike_share) * rng.exponential(machine.spike_s, shape)
    waited = rng.random(shape) < machine.wait_share
    call_s += waited * rng.uniform(0.0, machine.wait_trace_s, shape)
    wait_ns = (waited * rng.exponential(machine.wait_s, shape) * 1e9).astype(np.int64)
    duration_ns = (call_s * 1e9).astype(np.int64) + wait_ns
    start_ns = (at_s * 1e9).astype(np.int64)
    return [
        [
            LabelledBurst(
                burst=Burst(
                    start_ns=start_ns[r, w, c],
                    duration_ns=duration_ns[r, w, c],
                    wait_ns=wait_ns[r, w, c],
                ),
                worker=f"w{w}",
                round_index=r,
            )
            for r in range(shape[0])
            for w in range(shape[1])
        ]
        for c in range(session.candidates)
    ]


def _burst_starts(session: Session, rng: np.random.Generator) -> tuple[Float64, float]:
    """Return when each burst starts, ``float64[rounds, workers, candidates]``, and the end."""
    plan = session.plan
    rounds, turn_s = plan.looks[-1], plan.burst_s + TURN_S
    per_round = plan.workers * (session.candidates + session.neighbours)
    order = np.argsort(rng.random((rounds, per_round)), axis=1)
    place = order[:, : plan.workers * session.candidates]
    # A round begins with the reference, ends with it, and lasts at least as long as planned.
    round_s = max(plan.round_s, turn_s * (per_round + 2))
    begins_s = round_s * np.arange(rounds, dtype=np.float64)
    starts: Float64 = (begins_s[:, None] + turn_s * (1 + place)).reshape(
        rounds, plan.workers, session.candidates
    )
    return starts, round_s * rounds


def _undisturbed(
    machine: Machine, shape: tuple[int, int, int, int], rng: np.random.Generator
) -> Float64:
    """Return calls in the fast mode: the floor, what is the session's and the process's own, noise."""
    session = machine.session_sd * rng.standard_normal()
    own = machine.process_sd * rng.standard_normal((1, shape[1], 1, 1))
    layout = machine.layout_sd * rng.standard_normal((1, shape[1], shape[2], 1))
    noise = machine.noise * np.abs(rng.standard_normal(shape))
    calls: Float64 = machine.floor_s * np.exp(session + own + layout + noise)
    return calls


@dataclass(frozen=True, kw_only=True)
class _Timeline:
    """A factor as a function of time, constant between ``ends_s``."""

    ends_s: Float64
    factors: Float64

    def __call__(self, at_s: Float64) -> Float64:
        found: Float64 = self.factors[np.searchsorted(self.ends_s, at_s)]
        return found


def _modes(machine: Machine, total_s: float, rng: np.random.Generator) -> _Timeline:
    """Draw the modes of a session: slow and fast in turn, beginning anywhere."""
    if machine.slow_share == 0.0:
        return _Timeline(ends_s=np.empty(0), factors=np.ones(1))
    low, high = machine.dwell_s
    fast_to_slow = (1.0 - machine.slow_share) / machine.slow_share
    span_s = total_s + high * (1.0 + fast_to_slow)
    mean_s = 0.5 * (high - low) / math.log(high / low) * (1.0 + fast_to_slow)
    n = 2 * math.ceil(4.0 * span_s / mean_s + 10.0)
    dwells = np.exp(rng.uniform(math.log(low), math.log(high), n))
    is_slow = np.arange(n) % 2 == 0
    dwells[~is_slow] *= fast_to_slow
    slow = rng.choice(machine.slow_factors, n)
    ends = np.cumsum(dwells) - rng.uniform(0.0, high * (1.0 + fast_to_slow))
    return _Timeline(ends_s=ends, factors=np.append(np.where(is_slow, slow, 1.0), 1.0))


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How simulated measurements fare against the known target."""

    held: float
    """Share whose 95 % interval held the target."""
    half_width: float
    """Median relative half-width."""
    clean: float
    """Share that was judged clean."""


def coverage(machine: Machine, session: Session, n: int, rng: np.random.Generator) -> Coverage:
    """Return how ``n`` simulated measurements of one candidate fare against the known target."""
    found = [_measure(simulate(machine, session, rng)[0], session.plan) for _ in range(n)]
    held = [m.ci95_s[0] <= machine.target_s <= m.ci95_s[1] for m in found]
    return Coverage(
        held=float(np.mean(held)),
        half_width=float(np.median([m.half_width_s / m.level_s for m in found])),
        clean=float(np.mean([m.verdict == "clean" for m in found])),
    )


def _measure(bursts: Sequence[LabelledBurst], plan: MeasurePlan) -> Measurement:
    """Return the measurement, ended at the first look at which the engine would end it."""
    seen: Sequence[LabelledBurst] = bursts
    for look in plan.looks[:-1]:
        until_look = [b for b in bursts if b.round_index < look]
        if is_settled(estimate(until_look, threads=1), plan.target_for(BLOCK)):
            seen = until_look
            break
    return measurement_from(BLOCK, plan, _FINGERPRINT, seen, _LOADED, {"n_cpus": 2})


@dataclass(frozen=True, kw_only=True)
class GateRates:
    """How often the paired gate claimed a change: of none, and of a slowdown."""

    alarms: float
    found: float


def gate_rates(
    machine: Machine, session: Session, slowdown: float, n: int, rng: np.random.Generator
) -> GateRates:
    """Return how often the gate speaks, over ``n`` pairs of equals and of slowed ones.

    The slowdown is what ``selftest`` injects: a busy wait behind every call, a share of the
    level long, which slow modes do not stretch.
    """
    delay_ns = round(slowdown * machine.target_s * 1e9)
    alarms = found = 0
    n_slowed = min(n, MOST_SLOWED)
    for i in range(n):
        a, b = simulate(machine, session, rng)
        alarms += _verdict(a, b) in ("regressed", "improved")
        if i < n_slowed:
            found += _verdict(a, [_delayed(x, delay_ns) for x in b]) == "regressed"
    return GateRates(alarms=alarms / n, found=found / n_slowed)


def _delayed(labelled: LabelledBurst, delay_ns: int) -> LabelledBurst:
    burst = labelled.burst
    return replace(labelled, burst=replace(burst, duration_ns=burst.duration_ns + delay_ns))


def _verdict(a: Sequence[LabelledBurst], b: Sequence[LabelledBurst]) -> str:
    return judge_pairs(log_ratios(a, b, threads=1)).verdict


STANDARD = Session(plan=plan_for("standard"))
QUICK_CAMPAIGN = Session(plan=plan_for("quick"), neighbours=30)
QUICK_ALONE = Session(plan=plan_for("quick"))
PAIR = Session(plan=PLAN, candidates=2)
"""As checks 5 and 6 pair them."""


def simulated_machine(
    seed: int = 0,
    *,
    machine: Machine | None = None,
    n_levels: int = N_LEVELS,
    n_pairs: int = N_PAIRS,
) -> CheckResult:
    """Check 12: intervals hold the known floor, and equals raise at most 1 % false alarms.

    The intervals are those of a model benched alone (standard and quick) and of a block in a
    campaign (quick).
    """
    rng = np.random.default_rng(seed)
    noisy = machine or Machine()
    held = {
        name: coverage(noisy, session, n_levels, rng)
        for name, session in (
            ("standard", STANDARD),
            ("quick in a campaign", QUICK_CAMPAIGN),
            ("quick alone", QUICK_ALONE),
        )
    }
    rates = gate_rates(noisy, PAIR, SLOWDOWN, n_pairs, rng)
    least = min(c.held for c in held.values())
    return SIMULATED.result(
        rates.alarms,
        f"{rates.alarms:.1%} false alarms in {n_pairs} pairs, {rates.found:.0%} of slowdowns by "
        f"{SLOWDOWN:.0%} found; the 95 % interval holds the floor in {least:.1%} "
        f"(at least {LEAST_COVERAGE:.0%} is sound)",
        holds=least >= LEAST_COVERAGE,
        figures={
            "false_alarms": rates.alarms,
            "found": rates.found,
            **{f"coverage {name}": c.held for name, c in held.items()},
            **{f"half_width {name}": c.half_width for name, c in held.items()},
            **{f"clean {name}": c.clean for name, c in held.items()},
        },
    )
