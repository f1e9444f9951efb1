"""One device on another machine, for as long as this process measures on it.

The first use copies the agent, takes the lease and notes the temperature that every later burst
cools down to. When the link breaks, the ladder is climbed: wait and connect again, start the agent
again (the lease's token proves that it is the same campaign), start the device again where that
is allowed, and after three recoveries give the device up.
"""

from __future__ import annotations

import getpass
import logging
import os
import posixpath
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hwprof.devices.remote.adb import AdbTransport
from hwprof.devices.remote.address import Address, parse_address
from hwprof.devices.remote.bundle import Bundle, agent_bundle
from hwprof.devices.remote.lease_token import LeaseToken
from hwprof.devices.remote.session import RemoteSession, Translate, unchanged
from hwprof.devices.remote.ssh import SshTransport
from hwprof.devices.remote.transport import (
    PUSH_BYTES_PER_S,
    Completed,
    LinkLostError,
    Transport,
    ask,
    complete,
    push,
)
from hwprof.errors import CompileError, DeviceUnavailableError, MeasurementError, ModelError
from hwprof.measure import wire
from hwprof.measure.framing import MAX_BODY_BYTES
from hwprof.measure.pool import START_TIMEOUT_S
from hwprof.measure.process import NO_PAGE_FAULTS, WORKER_NUMBER, WorkerFault

logger = logging.getLogger(__name__)

