"""What is tried when a device stops answering, step by step, over a link that fails as told."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwprof.devices.agent.conditions import COOL_LIMIT_S
from hwprof.devices.remote.address import Address
from hwprof.devices.remote.board import BACK_OFF_S, MOST_RECOVERIES, Board
from hwprof.devices.remote.lease_token import LeaseToken, token_path
from hwprof.devices.remote.session import RemoteSession
from hwprof.devices.remote.transport import LinkLostError, ask, push
from hwprof.errors import CompileError, DeviceUnavailableError, ModelError
from hwprof.measure import wire
from hwprof.measure.framing import pack
from hwprof.measure.process import LINK, Worker, WorkerFault, last_words

REFUSED = 255


class ScriptedLink:
    """A device that is this machine; the next ``failures`` commands do not reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.failures = 0
        self.reboots = 0

    def command(self, arguments: Sequence[str]) -> list[str]:
        if self.failures > 0:
            self.failures -= 1
            return ["sh", "-c", f"echo gone >&2; exit {REFUSED}"]
        return list(arguments)

    def push_command(self, source: Path, target: str) -> tuple[list[str], Path | None]:
        return ["cp", str(source), target], None

    def reboot_command(self) -> list[str]:
        self.reboots += 1
        self.failures = 2  # it takes a while to come back
        return ["true"]

    def complaint(self, status: int, log: str) -> DeviceUnavailableError | None:
        return LinkLostError(f"the link: {last_words(log)}") if status == REFUSED else None


@pytest.fixture
def link(tmp_path: Path) -> ScriptedLink:
    return ScriptedLink(tmp_path / "agent-folder")


@pytest.fixture
def slept() -> list[float]:
    return []


def board_of(link: ScriptedLink, slept: list[float], *, may_reboot: bool = False) -> Board:
    address = Address(link="ssh", host="board", python=sys.executable, may_reboot=may_reboot)
    return Board(address, link, slept.append)


@pytest.fixture
def board(link: ScriptedLink, slept: list[float]) -> Iterator[Board]:
    found = board_of(link, slept)
    found.connect()
    yield found
    found.close()


def lose_keeper(board: Board) -> None:
    assert board._keeper is not None
    board._keeper._process.kill()
    board._keeper._process.wait()


def test_a_link_that_comes_back_is_waited_for(
    board: Board, link: ScriptedLink, slept: list[float]
) -> None:
    lose_keeper(board)
    link.failures = 2
    board.connect()
    assert slept == list(BACK_OFF_S[:3])
    board.connect()
    assert slept == list(BACK_OFF_S[:3])


def test_a_link_that_stays_away_is_said_with_the_next_step(
    board: Board, link: ScriptedLink, slept: list[float]
) -> None:
    lose_keeper(board)
    link.failures = 100
    with pytest.raises(DeviceUnavailableError, match=r"the link: gone; tried 5 times: see to"):
        board.connect()
    assert slept == list(BACK_OFF_S)
    assert link.reboots == 0


def test_what_a_broken_copy_left_behind_is_removed_but_not_one_under_way(
    link: ScriptedLink, slept: list[float]
) -> None:
    folder = Path(link.folder) / "agent"
    folder.mkdir(parents=True)
    left, under_way = folder / "a.pyz.01.part", folder / "b.pyz.02.part"
    for file in (left, under_way):
        file.write_bytes(b"half an agent")
    two_days_ago_s = under_way.stat().st_mtime - 2 * 86400
    os.utime(left, (two_days_ago_s, two_days_ago_s))
    board = board_of(link, slept)
    board.connect()
    board.close()
    assert [p.name for p in folder.glob("*.part")] == [under_way.name]


def test_a_device_that_is_lost_again_and_again_is_given_up(board: Board) -> None:
    for _ in range(MOST_RECOVERIES):
        lose_keeper(board)
        board.connect()
    lose_keeper(board)
    with pytest.raises(DeviceUnavailableError, match="lost more than 3 times and is given up"):
        board.connect()
    # It stays given up: nothing quietly begins from the first rung.
    with pytest.raises(DeviceUnavailableError, match="given up"):
        board.connect()


def test_a_device_is_started_again_only_where_that_is_allowed(
    link: ScriptedLink, slept: list[float]
) -> None:
    board = board_of(link, slept, may_reboot=True)
    board.connect()
    lose_keeper(board)
    link.failures = len(BACK_OFF_S)
    board.connect()
    assert link.reboots == 1
    assert len(slept) == len(BACK_OFF_S) + 3  # away twice, then there
    board.close()


