"""The workers of a group, of which one runs, and what starts them next to a device.

One worker runs; the others are stopped (SIGSTOP), for an idle runtime's threads may spin and
double what is measured beside them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Protocol, Self

from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure import machine, wire
from hwprof.measure.loading import lack, load_factory
from hwprof.measure.process import LINK, Interpreter, Worker, WorkerFault
from hwprof.measure.records import PROTOCOL_VERSION, DeviceRef, Failure, Fingerprint
from hwprof.workload import Workload

START_TIMEOUT_S = 120.0
"""Importing a runtime from a cold disk may take long; nothing is measured meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a worker tells once its device is open."""

    fingerprint: Fingerprint
    reports_disturbance: bool
    warnings: tuple[str, ...] = ()
    """What about the device widens results or must be said beside them."""


class Launcher(Protocol):
    """Starts workers next to a device."""

    def start(self, number: int) -> Worker:
        """Start one worker process.

        Raises:
            DeviceUnavailableError: the device cannot be reached.
        """
        ...

    def free_memory_bytes(self) -> int | None:
        """Return the host's memory that models may take there; None where that is not known."""
        ...

    def free_device_bytes(self) -> int | None:
        """Return the device's own free memory; None where it has none or does not tell."""
        ...


class HostLauncher:
    """Starts workers on this host.

    Args:
        interpreter: the Python that they run on; None takes ours.
        memory: ``package.module:function`` that tells the free memory of a device with memory of
            its own; None for a device that has none.
    """

    def __init__(self, interpreter: Interpreter | None = None, memory: str | None = None) -> None:
        self._interpreter, self._memory = interpreter, memory

    def start(self, number: int) -> Worker:
        """Start one worker process."""
        return Worker(number, interpreter=self._interpreter)

    def free_memory_bytes(self) -> int | None:
        """Return the memory that can be had without swapping."""
        return machine.available_memory_bytes()

    def free_device_bytes(self) -> int | None:
        """Return the device's own free memory, as its driver tells it."""
        if self._memory is None:
            return None
        free: int | None = load_factory("the device's memory", self._memory)()
        return free


def launcher_for(ref: DeviceRef) -> Launcher:
    """Return what starts workers of a device.

    Raises:
        DeviceUnavailableError: it cannot be loaded, or the device is not there.
    """
    if ref.launcher is None:
        # Before workers import a runtime, which takes seconds, to find no device.
        if ref.check and (missing := lack(ref.check)):
            raise DeviceUnavailableError(f"the device {ref.name!r} cannot be used: {missing}")
        return HostLauncher(memory=ref.memory)
    launcher: Launcher = load_factory(ref.name, ref.launcher)(ref)
    return launcher


def refusal(ref: DeviceRef, workload: Workload) -> Failure | None:
    """Return why a device does not take a workload, as far as shows before workers start.

    What it returns None for is asked of the worker, which has the runtime.
    """
    if not ref.refuses:
        return None
    reason: str = load_factory(f"the rules of {ref.name}", ref.refuses)(workload, ref.options)
    if not reason:
        return None
    return Failure(workload=workload, stage="supports", kind="unsupported", message=reason)


class Pool:
    """The workers of one group, of which one runs.

    Args:
        ref: the device that every worker opens.
        first_number: number of the first worker; labels count on from it.
    """

    def __init__(self, ref: DeviceRef, first_number: int) -> None:
        self._ref = ref
        self._launcher = launcher_for(ref)
        self._fingerprints: dict[Interpreter | None, Fingerprint] = {}
        self.next_number = first_number
        self._workers: list[Worker] = []
        self._running: Worker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            if kind is None:
                worker.close()
            else:
                worker.kill()
        self._workers.clear()

    def start(
        self, count: int, interpreter: Interpreter | None = None
    ) -> tuple[list[Worker], Hello]:
        """Start workers side by side, open the device in each, and park them.

        Args:
            count: how many.
            interpreter: the Python that they run on; None takes ours.

        Raises:
            DeviceUnavailableError: the device cannot be opened.
            PlanError: the options do not fit the device.
            WorkerFault: the link broke while it was opened again; a new try may succeed.
        """
        workers: list[Worker] = []
        launcher = self._launcher if interpreter is None else HostLauncher(interpreter)
        try:
            for _ in range(count):
                worker = launcher.start(self.next_number)
                self.next_number += 1
                self._workers.append(worker)
                workers.append(worker)
            for worker in workers:
                worker.send("open", device=asdict(self._ref))
            hellos = [_hello(w.receive("open", START_TIMEOUT_S)) for w in workers]
        except WorkerFault as fault:
            if fault.kind == LINK and self._fingerprints:
                # The device was open before: this was the link, and the caller connects again.
                for worker in workers:
                    self.remove(worker)
                raise
            if fault.kind == "plan":
                raise PlanError(str(fault)) from fault
            where = f" on {interpreter.executable!r}" if interpreter else ""
            raise DeviceUnavailableError(
                f"cannot open the device {self._ref.name!r}{where}: {fault}"
            ) from fault
        for worker in workers:
            worker.park()
        first = self._fingerprints.setdefault(interpreter, hellos[0].fingerprint)
        self._require_same_device(first, hellos)
        return workers, hellos[0]

    def _require_same_device(self, first: Fingerprint, hellos: list[Hello]) -> None:
        """Refuse to go on where a later worker finds another device than the first did."""
        for hello in hellos:
            changed = first.differences(hello.fingerprint)
            if changed:
                what = ", ".join(f"{n} from {a!r} to {b!r}" for n, (a, b) in changed.items())
                raise DeviceUnavailableError(
                    f"the device {self._ref.name!r} changed while it was measured ({what}): put it "
                    "back as it was and go on, or measure into a new folder"
                )

    def run_only(self, worker: Worker) -> None:
        """Park the worker that runs; ``worker`` is resumed by its next request."""
        if self._running is not worker and self._running is not None:
            self._running.park()
        self._running = worker

    def remove(self, worker: Worker) -> None:
        """Forget a worker, ending it if it still lives."""
        worker.kill()
        self._workers.remove(worker)
        if self._running is worker:
            self._running = None


def _hello(frame: wire.Frame) -> Hello:
    if (theirs := frame.header.get("protocol")) != PROTOCOL_VERSION:
        raise WorkerFault(
            "garbage",
            f"the worker speaks protocol {theirs!r}, not {PROTOCOL_VERSION}: another hwprof "
            "stands on its import path",
            lost=True,
        )
    return Hello(
        fingerprint=Fingerprint.from_json(frame.header["fingerprint"]),
        reports_disturbance=frame.header["reports_disturbance"],
        warnings=tuple(frame.header["warnings"]),
    )
