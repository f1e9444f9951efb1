"""Worker processes: started, parked, asked with a time limit, and never left behind.

Whatever happens to the engine, its workers end: on a normal way out, at interpreter exit, and
(Linux) by the kernel when the engine is killed. For the kernel the parent is the thread that
started a worker: measure in a thread that lasts.
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
from typing import Any

from hwprof.errors import MeasurementError
from hwprof.measure import machine, wire
from hwprof.measure.framing import write_all
from hwprof.measure.kinds import FaultKind, known_kind

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
LINK: FaultKind = "link"
"""The kind of fault that says nothing about the workload: the way to the device is gone."""
_LOG_TAIL_BYTES = 2000
_READ_BYTES = 2**16

_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


class WorkerFault(MeasurementError):  # noqa: N818 - a fault of the worker, raised as an error
    """A request that got no usable answer.

    ``lost`` says that the process is gone with all that it held.
    """

    def __init__(self, kind: FaultKind, message: str, *, lost: bool) -> None:
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
        self._pipes = (self._process.stdin, self._process.stdout)
        self._in_fd, self._out_fd = (pipe.fileno() for pipe in self._pipes)
        self._poller = select.poll()
        self._poller.register(self._out_fd, select.POLLIN)
        self._unread = bytearray()
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
        if self._is_ended:
            raise WorkerFault("died", f"the process was ended before {op!r}", lost=True)
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
                f"no answer to {op!r} within {timeout_s:g} s: measure when the machine is less busy, "
                "or raise --timeout",
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
            # A process whose device ended under it would fail at whatever it is asked next.
            if lost := fault.get("lost") is True:
                self.kill()
            message = str(fault.get("message", ""))
            raise WorkerFault(known_kind(fault.get("kind")), message, lost=lost)
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
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process that times go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Until it is reaped here its number is nobody else's. Popen.send_signal asks for its end
        # first, twice a burst, which costs more than the signal.
        if self._process.returncode is None:
            os.kill(self._process.pid, number)

    def close(self) -> None:
        """Let the worker close its device, then end it."""
        if self._process.poll() is None:
            with suppress(WorkerFault):
                self.request("close", CLOSE_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End the process at once, and reap it."""
        with suppress(ProcessLookupError):
            self.resume()
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes:
            with suppress(BrokenPipeError):
                pipe.close()
        self._log.close()
        _alive.discard(self)

    @property
    def _is_ended(self) -> bool:
        """Whether :meth:`kill` was called: its pipes' numbers may be other files' by now."""
        return self._pipes[0].closed

    def _read(self, size: int, deadline_s: float) -> bytes:
        """Read exactly ``size`` bytes; blocks in the kernel, so the engine takes no CPU time.

        Takes all that is there at once: a frame then costs one wake-up, not one for each part.
        """
        unread = self._unread
        while len(unread) < size:
            left_ms = max(0.0, 1000.0 * (deadline_s - time.monotonic()))
            # Looked at once more: where this process was itself stopped past the deadline (Ctrl-Z
            # and fg), the answer lies there.
            if not self._poller.poll(left_ms) and not self._poller.poll(0):
                raise TimeoutError
            part = os.read(self._out_fd, max(_READ_BYTES, size - len(unread)))
            if not part:
                raise wire.StreamClosedError("the worker is gone")
            unread += part
        found = bytes(unread[:size])
        del unread[:size]
        return found

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
        return process_fault(code, op, log, oom=machine.oom_kills() != self._oom_kills)

    def _log_end(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace")


def process_fault(code: int | None, op: str, log: str, *, oom: bool) -> WorkerFault:
    """Return the fault that the end of a worker's process stands for.

    Args:
        code: as in ``Popen.returncode``; None where it only closed its pipe.
        op: what it was asked.
        log: the end of what it wrote to its standard error.
        oom: whether the system that it ran on has ended some process for want of memory.
    """
    if oom and code == -signal.SIGKILL:
        message = (
            f"the system ended the process during {op!r} for want of memory: free some, or "
            "measure fewer workloads at once"
        )
        return WorkerFault("out_of_memory", message, lost=True)
    how = "closed its pipe" if code is None else _ending(code)
    message = ": ".join(filter(None, (f"the process {how} during {op!r}", last_words(log))))
    return WorkerFault("died", message, lost=True)


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
    paths = interpreter.paths if interpreter else ours
    return {
        **os.environ,
        **NO_PAGE_FAULTS,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        WORKER_NUMBER: str(number),
    }


def living_pids() -> tuple[int, ...]:
    """Return the process ids of every worker of this process."""
    return tuple(w.pid for w in list(_alive))


def _kill_all() -> None:
    for worker in list(_alive):
        worker.kill()


atexit.register(_kill_all)
