"""Any adapter through a real ssh, on a pretended board: this machine behind its own sshd."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
import rich.console

from hwprof import api
from hwprof.api.device_checks import device_label, refuse_emulated
from hwprof.devices import device_ref
from hwprof.devices.remote.address import parse_address
from hwprof.devices.remote.board import Board, board_at
from hwprof.devices.remote.ssh import SshTransport
from hwprof.devices.remote.transport import LinkLostError
from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure.engine import measure
from hwprof.measure.pool import Pool
from hwprof.measure.records import (
    DeviceOptions,
    DeviceRef,
    Failure,
    Fingerprint,
    LabelledBurst,
    Measurement,
    Precision,
    plan_for,
)
from hwprof.measure.references import BLOCK
from hwprof.reports.text import board_text
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

if TYPE_CHECKING:
    from tests.devices.remote.conftest import Loopback

PATIENCE_S = 30.0
SHORT = plan_for("quick", workers=2, looks=(3,), burst_s=0.002, warmup_s=0.001)


def ref(name: str, board: Loopback, script: str | None = None) -> DeviceRef:
    return device_ref(f"{name}@{board.url}", DeviceOptions(script=script))


def agent_processes(board: Loopback) -> list[psutil.Process]:
    """Return the agent's processes on the pretended board: supervisors and their workers."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = process.info["cmdline"] or []
        if any(str(a).endswith(".pyz") for a in line) and process.info["cwd"] == str(board.home):
            found.append(process)
    return found


def timed_processes(board: Loopback) -> list[psutil.Process]:
    """Return the workers there: children of their supervisors."""
    agents = {p.pid: p for p in agent_processes(board)}
    return [p for p in agents.values() if p.ppid() in agents]


@dataclass
class Notes:
    """A sink that remembers, and acts when so many bursts have come."""

    after: int = -1
    act: Callable[[], None] = lambda: None
    opened_with: list[Fingerprint] = field(default_factory=list)
    bursts: list[tuple[str, str, int]] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def opened(self, fingerprint: Fingerprint) -> None:
        self.opened_with.append(fingerprint)

    def burst(self, workload: Workload, burst: LabelledBurst) -> None:
        self.bursts.append((workload.key, burst.worker, burst.round_index))
        if len(self.bursts) == self.after:
            self.act()

    def reference(self, beside: Workload, burst: LabelledBurst) -> None: ...

    def done(self, measurement: Measurement) -> None:
        self.finished.append(measurement.workload.key)

    def failed(self, failure: Failure) -> None:
        self.finished.append(failure.workload.key)


def is_worker_session(process: psutil.Process) -> bool:
    """Return whether a child of this process is the session of a worker, not of the keeper."""
    return process.name() == "ssh" and not any("keeper" in part for part in process.cmdline())


def agent_files(board: Loopback, folder: str) -> list[Path]:
    return sorted((board.home / ".cache/hwprof" / folder).iterdir())


def models_of(board: Loopback) -> set[str]:
    folder = board.home / ".cache/hwprof/models"
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


def block(label: str, width: int = 8) -> Workload:
    return Workload.block(SkipPiece(in_channels=width, size_px=8), label)


def expected_bursts(keys: list[str]) -> set[tuple[str, int]]:
    """Return the (workload, round) pairs of a whole campaign at the plan ``SHORT``."""
    return {(key, index) for key in keys for index in range(SHORT.looks[-1])}


@pytest.mark.parametrize(
    ("adapter", "precision", "needs"),
    [
        ("cpu", "fp32", "onnxruntime"),
        ("tflite", "fp32", "ai_edge_litert"),
        ("tflite", "int8", "ai_edge_quantizer"),
    ],
)
def test_a_block_is_built_here_copied_once_and_timed_there(
    board: Loopback, adapter: str, precision: Precision, needs: str
) -> None:
    if find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    there = device_ref(f"{adapter}@{board.url}", DeviceOptions(precision=precision))
    before = models_of(board)
    (result,) = measure([BLOCK], there, SHORT)
    assert isinstance(result, Measurement), result
    assert result.level_s > 0.0
    stable = result.fingerprint.stable
    assert stable["device"] == f"{adapter}@ssh"
    assert stable["emulated"] is False
    assert stable["precision"] == precision
    assert result.loaded.artifact_bytes > 0
    (model,) = models_of(board) - before
    path = board.home / ".cache/hwprof/models" / model
    assert path.suffix == (".onnx" if adapter == "cpu" else ".tflite")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    inode = path.stat().st_ino
    (again,) = measure([BLOCK], there, SHORT)
    assert isinstance(again, Measurement)
    assert again.fingerprint.digest == result.fingerprint.digest
    assert path.stat().st_ino == inode


