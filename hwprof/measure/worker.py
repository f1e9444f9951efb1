"""The process that opens a device, compiles, and times: ``python -m hwprof.measure.worker``.

It answers frames (:mod:`hwprof.measure.wire`) on its standard input until that closes. A fresh
process per replica matters more than time does: what a process happens to get from the system
(memory layout, a busy core) stays with it for life.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, NoReturn

from hwprof.errors import HwprofError
from hwprof.measure import agreement, wire
from hwprof.measure.framing import read_from, write_all
from hwprof.measure.kinds import FaultKind, failure_kind
from hwprof.measure.loading import load_factory
from hwprof.measure.memory import MemoryMeter
from hwprof.measure.records import PROTOCOL_VERSION, DeviceRef, MeasurePlan
from hwprof.protocols import (
    CanBeLost,
    DeviceAdapter,
    Executable,
    ReportsDisturbance,
    ReportsWarnings,
)
from hwprof.workload import Workload

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def open_adapter(ref: DeviceRef) -> DeviceAdapter:
    """Open the adapter that ``ref`` names, in this process.

    Raises:
        DeviceUnavailableError: there is no such class, or its device is not there.
    """
    adapter: DeviceAdapter = load_factory(ref.name, ref.factory)(ref.options)
    return adapter


Operations = Mapping[str, Callable[[wire.Frame], wire.Frame]]


class Server:
    """Answers requests by operation. Every answer is a frame, errors included."""

    operations: Operations

    def answer(self, request: wire.Frame) -> wire.Frame:
        """Return the answer to one request."""
        try:
            operation = self.operations[request.header["op"]]
            return operation(request)
        except HwprofError as error:
            return _error_frame(failure_kind(error), str(error))
        except MemoryError as error:
            return _error_frame("out_of_memory", f"out of memory: {error}")
        except Exception as error:  # a process boundary: whatever it was, the parent must know
            logger.exception("the request %s failed", request.header.get("op"))
            return _error_frame("refused", f"{type(error).__name__}: {error}")


class AdapterServer(Server):
    """Answers requests about one adapter."""

    def __init__(self) -> None:
        self._adapter: DeviceAdapter | None = None
        self._executables: dict[str, Executable] = {}
        self._memory = MemoryMeter()
        self.operations = {
            "open": self._open,
            "supports": self._supports,
            "compile": self._compile,
            "check": self._check,
            "burst": self._burst,
            "trace": self._trace,
            "drop": self._drop,
            "close": self._close,
        }

    def answer(self, request: wire.Frame) -> wire.Frame:
        """Return the answer to one request; an error says where it took the device with it."""
        found = super().answer(request)
        if self._adapter is not None and "error" in found.header:
            found.header["error"]["lost"] = _is_lost(self._adapter)
        return found

    @property
    def adapter(self) -> DeviceAdapter:
        """The open adapter."""
        if self._adapter is None:
            raise wire.WireError(
                "the worker was asked for work before it was told to open a device"
            )
        return self._adapter

    def _open(self, request: wire.Frame) -> wire.Frame:
        self._adapter = self.open_device(request.header)
        self._memory = MemoryMeter()
        return wire.Frame(
            header={
                "protocol": PROTOCOL_VERSION,
                "fingerprint": self._adapter.fingerprint().to_json(),
                "reports_disturbance": isinstance(self._adapter, ReportsDisturbance),
                "warnings": [*self.warnings(), *_adapter_warnings(self._adapter)],
            }
        )

    def open_device(self, header: Mapping[str, Any]) -> DeviceAdapter:
        """Open the adapter that a request names."""
        return open_adapter(wire.device_from(header["device"]))

    def warnings(self) -> list[str]:
        """Return what only this process can know and the results must carry."""
        return []

    def _supports(self, request: wire.Frame) -> wire.Frame:
        support = self.adapter.supports(Workload.from_json(request.header["workload"]))
        return wire.Frame(header=asdict(support))

    def _compile(self, request: wire.Frame) -> wire.Frame:
        workload = Workload.from_json(request.header["workload"])
        plan = MeasurePlan.from_json(request.header["plan"])
        self._memory.begin()
        self._executables[workload.key] = self.adapter.compile(workload, plan)
        return wire.Frame(header={})

    def _check(self, request: wire.Frame) -> wire.Frame:
        executable = self._executables[request.header["key"]]
        check, loaded = executable.check(), executable.loaded
        if loaded.peak_memory_bytes is None:  # the device's memory is this process's own
            loaded = replace(loaded, peak_memory_bytes=self._memory.peak_bytes())
        runs = [agreement.sampled(executable.outputs()) for _ in range(request.header["runs"])]
        return wire.Frame(
            header={"check": asdict(check), "loaded": asdict(loaded)},
            arrays=agreement.to_arrays(runs),
        )

    def _burst(self, request: wire.Frame) -> wire.Frame:
        executable = self._executables[request.header["key"]]
        burst = executable.burst(
            request.header["duration_s"], request.header["min_calls"], request.header["cache"]
        )
        adapter = self.adapter
        known = asdict(adapter.disturbance()) if isinstance(adapter, ReportsDisturbance) else None
        return wire.burst_frame(burst, {"disturbance": known})

    def _trace(self, request: wire.Frame) -> wire.Frame:
        return wire.Frame(
            header={"trace": asdict(self._executables[request.header["key"]].trace())}
        )

    def _drop(self, request: wire.Frame) -> wire.Frame:
        executable = self._executables.pop(request.header["key"], None)
        if executable is not None:
            executable.close()
        return wire.Frame(header={})

    def _close(self, request: wire.Frame) -> wire.Frame:
        while self._executables:
            self._executables.popitem()[1].close()
        if self._adapter is not None:
            self._adapter.close()
            self._adapter = None
        return wire.Frame(header={"closed": True})


def _is_lost(adapter: DeviceAdapter) -> bool:
    return isinstance(adapter, CanBeLost) and adapter.is_lost()


def _adapter_warnings(adapter: DeviceAdapter) -> list[str]:
    return list(adapter.warnings) if isinstance(adapter, ReportsWarnings) else []


def _error_frame(kind: FaultKind, message: str) -> wire.Frame:
    return wire.Frame(header={"error": {"kind": kind, "message": " ".join(message.split())}})


def serve(server: Server, in_fd: int, out_fd: int) -> None:
    """Answer requests until the input closes or a ``close`` was answered."""
    while True:
        try:
            request = wire.decode(lambda size: read_from(in_fd, size))
        except wire.StreamClosedError:
            server.answer(wire.Frame(header={"op": "close"}))
            return
        answer = server.answer(request)
        write_all(out_fd, _encoded(answer, str(request.header.get("op"))))
        if answer.header.get("closed"):
            return


def _encoded(answer: wire.Frame, op: str) -> bytes:
    """Return an answer as bytes; what an adapter made no frame can hold is an error of its own."""
    try:
        return wire.encode(answer)
    except (TypeError, ValueError) as error:
        return wire.encode(_error_frame("garbage", f"the adapter's answer to {op!r}: {error}"))


def _claim_streams() -> tuple[int, int]:
    """Keep the pipes for frames: adapters that print must not be taken for a frame."""
    frames_in, frames_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return frames_in, frames_out


def _die_with_parent(parent: int) -> None:
    """Ask Linux to end this process when its parent ends: a stopped process cannot see that."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def run(server: Server, parent: int) -> NoReturn:
    """Serve on this process's standard streams, then end it; it never outlives ``parent``."""
    _die_with_parent(parent)
    frames_in, frames_out = _claim_streams()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    serve(server, frames_in, frames_out)
    sys.stderr.flush()
    # Nothing is left to clean up, and runtimes with threads of their own may hang on the way out.
    os._exit(0)


if __name__ == "__main__":
    run(AdapterServer(), int(sys.argv[1]))