COMMAND_TIMEOUT_S = 30.0
PING_TIMEOUT_S = 30.0
BACK_OFF_S = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Waits before each try to connect."""
REBOOT_STEP_S, REBOOT_TRIES = 5.0, 48
"""A board that starts again is asked so often whether it is back: for four minutes."""
MOST_RECOVERIES = 3
KEEPER_NUMBER = 0

_ERRORS: Mapping[str, type[Exception]] = {
    "model": ModelError,
    "refused": CompileError,
    "unavailable": DeviceUnavailableError,
    "link": LinkLostError,
    # The keeper was ended for it, and nothing of the campaign with it: connect again.
    "died": LinkLostError,
    "hung": LinkLostError,
    "garbage": LinkLostError,
}


class Board:
    """A device behind a transport.

    Args:
        address: where it is.
        transport: the way there.
        sleep: waits between tries.
    """

    def __init__(
        self,
        address: Address,
        transport: Transport,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address = address
        self._transport, self._sleep = transport, sleep
        self._token: LeaseToken | None = None
        self._keeper: RemoteSession | None = None
        self._is_deployed = False
        self._recoveries = 0
        self._lost: WorkerFault | None = None
        self._boot_id: str | None = None
        self.state: Mapping[str, Any] = {}
        """What the device said of itself when it was last connected to."""
        self.start_c: float | None = None
        """The temperature that the campaign began with."""

    def start_worker(self, number: int, translate: Translate) -> RemoteSession:
        """Start a worker on the device.

        Args:
            number: of the worker in its campaign.
            translate: makes requests for the device out of the engine's.

        Raises:
            DeviceUnavailableError: it cannot be reached, is taken, or was given up.
        """
        self.connect()
        agent = self._deploy()
        return self._start(number, agent, "worker", str(number), translate=translate)

    def connect(self) -> None:
        """See to it that the device is reached and leased.

        Raises:
            DeviceUnavailableError: it cannot be.
        """
        if self._keeper is not None:
            try:
                self._keeper.request("ping", PING_TIMEOUT_S)
                return
            except WorkerFault as fault:
                self._lose_keeper(fault)
        if self._lost is None:
            self._open()
        else:
            self._recover(self._lost)
            self._lost = None

    def provide(self, name: str, content: Callable[[], bytes]) -> None:
        """See to it that a model is on the device.

        Args:
            name: the SHA-256 of its bytes, and a suffix.
            content: returns the bytes; called only where the device lacks them.

        Raises:
            DeviceError: there is no room, it is too large for a frame, or the link broke.
        """
        if self._ask("has", COMMAND_TIMEOUT_S, name=name).header.get("has") is True:
            return
        data = content()
        if len(data) > MAX_BODY_BYTES:
            raise CompileError(
                f"the model has {len(data):,} bytes, and no more than {MAX_BODY_BYTES:,} go to "
                f"{self.address.url}: measure it there with hwprof itself"
            )
        padded = data + bytes(-len(data) % 8)
        words = np.frombuffer(padded, dtype="<i8").astype(np.int64)
        frame = wire.Frame(
            header={"op": "put", "name": name, "size_bytes": len(data)}, arrays={"words": words}
        )
        assert self._keeper is not None
        try:
            self._keeper.send_frame(frame)
            self._keeper.receive("put", COMMAND_TIMEOUT_S + len(data) / PUSH_BYTES_PER_S)
        except WorkerFault as fault:
            raise self._failed(fault) from fault

    def close(self) -> None:
        """Give the device back; what was copied stays for the next time."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        if self._token is not None:
            self._token.release()
            self._token = None

    def _ask(self, op: str, timeout_s: float, **fields: Any) -> wire.Frame:
        self.connect()
        assert self._keeper is not None
        try:
            return self._keeper.request(op, timeout_s, **fields)
        except WorkerFault as fault:
            raise self._failed(fault) from fault

    def _failed(self, fault: WorkerFault) -> Exception:
        """Return the error that a request ended with, and let go of a keeper that is gone."""
        if fault.lost:
            self._lose_keeper(fault)
        return _error(self.address.url, fault)

    def _lose_keeper(self, fault: WorkerFault) -> None:
        """Let go of the keeper, so that the next use connects again."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper = None
            self._lost = fault
            self._recoveries += 1

    def _recover(self, fault: WorkerFault) -> None:
        url = self.address.url
        if self._recoveries > MOST_RECOVERIES:
            raise DeviceUnavailableError(
                f"{url} was lost more than {MOST_RECOVERIES} times and is given up ({fault}): see to "
                "the link and run the same command again to go on"
            )
        logger.warning("%s: %s; connecting again", url, fault)
        last: DeviceUnavailableError | None = None
        for wait_s in BACK_OFF_S:
            self._sleep(wait_s)
            try:
                self._open()
            except LinkLostError as error:
                last = error
            else:
                return
        if self.address.may_reboot and self._reboot():
            return
        raise DeviceUnavailableError(
            f"{last or fault}; tried {len(BACK_OFF_S)} times: see to the link and run the same "
            "command again to go on"
        )

    def _reboot(self) -> bool:
        """Start the device again and wait for it; return whether it came back."""
        logger.warning("%s: starting the device again", self.address.url)
        try:
            command = self._transport.reboot_command()
            complete(self._transport, command, None, COMMAND_TIMEOUT_S, name=self.address.url)
        except DeviceUnavailableError as error:  # the link ends with the device
            logger.warning("%s", error)
        for _ in range(REBOOT_TRIES):
            self._sleep(REBOOT_STEP_S)
            with suppress(LinkLostError):
                self._open()
                return True
        return False

    def _open(self) -> None:
        """Copy the agent if need be, start the keeper, take the lease."""
        self._is_deployed = False  # a device that was away may have lost what it had
        keeper = self._start(KEEPER_NUMBER, self._deploy(), "keeper")
        holder = f"{getpass.getuser()} on {socket.gethostname()}, process {os.getpid()}"
        if self._token is None:
            self._token = LeaseToken(self.address)
        token = self._token.text
        try:
            answer = keeper.request("lease", START_TIMEOUT_S, token=token, holder=holder)
        except WorkerFault as fault:
            keeper.kill()
            raise _error(self.address.url, fault) from fault
        self._keeper = keeper
        self.state = answer.header
        boot_id = self.state.get("boot_id")
        if self._boot_id is not None and boot_id != self._boot_id:
            logger.warning("%s was started again in the middle of the campaign", self.address.url)
        self._boot_id = boot_id
        if self.start_c is None:
            self.start_c = self.state.get("temperature_c")

    def _start(
        self, number: int, agent: str, *arguments: str, translate: Translate = unchanged
    ) -> RemoteSession:
        environment = [f"{name}={value}" for name, value in NO_PAGE_FAULTS.items()]
        command = ["env", *environment, f"{WORKER_NUMBER}={number}"]
        command += [self.address.python, agent, *arguments, self._transport.folder]
        return RemoteSession(number, self._transport, command, translate)

    def _deploy(self) -> str:
        """Copy the agent, unless a file with its very bytes is there; return its path."""
        bundle = agent_bundle()
        path = f"{self._transport.folder}/agent/{bundle.digest}.pyz"
        if not self._is_deployed and self._hash_of(path) != bundle.digest:
            self._copy(bundle, path)
        self._is_deployed = True
        return path

    def _copy(self, bundle: Bundle, path: str) -> None:
        url, folder = self.address.url, posixpath.dirname(path)
        made = self._run(["mkdir", "-p", "-m", "700", folder])
        if made.status != 0:
            raise DeviceUnavailableError(
                f"{url}: cannot make the folder {folder!r} there: {made.complaint}"
            )
        # What a link that broke left behind. One of today may be on its way, from another computer.
        old = ["-name", "*.part", "-mtime", "+0"]
        self._run(["find", folder, *old, "-exec", "rm", "-f", "{}", "+"])
        part = f"{path}.{secrets.token_hex(4)}.part"
        try:
            with tempfile.NamedTemporaryFile(suffix=".pyz") as file:
                file.write(bundle.content)
                file.flush()
                push(self._transport, Path(file.name), part, name=url)
            if self._hash_of(part) != bundle.digest:
                raise DeviceUnavailableError(
                    f"{url}: the agent arrived damaged: is the disk there full?"
                )
            self._run(["mv", part, path])
        except LinkLostError:
            raise
        except DeviceUnavailableError:
            self._run(["rm", "-f", part])
            raise

    def _hash_of(self, path: str) -> str | None:
        done = self._run(["sha256sum", path])
        words = done.out.decode(errors="replace").split()
        return words[0] if done.status == 0 and words else None

    def _run(self, arguments: list[str]) -> Completed:
        return ask(self._transport, arguments, COMMAND_TIMEOUT_S, name=self.address.url)


def _error(url: str, fault: WorkerFault) -> Exception:
    message = str(fault)
    return _ERRORS.get(fault.kind, MeasurementError)(
        message if url in message else f"{url}: {message}"
    )


_boards: dict[str, Board] = {}


def board_at(url: str) -> Board:
    """Return the device at ``url``: one for this process, leased until the process ends.

    Addresses of one device that differ in how it is used (other ``cpus``, say) take turns: the
    lease that this process has by another of them is given back.
    """
    if url not in _boards:
        address = parse_address(url)
        transport = AdbTransport(address) if address.link == "adb" else SshTransport(address)
        _boards[url] = Board(address, transport)
    board = _boards[url]
    for other in _boards.values():
        # Else the device would refuse this process as a second campaign.
        if other is not board and other.address.place == board.address.place:
            other.close()
    return board


def release_boards() -> None:
    """Give back every device that this process has."""
    while _boards:
        _boards.popitem()[1].close()