def test_what_runs_there_is_the_copied_agent_and_it_parks_its_workers(board: Loopback) -> None:
    with Pool(ref("null", board), 0) as pool:
        workers, hello = pool.start(2)
        assert hello.reports_disturbance
        (agent,) = agent_files(board, "agent")
        assert hashlib.sha256(agent.read_bytes()).hexdigest() == agent.stem
        pool.run_only(workers[0])
        workers[0].request("drop", PATIENCE_S, key="nothing")
        # Each worker is a child of its supervisor; the keeper has no child.
        timed = timed_processes(board)
        assert len(timed) == 2
        assert soon(lambda: sorted(p.status() for p in timed) == ["sleeping", "stopped"])
        pool.run_only(workers[1])
        workers[1].request("drop", PATIENCE_S, key="nothing")
        workers[0].park()
        assert soon(lambda: [p.status() for p in timed].count("stopped") == 1)
        workers[0].request("drop", PATIENCE_S, key="nothing")
    assert soon(lambda: not any(p.is_running() for p in timed))


def test_two_campaigns_never_share_a_device(board: Loopback) -> None:
    board_at(board.url).connect()
    address = parse_address(board.url)
    other = Board(address, SshTransport(address))
    with pytest.raises(DeviceUnavailableError, match=f"is measured by .*process {os.getpid()}"):
        other.connect()
    board_at(board.url).close()
    other.connect()
    other.close()


@pytest.mark.parametrize("victims", ["workers", "keeper", "all"])
def test_a_lost_link_costs_no_burst_and_repeats_nothing(board: Loopback, victims: str) -> None:
    def cut() -> None:
        for process in psutil.Process().children():
            is_keeper = any("keeper" in part for part in process.cmdline())
            if process.name() == "ssh" and (victims == "all" or is_keeper == (victims == "keeper")):
                process.kill()

    workloads = [block("a", 8), block("b", 16)]
    notes = Notes(after=7, act=cut)
    results = list(measure(workloads, ref("null", board), SHORT, sink=notes))
    assert all(isinstance(r, Measurement) for r in results), results
    assert sorted(notes.finished) == sorted(w.key for w in workloads)
    timed = [(key, index) for key, _, index in notes.bursts if index >= 0]
    assert len(timed) == SHORT.workers * len(expected_bursts(notes.finished))
    assert set(timed) == expected_bursts(notes.finished)
    assert len(notes.opened_with) == 1


def test_a_worker_that_is_killed_there_is_replaced_once(board: Loopback) -> None:
    def kill() -> None:
        sessions = [p for p in psutil.Process().children() if is_worker_session(p)]
        assert len(sessions) == SHORT.workers
        for child in timed_processes(board):
            child.kill()
        # Else the next request may come before the session has ended, and take another way.
        assert soon(lambda: all(p.status() == psutil.STATUS_ZOMBIE for p in sessions))

    (result,) = measure([block("a")], ref("null", board), SHORT, sink=Notes(after=3, act=kill))
    assert isinstance(result, Measurement)
    assert result.telemetry["attempts"] == 2


@pytest.mark.parametrize(
    ("stage", "fault", "kind"),
    [
        ("compile", "refuse", "refused"),
        ("compile", "die", "died"),
        ("burst", "garbage", "garbage"),
        ("supports", "unsupported", "unsupported"),
    ],
)
def test_faults_there_are_typed_as_they_are_here(
    board: Loopback, stage: str, fault: str, kind: str
) -> None:
    script = json.dumps({"faults": [{"label": "bad", "stage": stage, "kind": fault}]})
    found = {
        r.workload.label: r
        for r in measure([block("bad"), block("good", 16)], ref("null", board, script), SHORT)
    }
    bad = found["bad"]
    assert isinstance(bad, Failure)
    assert bad.kind == kind
    assert isinstance(found["good"], Measurement)


