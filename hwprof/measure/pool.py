"""Worker processes: started, parked, asked with a time limit, and never left behind.

One worker runs; the others are stopped (SIGSTOP), for an idle runtime's threads may spin and
double what is measured beside them. Whatever happens to the engine, its workers end: on a
normal way out, at interpreter exit, and (Linux) by the kernel when the engine is killed. For the
kernel the parent is the thread that started a worker: measure in a thread that lasts.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from hwprof.errors import DeviceUnavailableError, MeasurementError
from hwprof.measure import machine, wire
from hwprof.measure.framing import write_all
from hwprof.measure.records import PROTOCOL_VERSION, DeviceRef, Fingerprint
from hwprof.measure.worker import load_factory

START_TIMEOUT_S = 120.0
"""Importing a runtime from a cold disk may take long; nothing is measured meanwhile."""
CLOSE_TIMEOUT_S = 5.0
WORKER_NUMBER = "HWPROF_WORKER"
"""Environment variable that holds a worker's number: scripted devices seed themselves with it."""

NO_PAGE_FAULTS: Mapping[str, str] = {
    # Under glibc's defaults a torch call gives large buffers back to the system and faults them
    # in again: hundreds of faults and a quarter of the time, per call. Keep what was allocated.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
LINK = "link"
"""The kind of fault that says nothing about the workload: the way to the device is gone."""
_LOG_TAIL_BYTES = 2000

_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


class WorkerFault(MeasurementError):  # noqa: N818 - a fault of the worker, raised as an error
    """A request that got no usable answer.

    ``kind`` is one of :class:`hwprof.measure.records.Failure`; ``lost`` says that the process
    is gone with all that it held.
    """

    def __init__(self, kind: str, message: str, *, lost: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.lost = lost


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """Another Python that workers run on, with the packages of its own environment.

    ``paths`` stand before them: a folder that holds hwprof and nothing else.
    """

    executable: str
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Hello:
    """What a worker tells once its device is open."""

    fingerprint: Fingerprint
    reports_disturbance: bool
    warnings: tuple[str, ...] = ()
    """What about the device widens results or must be said beside them."""


class Worker:
    """One worker process. ``label`` is unique in a campaign.

    Args:
        number: counts the workers of a campaign.
        command: a program that answers frames on its standard streams; by default a worker on
            this host.
        interpreter: what runs a worker on this host; by default the interpreter of this process.
    """

    def __init__(
        self,
        number: int,
        command: Sequence[str] | None = None,
        interpreter: Interpreter | None = None,
    ) -> None:
        self.label = f"w{number}"
        self._oom_kills = machine.oom_kills()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        python = interpreter.executable if interpreter else sys.executable
        here = [python, "-P", "-m", "hwprof.measure.worker", str(os.getpid())]
        self._process = subprocess.Popen(
            here if command is None else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(number, interpreter) if command is None else None,
            # Ctrl-C is for the engine, which then ends its workers in good order.
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in_fd = self._process.stdin.fileno()
        self._out_fd = self._process.stdout.fileno()
        self._is_parked = False
        _alive.add(self)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, op: str, **fields: Any) -> None:
        """Send a request without waiting for its answer.

        Raises:
            WorkerFault: the worker is gone.
        """
        self.send_frame(wire.Frame(header={"op": op, **fields}))

    def send_frame(self, frame: wire.Frame) -> None:
        """Send a request that may hold arrays (:meth:`send`)."""
        op = str(frame.header["op"])
        try:
            self.resume()
            write_all(self._in_fd, wire.encode(frame))
        except BrokenPipeError:
            raise self._gone(op) from None

    def receive(self, op: str, timeout_s: float) -> wire.Frame:
        """Wait for the answer to ``op``; the process that gives none in time is ended.

        Raises:
            WorkerFault: no answer, no usable answer, or the answer is an error.
        """
        deadline_s = time.monotonic() + timeout_s
        try:
            frame = wire.decode(lambda size: self._read(size, deadline_s))
        except TimeoutError:
            self.kill()
            raise WorkerFault(
                "hung",
                f"no answer to {op!r} within {timeout_s:g} s; raise --timeout if it may "
                "take that long",
                lost=True,
            ) from None
        except wire.StreamClosedError:
            raise self._gone(op) from None
        except wire.WireError as error:
            self.kill()
            raise WorkerFault("garbage", f"the answer to {op!r}: {error}", lost=True) from error
        frame = wire.Frame(header=wire.plain(frame.header), arrays=frame.arrays)
        fault = frame.header.get("error")
        if isinstance(fault, dict):
            kind, message = str(fault.get("kind", "refused")), str(fault.get("message", ""))
            raise WorkerFault(kind, message, lost=False)
        return frame

    def request(self, op: str, timeout_s: float, **fields: Any) -> wire.Frame:
        """Send a request and wait for its answer (:meth:`send`, :meth:`receive`)."""
        self.send(op, **fields)
        return self.receive(op, timeout_s)

    def park(self) -> None:
        """Stop the process where it stands."""
        if not self._is_parked:
            self.stop()
            self._is_parked = True

    def resume(self) -> None:
        """Let the process run again."""
        if self._is_parked:
            self.go_on()
            self._is_parked = False

    def stop(self) -> None:
        """Stop the process that times."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process that times go on."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Let the worker close its device, then end it."""
        if self._process.poll() is None:
            with suppress(WorkerFault):
                self.request("close", CLOSE_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End the process at once, and reap it."""
        with suppress(ProcessLookupError, BrokenPipeError):
            self.resume()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self._log.close()
        _alive.discard(self)

    def _read(self, size: int, deadline_s: float) -> bytes:
        """Read exactly ``size`` bytes; blocks in the kernel, so the engine takes no CPU time."""
        poller = select.poll()
        poller.register(self._out_fd, select.POLLIN)
        parts = []
        while size > 0:
            left_ms = 1000.0 * (deadline_s - time.monotonic())
            if left_ms <= 0 or not poller.poll(left_ms):
                raise TimeoutError
            part = os.read(self._out_fd, size)
            if not part:
                raise wire.StreamClosedError("the worker is gone")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _gone(self, op: str) -> WorkerFault:
        """Say how the process ended, in the words of its log."""
        try:
            code = self._process.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        log = self._log_end()
        self.kill()
        return self.ending_fault(code, op, log)

    def ending_fault(self, code: int | None, op: str, log: str) -> WorkerFault:
        """Return the fault that an ended process stands for.

        Args:
            code: as in ``Popen.returncode``; None where it only closed its pipe.
            op: what it was asked.
            log: the end of what it wrote to its standard error.
        """
        if code == -signal.SIGKILL and machine.oom_kills() != self._oom_kills:
            message = (
                f"the system ended the process during {op!r} for want of memory: free some, or "
                "measure fewer workloads at once"
            )
            return WorkerFault("out_of_memory", message, lost=True)
        how = "closed its pipe" if code is None else _ending(code)
        message = ": ".join(filter(None, (f"the process {how} during {op!r}", last_words(log))))
        return WorkerFault("died", message, lost=True)

    def _log_end(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace")


def last_words(log: str) -> str:
    """Return the last line of a log, without what would move a terminal."""
    lines = log.strip().splitlines()
    return str(wire.plain(lines[-1].strip())).strip() if lines else ""


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _environment(number: int, interpreter: Interpreter | None) -> dict[str, str]:
    """Return a worker's environment: its import path, an allocator that keeps its memory."""
    # The same imports as here, whatever put them on the path (an editable install, a test run).
    ours = [str(Path(p).resolve()) for p in sys.path if p]
    paths = list(interpreter.paths) if interpreter else ours
    return {
        **os.environ,
        **NO_PAGE_FAULTS,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        WORKER_NUMBER: str(number),
    }


class Launcher(Protocol):
    """Starts workers next to a device."""

    def start(self, number: int) -> Worker:
        """Start one worker process.

        Raises:
            DeviceUnavailableError: the device cannot be reached.
        """
        ...

    def free_memory_bytes(self) -> int | None:
        """Return the memory that models may take there; None where that is not known."""
        ...


class HostLauncher:
    """Starts workers on this host.

    Args:
        interpreter: the Python that they run on; None takes ours.
    """

    def __init__(self, interpreter: Interpreter | None = None) -> None:
        self._interpreter = interpreter

    def start(self, number: int) -> Worker:
        """Start one worker process."""
        return Worker(number, interpreter=self._interpreter)

    def free_memory_bytes(self) -> int | None:
        """Return the memory that can be had without swapping."""
        return machine.available_memory_bytes()


def launcher_for(ref: DeviceRef) -> Launcher:
    """Return what starts workers of a device.

    Raises:
        DeviceUnavailableError: it cannot be loaded, or the device cannot be reached.
    """
    if ref.launcher is None:
        return HostLauncher()
    launcher: Launcher = load_factory(ref.name, ref.launcher)(ref)
    return launcher


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
                worker.send("open", device=wire.device_json(self._ref))
            hellos = [_hello(w.receive("open", START_TIMEOUT_S)) for w in workers]
        except WorkerFault as fault:
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


def living_pids() -> tuple[int, ...]:
    """Return the process ids of every worker of this process."""
    return tuple(w.pid for w in list(_alive))


def _kill_all() -> None:
    for worker in list(_alive):
        worker.kill()


atexit.register(_kill_all)
