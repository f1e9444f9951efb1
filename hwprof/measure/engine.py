"""Measuring: many workloads on one device, each to a level that repeats, or to a typed failure.

Workloads are taken in groups of at most 31 and references of ours. A group runs on a few fresh
worker processes, one running at a time, each holding every candidate; a round times one short
burst for every (candidate, worker) in fresh random order, so that a slow minute of the machine
falls on all alike. Every burst reaches the sink at once: what is interrupted can go on.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hwprof.measure import machine
from hwprof.measure.group import Campaign, Group
from hwprof.measure.labelling import Labeller
from hwprof.measure.level import rounds_done
from hwprof.measure.load import LoadMonitor, check_quiet, check_threads
from hwprof.measure.pool import Pool, refusal
from hwprof.measure.process import living_pids
from hwprof.measure.records import (
    DeviceRef,
    Failure,
    LabelledBurst,
    MeasurePlan,
    Result,
)
from hwprof.measure.room import groups
from hwprof.progress import Pace, Progress
from hwprof.protocols import SessionHistory, Sink
from hwprof.workload import Workload, distinct

QUIET_WINDOW_S = 0.5


def measure(
    workloads: Sequence[Workload],
    device: DeviceRef,
    plan: MeasurePlan,
    *,
    sink: Sink | None = None,
    history: SessionHistory | None = None,
    earlier: Mapping[str, Sequence[LabelledBurst]] | None = None,
    references: Sequence[tuple[str, LabelledBurst]] = (),
    taken: Collection[str] = (),
    progress: Callable[[Progress], None] | None = None,
    deadline_s: float | None = None,
) -> Iterator[Result]:
    """Yield each workload's measurement, or why there is none, as soon as it is final.

    Args:
        workloads: what to time, in the order in which groups are formed; of several with one
            key the first counts.
        device: how a worker opens the device.
        plan: how long and how often.
        sink: gets every burst, measurement and failure at once.
        history: of sessions on this machine, which says how far they lie apart and gets each of
            this call; without one the protocol's constant is what sessions differ by.
        earlier: bursts of interrupted sessions by workload key; measuring goes on behind them.
        references: the reference block's bursts of interrupted sessions, each with the key of a
            workload that it was timed beside.
        taken: labels of the workers of earlier calls whose measurements those of this one are kept
            with: levels of the same workers pass for levels of one session.
        progress: called after every round; ``done`` counts workloads.
        deadline_s: ``time.monotonic()`` after which no new group is begun.

    Raises:
        DeviceUnavailableError: the device cannot be opened, or several threads are asked for
            while others keep the CPUs busy.
        PlanError: the machine grants fewer cores than threads are asked for.
    """
    asked = distinct(workloads)
    known = dict(earlier or {})
    report = _Reporter(len(asked), plan, progress)
    before = [b for bursts in known.values() for b in bursts] + [b for _, b in references]
    campaign = Campaign(
        ref=device,
        plan=plan,
        rng=np.random.default_rng(plan.seed),
        sink=sink,
        history=history,
        labeller=Labeller(before),
        monitor=LoadMonitor(living_pids),
        tell=report.step,
    )
    next_worker = _first_free_number({*taken, *(b.worker for b in before)})
    is_fit = False
    refused = {w.key: why for w in asked if (why := refusal(device, w)) is not None}
    for failure in refused.values():
        if sink is not None:
            sink.failed(failure)
        report.finished(failure)
        yield failure
    if not (asked := [w for w in asked if w.key not in refused]):
        return
    for turn in turns(groups(asked, device, plan), plan.sessions):
        looks, is_last = plan.looks_in(turn.session), turn.session == plan.sessions - 1
        members = [
            w
            for w in turn.waiting
            if is_last or rounds_done(known.get(w.key, ()), plan.workers) < looks[-1]
        ]
        if not members:
            # How long ago an interrupted call ended the session is not known.
            turn.not_before_s = time.monotonic() + plan.session_gap_s
            continue
        begins_s = max(time.monotonic(), turn.not_before_s)
        if deadline_s is not None and begins_s >= deadline_s:
            return
        _wait_until(turn.not_before_s, report)
        turn.reference = turn.reference or _beside(turn.waiting, known, references)
        with Pool(device, next_worker) as pool:
            group = Group(
                campaign, pool, members, known, looks, is_last=is_last, reference=turn.reference
            )
            hello = group.start(machine.warnings())
            if sink is not None:
                sink.opened(hello.fingerprint)
            if not (is_fit or hello.reports_disturbance):
                require_fit(campaign.monitor, device.options.threads)
            is_fit = True
            for result in group.run():
                turn.waiting.remove(result.workload)
                known.pop(result.workload.key, None)
                report.finished(result)
                yield result
            known.update(group.bursts)
            turn.reference = group.reference
            group.remember()
            next_worker = pool.next_number
        turn.not_before_s = time.monotonic() + plan.session_gap_s


@dataclass(kw_only=True)
class Turn:
    """A group in one of its sessions; ``waiting`` are its workloads without a result."""

    waiting: list[Workload]
    reference: Sequence[LabelledBurst] = ()
    """The reference block's bursts of its earlier sessions."""
    session: int = 0
    not_before_s: float = 0.0


