"""What is tried when a device stops answering, step by step, over a link that fails as told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hwprof.devices.remote.address import Address
from hwprof.devices.remote.board import BACK_OFF_S, MOST_RECOVERIES, Board
from hwprof.devices.remote.transport import LinkLostError, ask, push
from hwprof.errors import DeviceUnavailableError, ModelError
from hwprof.measure.process import last_words

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