def test_a_device_without_room_ends_the_campaign_not_every_workload(board: Loopback) -> None:
    models = board.home / ".cache/hwprof/models"
    board_at(board.url).connect()
    shutil.rmtree(models, ignore_errors=True)
    models.write_text("in the way")
    notes = Notes()
    try:
        with pytest.raises(DeviceUnavailableError, match="make room there"):
            list(measure([BLOCK], ref("cpu", board), SHORT, sink=notes))
    finally:
        models.unlink()
    assert notes.finished == []


def test_code_of_this_machine_does_not_go_there(board: Loopback) -> None:
    (result,) = measure([Workload.from_callable("my.module:Net", ())], ref("cpu", board), SHORT)
    assert isinstance(result, Failure)
    assert "export it to .onnx" in result.message


@pytest.mark.parametrize(("cpus", "words"), [("1-0", "no CPU"), ("0,9999", "9999, which is not")])
def test_cpus_that_are_not_there_are_the_user_s_to_mend(
    board: Loopback, cpus: str, words: str
) -> None:
    there = device_ref(f"null@{board.url}?cpus={cpus}", DeviceOptions())
    with pytest.raises(PlanError, match=f"cpus={cpus} names {words}"):
        list(measure([block("a")], there, SHORT))


def test_a_stranger_s_host_key_is_refused_whatever_the_user_s_configuration(
    board: Loopback,
) -> None:
    known = board.folder / "known_hosts"
    text = known.read_text()
    try:
        known.write_text("")
        with pytest.raises(DeviceUnavailableError, match="host key is not known or has changed"):
            board_at(board.url).connect()
        assert known.read_text() == ""
    finally:
        known.write_text(text)


def test_a_python_that_is_not_there_is_named(board: Loopback) -> None:
    with pytest.raises(DeviceUnavailableError, match="python9"):
        board_at(f"{board.url}?python=python9").connect()


def test_nobody_listening_is_a_device_that_does_not_answer(
    board: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = board.url.rpartition(":")[0] + ":1"
    with pytest.raises(LinkLostError, match="does not answer"):
        board_at(url).connect()


def test_a_damaged_agent_is_replaced_by_the_true_one(board: Loopback) -> None:
    board_at(board.url).connect()
    board_at(board.url).close()
    (agent,) = agent_files(board, "agent")
    content = agent.read_bytes()
    agent.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    board_at(board.url).connect()
    assert agent.read_bytes() == content


def soon(condition: Callable[[], bool]) -> bool:
    """Return whether the condition comes true in a while."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def test_what_is_there_is_told_and_shown(board: Loopback) -> None:
    state = api.check_device(board.url).to_json()
    assert state["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert state["emulated"] is False
    assert state["free_space_bytes"] > 0
    assert state["runtimes"]["numpy"] == np.__version__
    shown = io.StringIO()
    rich.console.Console(file=shown, width=200).print(board_text(state))
    assert board.url in shown.getvalue()
    assert state["hardware"] in shown.getvalue()
    # The device was given back.
    address = parse_address(board.url)
    other = Board(address, SshTransport(address))
    other.connect()
    other.close()


def test_a_device_said_to_be_emulated_is_marked_and_kept_out_of_fronts(board: Loopback) -> None:
    device = f"null@{board.url}?emulated=yes"
    (result,) = measure([block("a")], device_ref(device, DeviceOptions()), SHORT)
    assert isinstance(result, Measurement)
    assert result.fingerprint.stable["device"] == "null@ssh (emulated)"
    assert any(line.startswith("emulated device") for line in result.evidence)
    assert device_label(device_ref(device, DeviceOptions())).endswith("(emulated)")
    with pytest.raises(PlanError, match="--allow-emulated"):
        refuse_emulated(str(result.fingerprint.stable["device"]), "a front")
    refuse_emulated("null@ssh", "a front")


def test_sustained_results_say_so(board: Loopback) -> None:
    plan = replace(SHORT, sustained_s=0.5)
    (result,) = measure([block("a")], ref("null", board), plan)
    assert isinstance(result, Measurement)
    remark = "sustained: after 0.5 s of load, not cooled between bursts"
    assert any(line.startswith(remark) for line in result.evidence)
    assert plan.key_fields() != SHORT.key_fields()
    assert "sustained_s" not in SHORT.key_fields()
    first_s, last_s = json.loads((board.home / ".cache/hwprof/load").read_text())
    assert last_s - first_s >= 0.5
