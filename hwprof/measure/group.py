"""One group of candidates on fresh workers: compile, warm up, then rounds in random order."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwprof.measure.crew import WARMUP_ROUND, Crew, LostError, Member, Seat, TimedBurst
from hwprof.measure.labelling import WORTH_REPEATING, Labeller
from hwprof.measure.level import (
    estimate,
    is_settled,
    rounds_done,
)
from hwprof.measure.load import LoadMonitor
from hwprof.measure.measurement import measurement_from
from hwprof.measure.pool import Hello, Pool
from hwprof.measure.process import Worker
from hwprof.measure.records import (
    DeviceRef,
    Failure,
    Fingerprint,
    LabelledBurst,
    Measurement,
    MeasurePlan,
    Result,
)
from hwprof.measure.references import BLOCK, References
from hwprof.protocols import SessionHistory, Sink
from hwprof.workload import Workload

logger = logging.getLogger(__name__)

MOST_REPEATS = 0.25
"""Disturbed bursts are repeated once, up to this share of a group's bursts."""

Tell = Callable[[str, int], None]
"""Called with what is being done and how many bursts of candidates were just timed."""


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """What lasts for the whole campaign."""

    ref: DeviceRef
    plan: MeasurePlan
    rng: np.random.Generator
    sink: Sink | None
    history: SessionHistory | None
    labeller: Labeller
    monitor: LoadMonitor
    tell: Tell


