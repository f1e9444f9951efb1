"""Worker processes end whatever happens, and are parked while they wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure.pool import Pool
from hwprof.measure.process import LINK, NO_PAGE_FAULTS, Worker, WorkerFault, living_pids
from hwprof.measure.records import DeviceOptions, DeviceRef, Failure
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload
from tests.core.scripted import block, measured, run

REF = DeviceRef(
    name="null", factory="hwprof.devices.null:NullAdapter", options=DeviceOptions(script="{}")
)
PATIENCE_S = 20.0
WORKLOAD = Workload.block(SkipPiece(in_channels=8, size_px=8), "skip")

LOUD = """
import os

class Loud:
    def __init__(self, options):
        for fd in range(3, 20):
            try:
                os.write(fd, b"this is no frame at all, and it is long enough to be read as one")
            except OSError:
                pass
"""

FRAGILE = """
from hwprof.devices.null import NullAdapter, NullExecutable
from hwprof.errors import ModelError

class Fragile(NullAdapter):
    \"\"\"Ends for its process with the workload "bad", as a GPU does at a kernel's assertion.\"\"\"

    ended = False

    def compile(self, workload, plan):
        self.ended = self.ended or workload.label == "bad"
        self.alive("asserted")
        return Held(self, workload)

    def alive(self, message="of what went before"):
        if self.ended:
            raise ModelError(message)

    def is_lost(self):
        return self.ended

class Held(NullExecutable):
    def burst(self, *how):
        self._adapter.alive()
        return super().burst(*how)
