"""Models by their hash, and the lease: what stays inside, and what no crash leaves behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprof.devices.agent.leases import (
    announce_worker,
    campaign_pids,
    end_leftover_workers,
    take_lease,
)
from hwprof.devices.agent.models import ModelFolder
from hwprof.errors import DeviceUnavailableError, ModelError

HOLD = """
import sys, time
from pathlib import Path
from hwprof.devices.agent.leases import {what}
{call}
print("held", flush=True)
time.sleep(600)
"""


def name_of(content: bytes, suffix: str = "onnx") -> str:
    return f"{hashlib.sha256(content).hexdigest()}.{suffix}"


def holder(what: str, call: str) -> subprocess.Popen[str]:
    """Start a process that holds a lock until it is ended."""
    code = HOLD.format(what=what, call=call)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_a_model_is_kept_under_its_hash(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    content = b"a model"
    assert not folder.has(name_of(content))
    path = folder.put(name_of(content), content)
    assert path.read_bytes() == content
    assert folder.has(name_of(content))
    path.write_bytes(b"something else")
    assert not folder.has(name_of(content))


def test_bytes_of_another_hash_are_refused(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path)
    with pytest.raises(ModelError, match="do not have the hash"):
        folder.put(name_of(b"one"), b"another")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "../" + "0" * 64 + ".onnx",
        "/etc/passwd",
        "0" * 64,
        "0" * 64 + ".onnx/../x",
        "0" * 64 + "./onnx",
        "0" * 64 + ".onnx\n",
        "0" * 63 + ".onnx",
        "",
    ],
)
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no model's name"):
        ModelFolder(tmp_path).path(name)


@given(st.text())
def test_whatever_the_name_it_stays_inside_or_is_refused(name: str) -> None:
    try:
        path = ModelFolder(Path("/models")).path(name)
    except ModelError:
        return
    assert path.parent == Path("/models")


def test_the_models_not_used_for_longest_make_room(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, budget_bytes=100)
    contents = [bytes([i]) * 40 for i in range(3)]
    for age, content in enumerate(contents[:2]):
        os.utime(folder.put(name_of(content), content), (age, age))
    assert folder.has(name_of(contents[0]))  # used now: the other is the oldest
    (tmp_path / "not-ours").write_text("x" * 500)
    folder.put(name_of(contents[2]), contents[2])
    assert [folder.has(name_of(c)) for c in contents] == [True, False, True]
    assert (tmp_path / "not-ours").exists()


def test_what_was_half_written_by_a_process_that_was_ended_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(BaseException):
        """Stands for a signal: nothing is tidied up."""

    def end(source: str, target: Path) -> None:
        raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", end)
        with pytest.raises(EndedError):
            ModelFolder(tmp_path).put(name_of(b"m"), b"m")
    assert len(list(tmp_path.iterdir())) == 1
    path = ModelFolder(tmp_path).put(name_of(b"m"), b"m")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DeviceUnavailableError, match="No space left on device"):
        ModelFolder(tmp_path).put(name_of(b"m"), b"m")
    assert list(tmp_path.iterdir()) == []


def test_a_lease_is_held_against_others_and_freed_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    process = holder("take_lease", f"take_lease(Path({str(path)!r}), 'one', 'somebody')")
    with pytest.raises(DeviceUnavailableError, match="measured by somebody since 2"):
        take_lease(path, "two", "me")
    process.kill()
    process.wait()
    os.close(take_lease(path, "two", "me"))


def test_the_same_campaign_takes_its_lease_over(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    process = holder("take_lease", f"take_lease(Path({str(path)!r}), 'one', 'me before')")
    os.close(take_lease(path, "one", "me again"))
    assert process.wait(timeout=30) == -signal.SIGKILL


def test_workers_of_a_dead_campaign_are_ended_and_nobody_else(tmp_path: Path) -> None:
    process = holder(
        "announce_worker", f"import os; announce_worker(Path({str(tmp_path)!r}), os.getpid())"
    )
    # This very process' number, but nobody holds the lock: it is not the worker that was.
    os.close(announce_worker(tmp_path, os.getpid()))
    assert end_leftover_workers(tmp_path) == 1
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_campaign_s_processes_are_those_that_live(tmp_path: Path) -> None:
    workers, proc = tmp_path / "workers", tmp_path / "proc"
    os.close(announce_worker(workers, 10))  # this process is a worker, and 10 its supervisor
    for supervisor, worker in ((20, "21"), (30, "31"), (40, "41"), (50, "")):
        (workers / str(supervisor)).write_text(worker)
    # 31 has ended, 41 is a stranger's by now, and 50 has not said yet who its worker is.
    for pid, parent in ((os.getpid(), 10), (21, 20), (41, 1)):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (py (3) on) T {parent} 1 1 0 -1 0\n")
    assert campaign_pids(workers, proc) == {10, 20, 21}
    assert campaign_pids(tmp_path / "none", proc) == frozenset()