class Group:
    """Runs one group. Iterating :meth:`run` gives every candidate's result as it is final.

    Args:
        campaign: what lasts for the campaign.
        pool: started here, closed by the caller.
        workloads: the candidates.
        earlier: bursts of earlier sessions, by workload key; measuring goes on behind them.
        looks: the round counts at which measuring may end, those of earlier sessions included.
        is_last: whether a candidate is final behind the last look; else its bursts wait in
            :attr:`bursts` for another session.
        reference: bursts of the reference block beside earlier sessions of the same candidates.
    """

    def __init__(
        self,
        campaign: Campaign,
        pool: Pool,
        workloads: Sequence[Workload],
        earlier: Mapping[str, Sequence[LabelledBurst]],
        looks: tuple[int, ...],
        *,
        is_last: bool = True,
        reference: Sequence[LabelledBurst] = (),
    ) -> None:
        self._campaign = campaign
        self._plan = campaign.plan
        self._threads = campaign.ref.options.threads
        self._looks, self._is_last = looks, is_last
        precision = campaign.ref.options.precision
        self._crew = Crew(pool, self._plan, self._keep_warmup, precision)
        shared = self._new_seats(self._plan.workers)
        self._members = [self._member(w, shared, earlier.get(w.key, ())) for w in workloads]
        self._references = None
        due = [m.workload for m in self._members if self._is_due(m)]
        if due:
            self._references = References(
                due,
                lambda: shared if self._threads == 1 else self._new_seats(1),
                self._plan,
                self._threads,
                campaign.history,
                reference,
            )
        n_bursts = self._plan.workers * sum(max(0, looks[-1] - m.rounds) for m in self._members)
        self._repeats_left = math.ceil(MOST_REPEATS * n_bursts)
        self._fingerprint: Fingerprint | None = None
        self._warnings: tuple[str, ...] = ()
        self._n_cpus: int | None = None
        self._next_round_s = 0.0

    def start(self, warnings: tuple[str, ...] = ()) -> Hello:
        """Start every worker that will be needed, and return what the device says of itself.

        Args:
            warnings: what about the host widens results; kept beside each of them.

        Raises:
            DeviceUnavailableError: the device cannot be opened.
        """
        seats = [seat for m in self._everyone() for seat in self._seats_for(m)]
        hello = self._crew.start(list(dict.fromkeys(seats)))
        self._fingerprint = hello.fingerprint
        self._warnings = (*self._plan.remarks, *hello.warnings)
        if not hello.reports_disturbance:
            self._warnings = (*warnings, *self._warnings)
            self._n_cpus = self._campaign.monitor.n_cpus
        if self._references is not None:
            self._references.learn(hello.fingerprint)
        return hello

    def remember(self) -> None:
        """Let the history know what the references took in this session."""
        if self._references is not None and self._fingerprint is not None:
            self._references.remember(self._fingerprint)

    @property
    def bursts(self) -> Mapping[str, Sequence[LabelledBurst]]:
        """Every burst so far of the candidates that have not failed, by workload key."""
        return {m.workload.key: m.bursts for m in self._active()}

    @property
    def reference(self) -> Sequence[LabelledBurst]:
        """The reference block's bursts, those of earlier sessions included."""
        return self._references.bursts if self._references is not None else ()

    def run(self) -> Iterator[Result]:
        """Yield what is final: failures at once, measurements in the last session."""
        yield from self._prepare_all()
        for member in self._active():
            if not self._is_due(member):
                yield self._finish(member)
        for look in self._looks:
            while due := [m for m in self._active() if m.rounds < look]:
                yield from self._round(due, look)
            yield from self._look(look)

    @staticmethod
    def _new_seats(count: int) -> tuple[Seat, ...]:
        return tuple(Seat() for _ in range(count))

    def _member(
        self, workload: Workload, shared: tuple[Seat, ...], earlier: Sequence[LabelledBurst]
    ) -> Member:
        # Several threads in two sessions of one process spin against each other: one process each.
        seats = shared if self._threads == 1 else self._new_seats(len(shared))
        return Member(
            workload=workload,
            seats=seats,
            bursts=list(earlier),
            rounds=rounds_done(earlier, self._plan.workers),
            next_round=max((b.round_index for b in earlier), default=WARMUP_ROUND) + 1,
        )

    def _is_due(self, member: Member) -> bool:
        return member.rounds < self._looks[-1]

    def _seats_for(self, member: Member) -> tuple[Seat, ...]:
        """Return where a member must be compiled: once is enough where nothing is left to time."""
        return member.seats if self._is_due(member) else member.seats[:1]

    def _everyone(self) -> list[Member]:
        return [*self._members, *(self._references.members if self._references else ())]

    def _active(self) -> list[Member]:
        return [m for m in self._members if not m.left]

    def _guarded(
        self, work: Callable[[Member, Seat], None], member: Member, seat: Seat
    ) -> Iterator[Failure]:
        """Do ``work``; if the member is lost, yield its failure (the reference has none)."""
        try:
            work(member, seat)
        except LostError as lost:
            self._leave(member)
            if member.is_reference:
                logger.info("without the %s: %s", member.workload.label, lost.failure.message)
                return
            if self._campaign.sink is not None:
                self._campaign.sink.failed(lost.failure)
            yield lost.failure

    def _prepare_all(self) -> Iterator[Result]:
        """Prepare every member on its seats, in another order on every seat.

        What is compiled first gets other memory than what comes last, for the life of the
        process. In one order everywhere that would be a difference between workloads on which
        all workers agree. Where no candidate is left it ends: the references alone tell nothing.
        """
        by_seat: dict[Seat, list[Member]] = {}
        for member in self._everyone():
            for seat in self._seats_for(member):
                by_seat.setdefault(seat, []).append(member)
        for seat, members in by_seat.items():
            order = [members[i] for i in self._campaign.rng.permutation(len(members))]
            # All are compiled before the first is warmed up: metering a workload's memory takes
            # freed pages from those that were.
            for work in (self._prepare, self._warm_up):
                for member in order:
                    if not self._active():
                        return
                    if not member.left:
                        yield from self._guarded(work, member, seat)

    def _prepare(self, member: Member, seat: Seat) -> None:
        self._crew.prepare(member, seat)
        self._campaign.tell(member.workload.label, 0)

    def _warm_up(self, member: Member, seat: Seat) -> None:
        if self._is_due(member):
            self._crew.warm_up(member, seat)

    def _round(self, due: list[Member], look: int) -> Iterator[Result]:
        """Time one burst for every candidate and worker, in fresh random order."""
        pairs = [(m, seat) for m in due for seat in m.seats]
        order = self._campaign.rng.permutation(len(pairs))
        self._wait_for_round()
        self._time_references()
        for member, seat in (pairs[i] for i in order):
            if not member.left:
                yield from self._guarded(self._time, member, seat)
        self._time_references()
        for member in due:
            member.rounds += 1
            member.next_round += 1
        self._campaign.tell(f"round {max(m.rounds for m in due)} of {look}", len(pairs))

    def _wait_for_round(self) -> None:
        """Let a round begin no sooner than the plan says, so that rounds see several moments.

        What is timed under a sustained load, or by a GPU itself, must not cool down meanwhile.
        """
        paced = self._fingerprint is not None and not self._fingerprint.is_scripted
        timed_by_gpu = any(
            b.burst.enqueue_ns is not None for m in self._members for b in m.bursts[-1:]
        )
        if not paced or self._plan.sustained_s or timed_by_gpu:
            return
        time.sleep(max(0.0, self._next_round_s - time.monotonic()))
        self._next_round_s = time.monotonic() + self._plan.round_s

    def _time_references(self) -> None:
        for reference in self._references.members if self._references else ():
            if reference.left:
                continue
            seat = reference.seats[reference.rounds % len(reference.seats)]
            for _ in self._guarded(self._time, reference, seat):
                pass
            reference.rounds += 1
            reference.next_round += 1

    def _time(self, member: Member, seat: Seat) -> None:
        """Time one burst; once more where the machine was disturbed beyond doubt."""
        labelled = self._label(member.next_round, *self._crew.burst(member, seat))
        # A sustained load is there to be throttled: its slow bursts are what is asked for.
        worth = frozenset() if self._plan.sustained_s else WORTH_REPEATING
        disturbed = not worth.isdisjoint(labelled.causes)
        if disturbed and self._repeats_left > 0 and not member.is_reference:
            self._repeats_left -= 1
            self._keep(member, replace(labelled, causes=(*labelled.causes, "superseded")))
            labelled = self._label(member.next_round, *self._crew.burst(member, seat))
        self._keep(member, labelled)

    def _label(self, round_index: int, worker: Worker, timed: TimedBurst) -> LabelledBurst:
        campaign = self._campaign
        return campaign.labeller.label(*timed, campaign.monitor, worker.label, round_index)

    def _keep_warmup(self, member: Member, worker: Worker, timed: TimedBurst) -> None:
        labelled = self._label(WARMUP_ROUND, worker, timed)
        self._keep(member, replace(labelled, causes=("first", *labelled.causes)))

    def _keep(self, member: Member, labelled: LabelledBurst) -> None:
        member.bursts.append(labelled)
        sink = self._campaign.sink
        if sink is None:
            return
        if not member.is_reference:
            sink.burst(member.workload, labelled)
        elif member.workload is BLOCK:
            sink.reference(self._members[0].workload, labelled)

    def _look(self, look: int) -> Iterator[Measurement]:
        """Let those go that reached their target, or all at the last look of the last session."""
        if not self._is_last:
            return
        for member in self._active():
            if look == self._looks[-1] or (member.rounds == look and self._is_settled(member)):
                yield self._finish(member)

    def _is_settled(self, member: Member) -> bool:
        found = estimate(member.bursts, self._threads, sustained=self._plan.sustained_s > 0)
        return is_settled(found, self._plan.target_for(member.workload))

    def _finish(self, member: Member) -> Measurement:
        assert member.loaded is not None
        assert self._fingerprint is not None
        measurement = measurement_from(
            member.workload,
            self._plan,
            self._fingerprint,
            [self._campaign.labeller.relabel(b) for b in member.bursts],
            member.loaded,
            self._telemetry(member),
        )
        if self._campaign.sink is not None:
            self._campaign.sink.done(measurement)
        self._leave(member)
        return measurement

    def _leave(self, member: Member) -> None:
        member.left = True
        if self._active():
            self._crew.drop(member)

    def _telemetry(self, member: Member) -> dict[str, Any]:
        assert member.check is not None
        assert self._fingerprint is not None
        stable = self._fingerprint.stable
        return {
            "warnings": list(self._warnings),
            "n_cpus": self._n_cpus,
            "smt": stable.get("smt"),
            "allocator": stable.get("allocator"),
            "provider": member.check.provider,
            "outside_ops": list(member.check.outside_ops),
            "attempts": member.n_faults + 1,
            "foreign_processes": list(member.others.values()),
            "worker_disagreement": member.agreement.worst,
            **member.sensors.to_json(),
            **(self._references.telemetry(member) if self._references else {}),
        }
