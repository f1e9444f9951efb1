"""What a link to a device must do; everything else is built on it.

A transport turns a command for the device into a command for this host. Commands are argument
vectors; both ssh and adb hand one line to a shell on the device, so every argument is quoted.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hwprof.devices.remote.address import CLIENTS
from hwprof.errors import DeviceUnavailableError
from hwprof.measure.process import last_words

PUSH_BYTES_PER_S = 2**20
"""No link is assumed to be slower: it sets time limits only."""


class LinkLostError(DeviceUnavailableError):
    """The device does not answer; it may answer again in a while."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A command that ended: its exit status, what it wrote, and its complaints."""

    status: int
    out: bytes
    complaint: str


class Transport(Protocol):
    """A link to one device."""

    folder: str
    """Where the agent may keep its files, as the device's shell understands it."""

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command for this host that runs ``arguments`` on the device.

        Its standard streams are those of the program on the device, byte for byte.
        """
        ...

    def push_command(self, source: Path, target: str) -> tuple[list[str], Path | None]:
        """Return the command for this host that copies a file, and the file that it reads."""
        ...

    def reboot_command(self) -> list[str]:
        """Return the command for this host that starts the device again."""
        ...

    def complaint(self, status: int, log: str) -> DeviceUnavailableError | None:
        """Return what an ended command says about the link; None where it was not the link."""
        ...


def ask(
    transport: Transport, arguments: Sequence[str], timeout_s: float, *, name: str
) -> Completed:
    """Run a command on the device and wait for its end.

    Args:
        transport: the way there.
        arguments: the command.
        timeout_s: longest that it may take.
        name: how messages call the device.

    Raises:
        DeviceUnavailableError: the link failed, or it took too long.
    """
    return complete(transport, transport.command(arguments), None, timeout_s, name=name)


def push(transport: Transport, source: Path, target: str, *, name: str) -> None:
    """Copy a file to the device.

    Raises:
        DeviceUnavailableError: the link failed, or there is no room.
    """
    command, stdin = transport.push_command(source, target)
    timeout_s = 60.0 + source.stat().st_size / PUSH_BYTES_PER_S
    done = complete(transport, command, stdin, timeout_s, name=name)
    if done.status != 0:
        raise DeviceUnavailableError(
            f"{name}: cannot copy {source.name} to {target!r} there: {done.complaint or 'no reason'}"
        )


def complete(
    transport: Transport, command: Sequence[str], stdin: Path | None, timeout_s: float, *, name: str
) -> Completed:
    """Run a command on this host that reaches the device.

    Raises:
        DeviceUnavailableError: the client is missing, the link failed, or it took too long.
    """
    with open(stdin or "/dev/null", "rb") as given:
        try:
            done = subprocess.run(
                list(command), stdin=given, capture_output=True, timeout=timeout_s, check=False
            )
        except FileNotFoundError:
            raise DeviceUnavailableError(
                f"{name}: the program {command[0]!r} is not installed here; install it "
                f"({CLIENTS.get(command[0], command[0])} on Debian)"
            ) from None
        except subprocess.TimeoutExpired:
            raise LinkLostError(f"{name} did not answer within {timeout_s:g} s") from None
    log = done.stderr.decode(errors="replace")
    if done.returncode != 0:
        failure = transport.complaint(done.returncode, log)
        if failure is not None:
            raise failure
    text = last_words(log or done.stdout.decode(errors="replace"))
    return Completed(status=done.returncode, out=done.stdout, complaint=text)
