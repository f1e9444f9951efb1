"""Base and new, timed side by side on fresh workers, until their difference is clear.

Bursts of a pair stand next to each other in time, in random order, so that what the machine does
falls on both. With one thread and one interpreter both live in the same worker process; several
threads, or two interpreters, need a process each, and then pairs are of the same seat. Pairs that
share processes may come one after another on the same workers (:class:`Workers`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwprof.measure import machine
from hwprof.measure.crew import WARMUP_ROUND, Crew, LostError, Member, Seat, TimedBurst
from hwprof.measure.engine import require_fit
from hwprof.measure.labelling import Labeller
from hwprof.measure.load import LoadMonitor
from hwprof.measure.measurement import measurement_from
from hwprof.measure.paired import log_ratios
from hwprof.measure.pool import Hello, Pool, refusal
from hwprof.measure.process import Interpreter, Worker, living_pids
from hwprof.measure.records import (
    DeviceRef,
    Failure,
    LabelledBurst,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.regression.gate import LOOKS, Gate
from hwprof.workload import Workload

CAP_S = 60.0
PLAN = plan_for("standard", looks=LOOKS, burst_s=0.01, round_s=0.0, warmup_s=0.02)
"""Many short bursts: what disturbs lasts longer than one, so pairs gain more than samples do."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is compared. ``base_python`` is the interpreter of the base's workers, None for ours."""

    label: str
    base: Workload
    new: Workload
    base_python: Interpreter | None = None

    def is_apart(self, threads: int) -> bool:
        """Whether the two sides need a process each, so that a gate must be told."""
        return self.base_python is not None or threads > 1


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTimed:
    """Both sides' measurements, and their bursts by seat (``worker`` is the seat)."""

    base: Measurement
    new: Measurement
    base_bursts: tuple[LabelledBurst, ...]
    new_bursts: tuple[LabelledBurst, ...]
    rounds: int
    capped: bool
    """Whether the time was up before the last look or a decision."""


@dataclass(frozen=True, kw_only=True)
class PairFailed:
    """Why there is nothing to compare: ``side`` is ``base`` or ``new``."""

    side: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, eq=False)
class Workers:
    """Running workers that several comparisons of one device use in turn.

    ``start_s`` is what starting them took, which a comparison of its own would have paid too.
    """

    pool: Pool
    seats: tuple[Seat, ...]
    hello: Hello
    start_s: float


@contextmanager
def running_workers(device: DeviceRef) -> Iterator[Workers]:
    """Start workers for comparisons of one thread on this interpreter.

    Raises:
        DeviceUnavailableError: the device cannot be opened.
    """
    with Pool(device, 0) as pool:
        began_s = time.monotonic()
        seats = _seats(PLAN)
        started, hello = pool.start(len(seats))
        for seat, worker in zip(seats, started, strict=True):
            seat.worker = worker
        yield Workers(pool=pool, seats=seats, hello=hello, start_s=time.monotonic() - began_s)


def side_by_side(
    pair: Pair,
    device: DeviceRef,
    gate: Gate,
    *,
    plan: MeasurePlan = PLAN,
    cap_s: float = CAP_S,
    tell: Tell | None = None,
    clock: Callable[[], float] = time.monotonic,
    workers: Workers | None = None,
) -> PairTimed | PairFailed:
    """Time a pair until ``gate`` decides, its looks are spent, or ``cap_s`` is over.

    When the time is up, what was timed since the last look gets a look of its own.

    Args:
        pair: base and new.
        device: where.
        gate: judges the pairs of bursts at every look.
        plan: how they are timed.
        cap_s: longest, start of the workers included.
        tell: called after every round.
        clock: seconds; tests hand in their own.
        workers: of the same device and plan, to use instead of fresh ones; both sides leave them
            when all is timed.

    Raises:
        DeviceUnavailableError: the device cannot be opened, on either interpreter.
        PlanError: the machine grants fewer cores than threads are asked for.
        ValueError: the sides need a process each, so they cannot share ``workers``.
    """
    for side, workload in (("base", pair.base), ("new", pair.new)):
        if (failure := refusal(device, workload)) is not None:
            return PairFailed(side=side, failure=failure)
    if workers is not None:
        return _timed(_Race(pair, device, plan, workers.pool, workers), gate, cap_s, tell, clock)
    with Pool(device, 0) as pool:
        return _timed(_Race(pair, device, plan, pool), gate, cap_s, tell, clock)


def _timed(
    race: _Race, gate: Gate, cap_s: float, tell: Tell | None, clock: Callable[[], float]
) -> PairTimed | PairFailed:
    began_s = clock()
    try:
        race.prepare()
        capped = _until_decided(race, gate, lambda: clock() - began_s >= cap_s, tell)
    except LostError as lost:
        side = "base" if lost.failure.workload is race.base.workload else "new"
        return PairFailed(side=side, failure=lost.failure)
    finally:
        race.leave()
    return race.finish(capped)


