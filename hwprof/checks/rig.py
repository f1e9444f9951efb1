"""What the checks run on: the engine with a device, or in tests something that plays its part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from typing import Protocol

from hwprof.checks.instruments import HostInstruments, Instruments, KeepsTime
from hwprof.checks.probing import PLAIN, probing_ref
from hwprof.checks.records import CannotCheckError
from hwprof.errors import DeviceUnavailableError, MeasurementError, PlanError
from hwprof.measure import wire
from hwprof.measure.engine import measure
from hwprof.measure.pool import Pool
from hwprof.measure.process import WorkerFault
from hwprof.measure.records import (
    Burst,
    DeviceRef,
    Failure,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.measure.session_spread import KINDS, Kind, SessionSpread, session_spread
from hwprof.measure.worker import open_adapter
from hwprof.progress import Progress
from hwprof.store.session_file import SessionFile
from hwprof.workload import Workload

NOT_THERE = frozenset({"unsupported", "unavailable", "refused"})
"""Kinds of failure that mean: the device cannot do it. All others are faults."""
FEWEST_CALLS = 10
_BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000): pass
"""
"""Ends with its parent, also where that is killed: left behind it would disturb all that follows."""


class Rig(Protocol):
    """Everything that a check may time. All of it can be injected."""

    @property
    def instruments(self) -> Instruments:
        """The clock and the timing loop."""
        ...

    @property
    def threads(self) -> int:
        """Threads of the runtime, unless a check asks for others."""
        ...

    def measure(
        self,
        workloads: Sequence[Workload],
        plan: MeasurePlan,
        *,
        threads: int | None = None,
        delays_s: Mapping[str, float] | None = None,
    ) -> dict[str, Measurement]:
        """Measure workloads side by side; those in ``delays_s`` by label are made slower.

        Raises:
            CannotCheckError: the device or the machine cannot do it.
            MeasurementError: a workload failed.
        """
        ...

    def plain_loop(
        self, workload: Workload, duration_s: float, *, threads: int | None = None
    ) -> Burst:
        """Time calls in one process of their own, with a plain loop.

        Raises:
            CannotCheckError: the device or the machine cannot do it.
            MeasurementError: the workload failed.
        """
        ...

    def foreign_load(self) -> AbstractContextManager[None]:
        """Keep a core busy from another process."""
        ...


class DeviceRig:
    """The engine with a device.

    Args:
        ref: the device.
        tell: called with a line about what is being done.

    Raises:
        DeviceUnavailableError: the device cannot be opened.
    """

    def __init__(self, ref: DeviceRef, tell: Callable[[str], None]) -> None:
        self._ref, self._tell = ref, tell
        self._history = SessionFile()
        with Pool(ref, 0) as pool:
            _, hello = pool.start(1)
        self._fingerprint = hello.fingerprint
        self.instruments: Instruments = HostInstruments()
        if hello.reports_disturbance:
            adapter = open_adapter(ref)
            if isinstance(adapter, KeepsTime):
                self.instruments = adapter.instruments
            adapter.close()

    @property
    def threads(self) -> int:
        """Threads of the runtime, unless a check asks for others."""
        return self._ref.options.threads

    @property
    def sessions(self) -> Mapping[Kind, SessionSpread]:
        """How far sessions on the machine lie apart by now; empty for a device with a script."""
        if self._fingerprint.is_scripted:
            return {}
        known = self._history.known(self._fingerprint)
        return {kind: session_spread(known, kind) for kind in KINDS}

    def measure(
        self,
        workloads: Sequence[Workload],
        plan: MeasurePlan,
        *,
        threads: int | None = None,
        delays_s: Mapping[str, float] | None = None,
    ) -> dict[str, Measurement]:
        """Measure workloads with the engine."""
        ref = self._with_threads(threads)
        if delays_s:
            ref = probing_ref(ref, delays_s)
        found: dict[str, Measurement] = {}
        try:
            results = measure(workloads, ref, plan, history=self._history, progress=self._relay)
            for result in results:
                if isinstance(result, Failure):
                    raise _failed(result.kind, f"{result.workload.label}: {result.message}")
                found[result.workload.label] = result
        except (DeviceUnavailableError, PlanError) as error:
            raise CannotCheckError(str(error)) from error
        return found

    def plain_loop(
        self, workload: Workload, duration_s: float, *, threads: int | None = None
    ) -> Burst:
        """Time calls in a fresh worker, which nothing else shares."""
        ref = probing_ref(self._with_threads(threads), {workload.label: PLAIN})
        plan = plan_for("quick")
        self._tell(f"plain loop of {duration_s:g} s")
        try:
            with Pool(ref, 0) as pool:
                (worker,), _ = pool.start(1)
                pool.run_only(worker)
                worker.request(
                    "compile",
                    plan.timeout_s,
                    workload=workload.to_json(),
                    plan=asdict(plan),
                )
                return wire.burst_from(
                    worker.request(
                        "burst",
                        plan.timeout_s,
                        key=workload.key,
                        duration_s=duration_s,
                        min_calls=FEWEST_CALLS,
                        cache=plan.cache,
                    )
                )
        except WorkerFault as fault:
            raise _failed(fault.kind, str(fault)) from fault
        except DeviceUnavailableError as error:
            raise CannotCheckError(str(error)) from error

    @contextmanager
    def foreign_load(self) -> Iterator[None]:
        """Keep a core busy from another process."""
        busy = subprocess.Popen(
            [sys.executable, "-S", "-c", _BUSY, str(os.getpid())],
            process_group=0,  # Ctrl-C is for the checks, which then end it
        )
        try:
            yield
        finally:
            busy.kill()
            busy.wait()

    def _with_threads(self, threads: int | None) -> DeviceRef:
        if threads is None:
            return self._ref
        return replace(self._ref, options=replace(self._ref.options, threads=threads))

    def _relay(self, event: Progress) -> None:
        self._tell(event.label)


def _failed(kind: str, message: str) -> CannotCheckError | MeasurementError:
    return CannotCheckError(message) if kind in NOT_THERE else MeasurementError(message)
