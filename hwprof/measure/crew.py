"""The workers of a group as seats: a process may be lost and replaced, its work is redone.

Everything a candidate can do wrong is its own. A worker that dies takes nobody with it: a
fresh one takes the seat and compiles what is asked of it when it is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from hwprof.errors import DeviceUnavailableError
from hwprof.measure import wire
from hwprof.measure.agreement import Agreement, Sample, from_arrays, may_differ, tolerance_for
from hwprof.measure.pool import Hello, Pool
from hwprof.measure.process import LINK, Interpreter, Worker, WorkerFault
from hwprof.measure.records import (
    Burst,
    Failure,
    LabelledBurst,
    Loaded,
    MeasurePlan,
    Precision,
    Stage,
)
from hwprof.measure.verdict import counted
from hwprof.protocols import Check, Disturbance, Support
from hwprof.workload import Workload

logger = logging.getLogger(__name__)

WARMUP_ROUND = -1
RETRYABLE = frozenset({"died", "hung"})
MOST_ATTEMPTS = 2
MOST_LOST_LINKS = 25
"""A member may live through several losses of all its workers; a device whose sessions always end
is given up all the same."""

T = TypeVar("T")


@dataclass(kw_only=True, eq=False)
class Seat:
    """A worker's place, and the keys of what its present process holds.

    ``held`` was compiled there, ``ready`` has been checked as well.
    """

    worker: Worker | None = None
    interpreter: Interpreter | None = None
    held: set[str] = field(default_factory=set)
    ready: set[str] = field(default_factory=set)


@dataclass(kw_only=True, eq=False)
class SensorRange:
    """Lowest and highest reading of every sensor of the device, over a member's bursts."""

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)

    def add(self, readings: Mapping[str, float]) -> None:
        """Take in what one burst's sensors said."""
        for name, value in readings.items():
            self.low[name] = min(value, self.low.get(name, value))
            self.high[name] = max(value, self.high.get(name, value))

    def to_json(self) -> dict[str, Any]:
        """Return ``{"sensors": {name: [low, high]}}``; nothing where there are no sensors."""
        ranges = {name: [self.low[name], self.high[name]] for name in sorted(self.low)}
        return {"sensors": ranges} if ranges else {}


@dataclass(kw_only=True, eq=False)
class Member:
    """A candidate of the group and all that is known of it so far."""

    workload: Workload
    seats: tuple[Seat, ...]
    bursts: list[LabelledBurst] = field(default_factory=list)
    is_reference: bool = False
    rounds: int = 0
    next_round: int = 0
    loaded: Loaded | None = None
    check: Check | None = None
    agreement: Agreement = field(default_factory=Agreement)
    n_faults: int = 0
    n_lost_links: int = 0
    sensors: SensorRange = field(default_factory=SensorRange)
    others: dict[int, str] = field(default_factory=dict)
    """Other processes that were seen on the device, in words, by process id."""
    stage: Stage = "start"
    left: bool = False

    @cached_property
    def workload_data(self) -> Mapping[str, Any]:
        """The workload as plain data: every seat is sent it."""
        return self.workload.to_json()


