"""A scripted ``adb`` plays a phone: what works, and what goes wrong with phones."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hwprof.devices import device_ref
from hwprof.devices.remote.adb import AdbTransport
from hwprof.devices.remote.address import parse_address
from hwprof.devices.remote.board import board_at, release_boards
from hwprof.devices.remote.launcher import launch
from hwprof.devices.remote.transport import LinkLostError
from hwprof.errors import DeviceUnavailableError
from hwprof.measure.engine import measure
from hwprof.measure.records import DeviceOptions, Measurement, plan_for
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

URL = "adb://PHONE123"
SHORT = plan_for("quick", workers=2, looks=(3,), burst_s=0.002, warmup_s=0.001)
WORKLOAD = Workload.block(SkipPiece(in_channels=8, size_px=8), "block")
FAKE = Path(__file__).parent / "fake_adb.py"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The phone's folder; ``adb`` on PATH reaches it, and its python3 is this one."""
    for name in ("client", "bin", "tmp"):
        (tmp_path / name).mkdir()
    program(tmp_path / "client" / "adb", f"exec {sys.executable} {FAKE} ")
    program(tmp_path / "bin" / "python3", f"exec {sys.executable} ")
    monkeypatch.setenv("PATH", f"{tmp_path / 'client'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_PHONE", str(tmp_path))
    yield tmp_path
    release_boards()


def program(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\n{command}"$@"\n')
    path.chmod(0o755)


def mood(phone: Path, name: str) -> None:
    (phone / "mood").write_text(name)


def test_a_block_is_timed_on_the_phone(phone: Path) -> None:
    (result,) = measure([WORKLOAD], device_ref(f"null@{URL}", DeviceOptions()), SHORT)
    assert isinstance(result, Measurement)
    assert result.fingerprint.stable["device"] == "null@adb"
    calls = [line.split("\t") for line in (phone / "calls").read_text().splitlines()]
    assert all(call[:2] == ["-s", "PHONE123"] for call in calls)
    assert [call[2] for call in calls].count("push") == 1  # the agent, once
    assert list((phone / "tmp" / "hwprof" / "agent").glob("*.part")) == []


def test_one_process_may_use_a_phone_in_two_ways_in_turn(phone: Path) -> None:
    """As a suite does that lists it with some of its cores and with others."""
    for url in (URL, f"{URL}?cpus=0", URL):
        board_at(url).connect()
        assert board_at(url).state["usable_cpus"] > 0


def test_a_phone_that_was_busy_is_asked_anew(phone: Path) -> None:
    """In a notebook, say, where the connection lasts as long as the process."""
    board = board_at(URL)
    board.connect()
    board.state = {**board.state, "foreign_cores": 99.0}
    with pytest.raises(DeviceUnavailableError, match=r"99\.0 of .* cores busy"):
        launch(device_ref(f"null@{URL}", DeviceOptions(threads=2)))
    board.connect()
    assert board.state["foreign_cores"] < 99.0


@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ("unplugged", LinkLostError, "does not answer .*is it plugged in"),
        ("unauthorized", DeviceUnavailableError, "unlock it and accept"),
        ("full", DeviceUnavailableError, "No space left on device"),
    ],
)
def test_what_is_wrong_with_a_phone_is_said(
    phone: Path, wrong: str, kind: type[Exception], words: str
) -> None:
    mood(phone, wrong)
    with pytest.raises(kind, match=words):
        board_at(URL).connect()
    assert list((phone / "tmp").rglob("*.part")) == []


def test_another_serial_number_is_not_there(phone: Path) -> None:
    with pytest.raises(LinkLostError, match="OTHER"):
        board_at("adb://OTHER").connect()


def test_no_adb_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceUnavailableError, match="'adb' is not installed here"):
        board_at(URL).connect()
    release_boards()


def test_a_phone_that_starts_again_in_the_middle_is_measured_to_the_end(
    phone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything on the phone ends at once, and its copy of the agent is gone."""
    seen: list[tuple[str, int]] = []

    class Sink:
        def opened(self, fingerprint: object) -> None: ...
        def reference(self, beside: object, burst: object) -> None: ...
        def done(self, measurement: object) -> None: ...
        def failed(self, failure: object) -> None: ...

        def burst(self, workload: Workload, burst: object) -> None:
            seen.append((burst.worker, burst.round_index))  # type: ignore[attr-defined]
            if len(seen) == 5:
                for process in psutil.Process().children(recursive=True):
                    process.kill()
                for agent in (phone / "tmp" / "hwprof" / "agent").iterdir():
                    agent.unlink()

    ref = device_ref(f"null@{URL}", DeviceOptions())
    (result,) = measure([WORKLOAD], ref, SHORT, sink=Sink())
    assert isinstance(result, Measurement)
    rounds = [index for _, index in seen if index >= 0]
    assert sorted(rounds) == sorted(list(range(SHORT.looks[-1])) * SHORT.workers)
    assert "connecting again" in caplog.text
    calls = (phone / "calls").read_text()
    assert calls.count("\tpush\t") == 2


def test_arguments_reach_the_phone_s_shell_whole() -> None:
    nasty = ["sh", "-c", "echo $1", "sh", "a b'; rm -rf $HOME \"`id`\n"]
    command = AdbTransport(parse_address(URL)).command(nasty)
    assert command[:5] == ["adb", "-s", "PHONE123", "shell", "-T"]
    (line,) = command[5:]
    assert shlex.split(line) == nasty


@pytest.mark.parametrize(
    ("status", "log", "lost"),
    [
        (1, "error: closed", True),
        (1, "* daemon not running\nadb: error: connect failed: closed", True),
        (1, "error: device offline", True),
        (255, "", True),
        (1, "ValueError: I/O operation on closed file.", False),
        (1, "the model says error: a closed set of classes", False),
        (1, "device memory is too small for this model", False),
        (1, "adb: error: failed to copy 'closed.tflite' to '/x': No space left", False),
    ],
)
def test_only_adb_itself_tells_of_a_lost_link(status: int, log: str, lost: bool) -> None:
    found = AdbTransport(parse_address(URL)).complaint(status, log)
    assert isinstance(found, LinkLostError) is lost