def test_a_restart_in_between_is_noticed(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    board._boot_id = "another"
    lose_keeper(board)
    with caplog.at_level(logging.WARNING):
        board.connect()
    assert "was started again in the middle of the campaign" in caplog.text


def test_models_are_asked_for_by_hash_and_refused_by_any_other_name(board: Board) -> None:
    with pytest.raises(ModelError, match="no model's name"):
        board.provide("../../etc/passwd", lambda: b"")
    with pytest.raises(ModelError, match="do not have the hash"):
        board.provide("0" * 64 + ".onnx", lambda: b"something")


def test_a_model_too_large_for_a_frame_is_its_own_fault_not_the_link_s(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The device would refuse the frame by ending the session, and be given up for it.
    monkeypatch.setattr("hwprof.devices.remote.board.MAX_BODY_BYTES", 10)
    content = b"eleven bytes"
    with pytest.raises(CompileError, match="the model has 12 bytes, and no more than 10 go to"):
        board.provide(f"{hashlib.sha256(content).hexdigest()}.onnx", lambda: content)
    assert board._keeper is not None


def stop_keeper(board: Board) -> None:
    assert board._keeper is not None
    os.kill(board._keeper.pid, signal.SIGSTOP)


@pytest.mark.parametrize("harm", [lose_keeper, stop_keeper])
def test_a_link_that_breaks_while_a_model_is_copied_is_connected_again(
    board: Board, monkeypatch: pytest.MonkeyPatch, harm: Any
) -> None:
    content = b"a model"
    name = f"{hashlib.sha256(content).hexdigest()}.onnx"
    with monkeypatch.context() as patch:

        def cut() -> bytes:
            harm(board)
            patch.setattr("hwprof.devices.remote.board.COMMAND_TIMEOUT_S", 0.5)
            return content

        with pytest.raises(LinkLostError):
            board.provide(name, cut)
    assert board._keeper is None
    board.provide(name, lambda: content)
    board.provide(name, lambda: pytest.fail("it is there"))


def test_a_restarted_command_takes_its_own_lease_back(
    link: ScriptedLink, slept: list[float]
) -> None:
    first, second, third = (board_of(link, slept) for _ in range(3))
    first.connect()
    with pytest.raises(DeviceUnavailableError, match="is measured by"):
        second.connect()  # two living processes
    # As where the first was killed behind a link that is half open: its keeper lives on.
    assert first._token is not None
    first._token.release()
    third.connect()
    assert first._keeper is not None
    assert first._keeper._process.wait(timeout=30) == -signal.SIGKILL
    for board in (first, second, third):
        board.close()


def test_a_token_is_its_user_s_alone_and_one_process_s_at_a_time() -> None:
    address = Address(link="ssh", host="board", cpus="0-3")
    first, second = LeaseToken(address), LeaseToken(address)
    assert first.text != second.text
    first.release()
    again = LeaseToken(Address(link="ssh", host="board"))  # the options are no other device
    assert again.text == first.text
    assert LeaseToken(Address(link="ssh", host="other")).text != first.text
    path = token_path(address)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again.release()
    path.write_text("no token")
    fresh = LeaseToken(address)
    assert path.read_text() == fresh.text
    fresh.release()


def test_without_a_place_to_keep_it_a_token_is_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    address = Address(link="ssh", host="board")
    first = LeaseToken(address)
    first.release()
    assert LeaseToken(address).text != first.text


@pytest.mark.parametrize(
    ("word", "kind", "words"),
    [
        ({"ended": -9, "oom": True}, "out_of_memory", "want of memory"),
        ({"ended": -9, "oom": False}, "died", "SIGKILL"),
        ({"ended": 0, "oom": False}, "died", "exit code 0"),
        (None, LINK, "the agent ended"),
    ],
)
def test_a_worker_that_ended_while_it_was_parked_is_told_by_its_supervisor(
    link: ScriptedLink, word: dict[str, Any] | None, kind: str, words: str
) -> None:
    data = b"" if word is None else pack({"arrays": [], **word})
    code = f"import sys; sys.stdout.buffer.write({data!r})"
    session = RemoteSession(0, link, [sys.executable, "-c", code])
    session._process.wait(timeout=30)
    session.park()
    with pytest.raises(WorkerFault, match=words) as caught:
        session.request("burst", 5.0, key="key")
    assert caught.value.kind == kind
    assert caught.value.lost


def test_cooling_down_is_not_taken_for_a_hang(
    link: ScriptedLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float]] = []

    def receive(self: Worker, op: str, timeout_s: float) -> wire.Frame:
        asked.append((op, timeout_s))
        return wire.Frame(header={})

    monkeypatch.setattr(Worker, "receive", receive)
    session = RemoteSession(0, link, ["sleep", "60"])
    for op in ("compile", "burst"):
        session.receive(op, 20.0)
    session.kill()
    assert asked == [("compile", 20.0), ("burst", 20.0 + COOL_LIMIT_S)]


def test_commands_have_time_limits(link: ScriptedLink) -> None:
    with pytest.raises(LinkLostError, match=r"did not answer within 0\.1 s"):
        ask(link, ["sleep", "60"], 0.1, name="board")


def test_a_folder_that_cannot_be_written_is_said(link: ScriptedLink, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x")
    with pytest.raises(DeviceUnavailableError, match="cannot copy file to '/nowhere/file' there"):
        push(link, source, "/nowhere/file", name="board")


def test_what_a_device_writes_cannot_move_the_terminal() -> None:
    assert last_words("fine\n\x1b[2Jgone\x07 \n") == "[2Jgone"
