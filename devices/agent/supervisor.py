"""A small process between the link and a worker: it parks the worker and never outlives the link.

The worker is *forked*, not started: where the interpreter runs under emulation it cannot start
itself again. The fork happens before anything but the standard library is imported, so that the
worker opens its runtime in a process as fresh as one started on its own. Frames for the worker
pass through unread; ``hwpc`` frames are for the supervisor (``stop`` and ``go_on``). The worker
answers straight onto the link. While a call is timed the supervisor sleeps in the kernel.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hwprof.measure.framing import (
    CONTROL_MAGIC,
    MAGIC,
    StreamClosedError,
    WireError,
    pack,
    read_frame,
    write_all,
)
from hwprof.measure.machine import oom_kills

IDLE_LIMIT_S = 86400.0
"""A link that is silent for so long is taken for dead: the worker ends and frees the device.

A worker is told nothing while it compiles, or is parked while others compile: hours, on a board that
builds engines of 31 networks. The next campaign ends what is left over at once.
"""

_SIGNALS = {"stop": signal.SIGSTOP, "go_on": signal.SIGCONT}


class _WorkerEndedError(Exception):
    """The worker is gone."""


def main(arguments: list[str]) -> NoReturn:
    """Run what the arguments name."""
    match arguments:
        case ["worker", number, folder] if number.isdecimal():
            _supervise(Path(folder))
        case ["keeper", folder]:
            from hwprof.devices.agent.keeper import run_keeper

            run_keeper(Path(folder))
        case _:
            sys.exit(f"expected worker NUMBER FOLDER or keeper FOLDER, got {arguments}")


def _supervise(folder: Path) -> NoReturn:
    requests_out, requests_in = os.pipe()
    # Held open by the worker alone: it hangs up when the worker ends, however it ends.
    life, held = os.pipe()
    parent, oom_before = os.getpid(), oom_kills()
    pid = os.fork()
    if pid == 0:
        os.close(requests_in)
        os.close(life)
        os.dup2(requests_out, 0)
        _become_worker(folder, parent)
    os.close(requests_out)
    os.close(held)
    try:
        _relay(pid, requests_in, life)
    except (StreamClosedError, BrokenPipeError):
        code: int | None = None
    except WireError as error:
        print(f"the link brought no frame: {error}", file=sys.stderr)  # noqa: T201
        code = None
    except _WorkerEndedError:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code is None:
        for number in (signal.SIGKILL, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        os.waitpid(pid, 0)
    else:
        # Code 0 too: a session that ends without this word is a link that broke.
        oom = oom_kills() != oom_before
        with suppress(BrokenPipeError):
            write_all(1, pack({"arrays": [], "ended": code, "oom": oom}))
    os._exit(0)


def _become_worker(folder: Path, parent: int) -> NoReturn:
    from hwprof.devices.agent.board_server import BoardServer
    from hwprof.measure.worker import run

    run(BoardServer(folder), parent)


def _relay(pid: int, requests_in: int, life: int) -> None:
    """Pass frames on until the link or the worker ends."""

    def read(size: int) -> bytes:
        return _read_while_alive(size, life)

    while True:
        frame = read_frame(read, (MAGIC, CONTROL_MAGIC))
        if frame.magic == MAGIC:
            try:
                write_all(requests_in, frame.pack())
            except BrokenPipeError:
                raise _WorkerEndedError from None
            continue
        order = json.loads(frame.header).get("op")
        if order in _SIGNALS:
            with suppress(ProcessLookupError):
                os.kill(pid, _SIGNALS[order])


def _read_while_alive(size: int, life: int) -> bytes:
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(life, select.POLLIN)
    parts = []
    while size > 0:
        ready = dict(poller.poll(1000.0 * IDLE_LIMIT_S))
        if life in ready:
            raise _WorkerEndedError
        part = os.read(0, size) if ready else b""
        if not part:
            raise StreamClosedError("the link is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