def turns(groups: Iterable[list[Workload]], sessions: int) -> Iterator[Turn]:
    """Yield every group once a session.

    Between two sessions of a group stands a session of the next one: the time that must pass
    is used, and a campaign that ends early leaves at most a group or two without results.
    """
    waiting: list[Turn] = []
    for members in itertools.chain(groups, itertools.repeat(None)):
        if members is None and not waiting:
            return
        if members is not None:
            waiting.insert(0, Turn(waiting=members))
        for turn in waiting:
            yield turn
            turn.session += 1
        waiting = [turn for turn in waiting if turn.session < sessions]


def _beside(
    workloads: Sequence[Workload],
    known: Mapping[str, Sequence[LabelledBurst]],
    references: Sequence[tuple[str, LabelledBurst]],
) -> list[LabelledBurst]:
    """Return the reference block's bursts that were timed beside ``workloads``.

    With several threads the block has workers of its own, and a group is one workload.
    """
    keys = {w.key for w in workloads}
    workers = {b.worker for key in keys for b in known.get(key, ())}
    return [b for key, b in references if key in keys or b.worker in workers]


def _wait_until(at_s: float, report: _Reporter) -> None:
    """Let time pass, so that two sessions of a group see the machine at two times."""
    while (left_s := at_s - time.monotonic()) > 0:
        report.step(f"the second look at it begins in {math.ceil(left_s)} s", 0)
        time.sleep(min(left_s, 1.0))


def _first_free_number(labels: Iterable[str]) -> int:
    """Return a worker number that is in none of the labels: two processes are never mixed up."""
    return 1 + max((int(name.removeprefix("w")) for name in labels), default=-1)


def require_fit(monitor: LoadMonitor, threads: int) -> None:
    """Refuse what this host cannot time.

    Raises:
        PlanError: it grants fewer cores than threads.
        DeviceUnavailableError: others keep the CPUs of several threads busy.
    """
    check_threads(threads)
    if threads > 1:
        time.sleep(QUIET_WINDOW_S)
        check_quiet(threads, monitor.mark())


class _Reporter:
    """Turns what groups tell into progress, with an estimate of the time left."""

    def __init__(
        self, total: int, plan: MeasurePlan, callback: Callable[[Progress], None] | None
    ) -> None:
        self._total, self._callback = total, callback
        self._each = plan.most_bursts
        self._pace: Pace | None = None
        self._done = self._failed = self._bursts = 0

    def step(self, label: str, n_bursts: int) -> None:
        """Tell what is being done; ``n_bursts`` more are timed."""
        self._bursts += n_bursts
        if self._callback is None:
            return
        if self._pace is None:  # starting workers is no part of the pace
            self._pace = Pace(total=self._total * self._each)
        self._callback(
            Progress(
                stage="measure",
                done=self._done,
                total=self._total,
                label=label,
                eta_s=self._pace.eta_s(self._bursts),
                n_failed=self._failed,
            )
        )

    def finished(self, result: Result) -> None:
        """Count a workload that is final; one that ended early leaves nothing to wait for."""
        self._done += 1
        self._failed += isinstance(result, Failure)
        self._bursts = max(self._bursts, self._done * self._each)
        self.step(result.workload.label, 0)