def _until_decided(race: _Race, gate: Gate, is_over: Callable[[], bool], tell: Tell | None) -> bool:
    """Run rounds and looks; return whether the time ended them."""
    last = race.plan.looks[-1]
    for look in race.plan.looks:
        fresh = False
        while race.rounds < look:
            if fresh and is_over():
                gate.look(race.ratios())
                return True
            race.round()
            fresh = True
            if tell is not None:
                tell(f"round {race.rounds} of at most {last}")
        if gate.look(race.ratios()) != "inconclusive":
            return False
        if is_over():
            return look != last
    return False


def _seats(plan: MeasurePlan, interpreter: Interpreter | None = None) -> tuple[Seat, ...]:
    return tuple(Seat(interpreter=interpreter) for _ in range(plan.workers))


class _Race:
    """Two members on their seats."""

    def __init__(
        self,
        pair: Pair,
        device: DeviceRef,
        plan: MeasurePlan,
        pool: Pool,
        workers: Workers | None = None,
    ) -> None:
        self.plan = plan
        self._threads = device.options.threads
        self._rng = np.random.default_rng(plan.seed)
        self._labeller, self._monitor = Labeller(), LoadMonitor(living_pids)
        self._crew = Crew(pool, plan, self._keep_warmup, device.options.precision)
        self._workers = workers
        apart = pair.is_apart(self._threads)
        if apart and workers is not None:
            raise ValueError("two interpreters, or several threads, need a process each")
        base_seats = _seats(plan, pair.base_python) if workers is None else workers.seats
        new_seats = _seats(plan) if apart else base_seats
        # Equal keys would be one executable in the worker: other weights, same work.
        is_same = not apart and pair.new.key == pair.base.key
        new = replace(pair.new, seed=pair.new.seed + is_same)
        self.base = Member(workload=pair.base, seats=base_seats)
        self.new = Member(workload=new, seats=new_seats)
        self._hellos: dict[Member, Hello] = {}
        self._seat_of: dict[str, int] = {}
        self.rounds = 0

    def prepare(self) -> None:
        """Start the workers; compile and warm up, in another order on every seat."""
        self._hellos[self.base] = (
            self._crew.start(list(self.base.seats))
            if self._workers is None
            else self._workers.hello
        )
        shared = self.new.seats is self.base.seats
        self._hellos[self.new] = (
            self._hellos[self.base] if shared else self._crew.start(list(self.new.seats))
        )
        if not self._hellos[self.new].reports_disturbance:
            require_fit(self._monitor, self._threads)
        for index in range(self.plan.workers):
            order = self._in_random_order()
            for member in order:
                self._crew.prepare(member, member.seats[index])
            for member in order:
                self._crew.warm_up(member, member.seats[index])

    def round(self) -> None:
        """Time a burst of both on every seat, the two of a seat next to each other."""
        for index in self._rng.permutation(self.plan.workers):
            for member in self._in_random_order():
                worker, timed = self._crew.burst(member, member.seats[index])
                self._seat_of[worker.label] = int(index)
                member.bursts.append(self._label(self.rounds, worker, timed))
        self.rounds += 1

    def ratios(self) -> dict[str, NDArray[np.float64]]:
        """Return the log-ratios so far, by seat."""
        base, new = self._by_seat(self.base), self._by_seat(self.new)
        return log_ratios(base, new, self._threads)

    def leave(self) -> None:
        """Free what both hold in workers that go on."""
        if self._workers is not None:
            for member in (self.base, self.new):
                self._crew.drop(member)

    def finish(self, capped: bool) -> PairTimed:
        """Return all that was timed."""
        return PairTimed(
            base=self._measurement(self.base),
            new=self._measurement(self.new),
            base_bursts=tuple(self._by_seat(self.base)),
            new_bursts=tuple(self._by_seat(self.new)),
            rounds=self.rounds,
            capped=capped,
        )

    def _in_random_order(self) -> Sequence[Member]:
        both = (self.base, self.new)
        return both if self._rng.random() < 0.5 else both[::-1]

    def _label(self, round_index: int, worker: Worker, timed: TimedBurst) -> LabelledBurst:
        return self._labeller.label(*timed, self._monitor, worker.label, round_index)

    def _keep_warmup(self, member: Member, worker: Worker, timed: TimedBurst) -> None:
        labelled = self._label(WARMUP_ROUND, worker, timed)
        member.bursts.append(replace(labelled, causes=("first", *labelled.causes)))

    def _by_seat(self, member: Member) -> list[LabelledBurst]:
        return [
            replace(b, worker=f"seat {self._seat_of[b.worker]}")
            for b in member.bursts
            if "first" not in b.causes
        ]

    def _measurement(self, member: Member) -> Measurement:
        assert member.loaded is not None
        hello = self._hellos[member]
        telemetry = {
            "warnings": [
                *(() if hello.reports_disturbance else machine.warnings()),
                *hello.warnings,
            ],
            "n_cpus": None if hello.reports_disturbance else self._monitor.n_cpus,
            "foreign_processes": list(member.others.values()),
        }
        bursts = [self._labeller.relabel(b) for b in member.bursts]
        return measurement_from(
            member.workload, self.plan, hello.fingerprint, bursts, member.loaded, telemetry
        )