class LostError(Exception):
    """A member failed for good."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


TimedBurst = tuple[Burst, Disturbance | None]
"""A burst with what its device knows of disturbances (None: ask the host)."""


class Crew:
    """Gets work done on seats, whatever happens to the processes in them.

    Args:
        pool: starts and parks the processes.
        plan: time limits, warm-up, cache.
        keep_warmup: called with each warm-up burst.
        precision: arithmetic type that the device was opened with.
    """

    def __init__(
        self,
        pool: Pool,
        plan: MeasurePlan,
        keep_warmup: Callable[[Member, Worker, TimedBurst], None],
        precision: Precision = "fp32",
    ) -> None:
        self._pool, self._plan, self._keep_warmup = pool, plan, keep_warmup
        self._precision = precision
        self._plan_data = asdict(plan)
        self._announced: set[str] = set()

    def start(self, seats: list[Seat]) -> Hello:
        """Start a process for every seat, side by side; all on one interpreter.

        Raises:
            DeviceUnavailableError: the device cannot be opened.
        """
        workers, hello = self._pool.start(len(seats), seats[0].interpreter)
        for seat, worker in zip(seats, workers, strict=True):
            seat.worker = worker
        return hello

    def prepare(self, member: Member, seat: Seat) -> None:
        """Compile ``member`` on ``seat`` and check its outputs, also against other seats'.

        Raises:
            LostError: it failed for good.
            DeviceUnavailableError: the device, or what it is driven with, is not there.
        """
        self._attempt(member, seat, lambda _: None, warm=False)

    def warm_up(self, member: Member, seat: Seat) -> None:
        """Call ``member`` on ``seat`` until first calls are over; nothing waits for a level.

        Raises:
            LostError: it failed for good.
            DeviceUnavailableError: the device, or what it is driven with, is not there.
        """
        self._attempt(member, seat, lambda worker: self._warm_up(member, worker), warm=False)

    def burst(self, member: Member, seat: Seat) -> tuple[Worker, TimedBurst]:
        """Time one burst of ``member`` on ``seat``.

        Raises:
            LostError: it failed for good.
            DeviceUnavailableError: the device, or what it is driven with, is not there.
        """
        plan = self._plan

        def run(worker: Worker) -> tuple[Worker, TimedBurst]:
            return worker, self._request_burst(member, worker, plan.burst_s, plan.min_calls)

        return self._attempt(member, seat, run, warm=True)

    def drop(self, member: Member) -> None:
        """Free what a member holds in processes where others go on."""
        for seat in member.seats:
            # What failed its check is held all the same, and the others need the memory.
            if seat.worker is None or member.workload.key not in seat.held:
                continue
            seat.held.discard(member.workload.key)
            seat.ready.discard(member.workload.key)
            try:
                worker = self._occupy(seat)
                worker.request("drop", self._plan.timeout_s, key=member.workload.key)
            except WorkerFault as fault:
                logger.warning("%s would not close: %s", member.workload.label, fault)
                self._after(fault, seat)

    def _attempt(
        self, member: Member, seat: Seat, action: Callable[[Worker], T], *, warm: bool
    ) -> T:
        """Prepare ``member`` if need be, then act; a lost worker is replaced once."""
        while True:
            try:
                worker = self._occupy(seat)
                if member.workload.key not in seat.ready:
                    self._prepare(member, seat, worker, warm)
                    seat.ready.add(member.workload.key)
                member.stage = "burst"
                return action(worker)
            except WorkerFault as fault:
                self._after(fault, seat)
                if fault.kind == LINK and member.n_lost_links < MOST_LOST_LINKS:
                    member.n_lost_links += 1  # no fault of the member's
                    logger.warning("%s: %s; connecting again", member.workload.label, fault)
                    continue
                if fault.kind == "unavailable":
                    # Kept as a failure of the member's it would never be tried again.
                    raise DeviceUnavailableError(f"{member.workload.label}: {fault}") from fault
                member.n_faults += 1
                if fault.kind not in RETRYABLE or member.n_faults >= MOST_ATTEMPTS:
                    raise LostError(_failure(member, fault)) from fault
                logger.warning("%s: %s; trying once more", member.workload.label, fault)

    def _occupy(self, seat: Seat) -> Worker:
        """Return the seat's worker, the only one that runs from now on."""
        if seat.worker is None:
            (seat.worker,), _ = self._pool.start(1, seat.interpreter)
        self._pool.run_only(seat.worker)
        return seat.worker

    def _after(self, fault: WorkerFault, seat: Seat) -> None:
        """Empty the seat of a process that is gone."""
        if fault.lost and seat.worker is not None:
            self._pool.remove(seat.worker)
            seat.worker = None
            seat.held.clear()
            seat.ready.clear()

    def _prepare(self, member: Member, seat: Seat, worker: Worker, warm: bool) -> None:
        timeout_s, data = self._plan.timeout_s, member.workload_data
        if member.loaded is None:
            member.stage = "supports"
            support = self._support(worker, data)
            if not support.ok:
                raise WorkerFault("unsupported", support.reason, lost=False)
            self._announce(member, support)
        member.stage = "compile"
        worker.request("compile", timeout_s, workload=data, plan=self._plan_data)
        seat.held.add(member.workload.key)
        member.stage = "check"
        self._check(member, worker)
        if warm:
            self._warm_up(member, worker)

    def _warm_up(self, member: Member, worker: Worker) -> None:
        member.stage = "warmup"
        plan = self._plan
        timed = self._request_burst(member, worker, plan.warmup_s, plan.warmup_calls)
        self._keep_warmup(member, worker, timed)

    def _support(self, worker: Worker, workload: Mapping[str, Any]) -> Support:
        header = worker.request("supports", self._plan.timeout_s, workload=workload).header
        with _answering("supports"):
            return Support(**{**header, "outside_ops": tuple(header["outside_ops"])})

    def _announce(self, member: Member, support: Support) -> None:
        """Say before measuring what will not be accelerated; of many alike, the first."""
        outside = support.outside_ops
        if not set(outside) <= self._announced:
            self._announced.update(outside)
            pieces = support.n_pieces
            logger.warning(
                "%s: %s run%s outside of the accelerated part%s",
                member.workload.label,
                counted(outside),
                "s" if len(outside) == 1 else "",
                "" if pieces is None else f", which is in {pieces} pieces",
            )

    def _check(self, member: Member, worker: Worker) -> None:
        n_runs = 0 if may_differ(member.workload) else member.agreement.runs
        key, timeout_s = member.workload.key, self._plan.timeout_s
        frame = worker.request("check", timeout_s, key=key, runs=n_runs)
        with _answering("check"):
            found = frame.header["check"]
            check = Check(
                **{**found, **{n: tuple(found[n]) for n in ("fallback_ops", "outside_ops")}}
            )
            loaded = Loaded.from_json(frame.header["loaded"])
            runs = from_arrays(frame.arrays, n_runs) if n_runs else []
        if check.fallback_ops:
            raise WorkerFault(
                "fallback",
                f"these operators silently ran elsewhere than on {check.provider}: "
                f"{', '.join(check.fallback_ops)}; the latency would be another device's: "
                "replace them, or measure where they run",
                lost=False,
            )
        if not check.finite:
            raise WorkerFault(
                "non_finite",
                "the outputs hold NaN or infinity, so its latency says nothing: check the "
                "weights and the inputs",
                lost=False,
            )
        if runs:
            self._compare(member, worker, runs)
        if member.loaded is None:
            member.check, member.loaded = check, loaded

    def _compare(self, member: Member, worker: Worker, runs: Sequence[Sample]) -> None:
        """Hold a worker's outputs beside those of the first one, which had the same inputs."""
        tolerance = tolerance_for(member.workload, self._precision)
        member.agreement.add(runs, tolerance)
        if (worst := member.agreement.worst) is not None and worst > tolerance:
            raise WorkerFault(
                "disagrees",
                f"the outputs of the worker {worker.label} are {worst:.2g} of the largest value away "
                f"from the first worker's on the same inputs (rounding explains {tolerance:.2g}): they "
                "do not run the same thing; see whether packages were changed meanwhile, and "
                "measure again",
                lost=False,
            )

    def _request_burst(
        self, member: Member, worker: Worker, duration_s: float, min_calls: int
    ) -> TimedBurst:
        frame = worker.request(
            "burst",
            self._plan.timeout_s,
            key=member.workload.key,
            duration_s=duration_s,
            min_calls=min_calls,
            cache=self._plan.cache,
        )
        known = frame.header.get("disturbance")
        with _answering("burst"):
            burst = wire.burst_from(frame)
            disturbance = None if known is None else wire.disturbance_from(known)
            if disturbance is not None:
                member.sensors.add(disturbance.readings)
                member.others.update({p.pid: str(p) for p in disturbance.foreign_processes})
        return burst, disturbance


@contextmanager
def _answering(op: str) -> Iterator[None]:
    """Read an answer; one that is not of the form agreed upon is a fault, not our end."""
    try:
        yield
    except wire.WireError as error:
        raise WorkerFault("garbage", str(error), lost=False) from error
    except (KeyError, TypeError, AttributeError) as error:
        what = f"the answer to {op!r}: {type(error).__name__}: {error}"
        raise WorkerFault("garbage", what, lost=False) from error


def _failure(member: Member, fault: WorkerFault) -> Failure:
    assert fault.kind != "unavailable"  # which ends the campaign
    return Failure(
        workload=member.workload,
        stage=member.stage,
        kind=fault.kind,
        message=str(fault),
        attempts=member.n_faults,
        retryable=fault.kind in RETRYABLE | {"out_of_memory", "disagrees"},
    )