"""

PARENT = """
import sys, time
from hwprof.measure.pool import Pool
from hwprof.measure.records import DeviceOptions, DeviceRef, Failure
pool = Pool(DeviceRef(name="null", factory="hwprof.devices.null:NullAdapter"), 0)
workers, _ = pool.start(2)
print(*[w.pid for w in workers], flush=True)
time.sleep(600)
"""


def wait_until_gone(pids: list[int]) -> list[int]:
    """Return those that still live after a while (a zombie does not live)."""
    deadline_s = time.monotonic() + PATIENCE_S
    left = pids
    while left and time.monotonic() < deadline_s:
        time.sleep(0.02)
        left = [p for p in left if psutil.pid_exists(p) and _lives(p)]
    return left


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_stopped_soon(pid: int) -> bool:
    deadline_s = time.monotonic() + PATIENCE_S
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def test_workers_are_parked_and_answer_again() -> None:
    with Pool(REF, 5) as pool:
        workers, hello = pool.start(2)
        assert [w.label for w in workers] == ["w5", "w6"]
        assert hello.reports_disturbance
        assert hello.fingerprint.stable["hardware"] == "scripted"
        pool.run_only(workers[0])
        workers[0].request("drop", PATIENCE_S, key="nothing")
        pool.run_only(workers[1])
        assert is_stopped_soon(workers[0].pid)
        workers[0].request("drop", PATIENCE_S, key="nothing")
        pids = [w.pid for w in workers]
    assert living_pids() == ()
    assert not any(psutil.pid_exists(p) for p in pids)


def test_parked_workers_end_with_an_error_in_the_engine() -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with Pool(REF, 0) as pool:
            workers, _ = pool.start(2)
            pids.extend(w.pid for w in workers)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2
    assert not any(psutil.pid_exists(p) for p in pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a stopped orphan at once")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_when_the_engine_is_killed(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as parent:
        try:
            assert parent.stdout is not None
            pids = [int(p) for p in parent.stdout.readline().split()]
            assert len(pids) == 2
            assert all(is_stopped_soon(p) for p in pids)
            parent.send_signal(ending)
        finally:
            if sys.exc_info()[0] is not None:
                parent.kill()
    assert wait_until_gone(pids) == []


def test_a_worker_without_a_device_says_so() -> None:
    worker = Worker(0)
    try:
        with pytest.raises(WorkerFault, match="before it was told to open a device") as caught:
            worker.request("supports", PATIENCE_S, workload=WORKLOAD.to_json())
        assert caught.value.kind == "garbage"
        assert not caught.value.lost
        with pytest.raises(WorkerFault, match="KeyError"):
            worker.request("no such operation", PATIENCE_S)
    finally:
        worker.close()


def test_a_worker_that_was_ended_is_asked_nothing() -> None:
    worker = Worker(0)
    worker.kill()
    # By now the numbers of its pipes may be those of other files.
    with pytest.raises(WorkerFault, match="was ended before 'drop'") as caught:
        worker.request("drop", PATIENCE_S, key="nothing")
    assert caught.value.lost
    worker.close()


def test_an_answer_that_came_while_the_engine_was_stopped_counts() -> None:
    """After Ctrl-Z and fg the deadline lies behind, and the answer in the pipe."""
    worker = Worker(0)
    try:
        worker.send("open", device=asdict(REF))
        assert worker._poller.poll(1000 * PATIENCE_S)
        assert "fingerprint" in worker.receive("open", timeout_s=-1.0).header
        with pytest.raises(WorkerFault, match="no answer to 'burst'"):
            worker.receive("burst", timeout_s=0.0)
    finally:
        worker.kill()


class RefusingWorker(Worker):
    """A real process that, once asked, meets a fault instead of its device."""

    def __init__(self, number: int, fault: WorkerFault) -> None:
        super().__init__(number)
        self.fault = fault

    def send(self, op: str, **fields: Any) -> None:
        raise self.fault


class RefusingLauncher:
    """Starts such workers."""

    def __init__(self, fault: WorkerFault) -> None:
        self.fault = fault

    def start(self, number: int) -> Worker:
        return RefusingWorker(number, self.fault)

    def free_memory_bytes(self) -> int | None:
        return None

    def free_device_bytes(self) -> int | None:
        return None


def test_a_link_lost_while_a_later_worker_starts_is_the_link_s() -> None:
    with Pool(REF, 0) as pool:
        pool._launcher = RefusingLauncher(WorkerFault(LINK, "the session ended", lost=True))
        with pytest.raises(DeviceUnavailableError, match="the session ended"):
            pool.start(1)  # nothing says yet that there is such a device
    with Pool(REF, 0) as pool:
        (first,), _ = pool.start(1)
        pool._launcher = RefusingLauncher(WorkerFault(LINK, "the session ended", lost=True))
        with pytest.raises(WorkerFault, match="the session ended") as caught:
            pool.start(2)
        assert caught.value.kind == LINK
        assert living_pids() == (first.pid,)


def test_options_that_do_not_fit_are_the_users_error() -> None:
    with Pool(REF, 0) as pool:
        pool._launcher = RefusingLauncher(WorkerFault("plan", "?cpus=7-4 names none", lost=False))
        with pytest.raises(PlanError, match="names none"):
            pool.start(1)


def test_a_worker_ends_when_its_input_closes() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "hwprof.measure.worker", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert process.stdout == b""


def test_garbage_instead_of_an_answer_is_typed_and_final(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loud_adapter.py").write_text(LOUD)
    monkeypatch.syspath_prepend(str(tmp_path))
    worker = Worker(0)
    with pytest.raises(WorkerFault, match="expected a frame that begins with") as caught:
        worker.request(
            "open",
            PATIENCE_S,
            device=asdict(DeviceRef(name="loud", factory="loud_adapter:Loud")),
        )
    assert caught.value.kind == "garbage"
    assert caught.value.lost
    assert living_pids() == ()


def test_a_worker_whose_device_has_ended_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fragile_adapter.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    ref = DeviceRef(
        name="null",
        factory="fragile_adapter:Fragile",
        options=DeviceOptions(script="{}"),
    )
    found = run([block("a"), block("bad", 16), block("c", 24)], ref)
    bad = found["bad"]
    assert isinstance(bad, Failure)
    assert (bad.kind, bad.message) == ("model", "asserted")
    assert all(measured(found[label]).n_samples for label in "ac")
    assert living_pids() == ()


def test_workers_keep_their_memory_and_our_imports() -> None:
    worker = Worker(3)
    try:
        worker.request("drop", PATIENCE_S, key="nothing")
        environment = psutil.Process(worker.pid).environ()
        assert environment["HWPROF_WORKER"] == "3"
        assert all(environment[name] == value for name, value in NO_PAGE_FAULTS.items())
    finally:
        worker.close()
