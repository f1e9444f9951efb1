"""One campaign a device: a file lock on the device, which no crash can leave behind.

The kernel frees a lock when its holder ends, however it ends, and a lock that is held proves that
the process whose id is in the file lives. So nothing here ever ends a stranger by its id.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hwprof.errors import DeviceUnavailableError
from hwprof.measure.machine import parent_pid, read_text

TAKE_OVER_S = 10.0
_STEP_S = 0.05


def take_lease(path: Path, token: str, holder: str) -> int:
    """Take the device for this process; return the descriptor that holds it.

    Whoever shows the token of the present lease is the same campaign, whose link broke: the
    process that kept the lease for it is ended and replaced.

    Raises:
        DeviceUnavailableError: another campaign has it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + TAKE_OVER_S
    while not _lock(fd):
        present = _read(fd)
        if present.get("token") != token or time.monotonic() > deadline_s:
            os.close(fd)
            raise DeviceUnavailableError(
                f"the device is measured by {present.get('holder', 'another campaign')} since "
                f"{present.get('since', 'a while')}: wait for it, or end it there"
            )
        with suppress(ProcessLookupError):
            os.kill(int(present["pid"]), signal.SIGKILL)
        time.sleep(_STEP_S)
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    lease = {"token": token, "holder": holder, "pid": os.getpid(), "since": since}
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps(lease).encode(), 0)
    return fd


def announce_worker(folder: Path, pid: int) -> int:
    """Say that this process is a worker, and ``pid`` its supervisor.

    So the next campaign finds it, should it be left over, and the campaign's other workers know
    whose CPU time is their own campaign's.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(folder / str(pid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def campaign_pids(folder: Path, proc: Path = Path("/proc")) -> frozenset[int]:
    """Return the living supervisors and workers of this campaign, but this process.

    Args:
        folder: where workers announce themselves.
        proc: where the process file system is mounted.
    """
    found: set[int] = set()
    for path in folder.glob("[0-9]*"):
        supervisor, worker = int(path.name), read_text(path) or ""
        # Both may have ended and their numbers been given away, but hardly as parent and child.
        # Trying the lock instead would for a moment make a left-over file look like a worker's.
        if worker.isdecimal() and parent_pid(int(worker), proc) == supervisor:
            found |= {supervisor, int(worker)}
    return frozenset(found - {os.getpid()})


def end_leftover_workers(folder: Path) -> int:
    """End the workers of earlier campaigns (call it with the lease); return how many lived."""
    ended = 0
    for path in folder.glob("[0-9]*"):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not _lock(fd):
                with suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
                    ended += 1
            path.unlink()
        finally:
            os.close(fd)
    return ended


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> dict[str, Any]:
    """Return what the holder wrote; nothing while it is still writing."""
    try:
        found = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
