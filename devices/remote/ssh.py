"""A device behind ssh, by the system's own client: its keys, agents and configuration apply."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from hwprof.devices.remote.address import Address
from hwprof.devices.remote.transport import LinkLostError
from hwprof.errors import DeviceUnavailableError
from hwprof.measure.process import last_words

CLIENT_FAILED = 255
"""ssh's exit status for its own errors; everything else is the command's."""
OPTIONS = (
    # A stranger's key is refused, whatever the user's configuration says; nothing ever asks.
    "StrictHostKeyChecking=yes",
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    # The device gets nothing of this host: no agent, no display, no ports.
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    # One session, one connection: ending it must end what it started.
    "ControlMaster=no",
    "ControlPath=none",
    "LogLevel=ERROR",
)


class SshTransport:
    """Runs commands through ``ssh``."""

    folder = ".cache/hwprof"  # sessions begin in the user's home

    def __init__(self, address: Address) -> None:
        self._url = address.url
        self._port = [] if address.port is None else ["-p", str(address.port)]
        user = f"{address.user}@" if address.user else ""
        self._target = user + address.host.strip("[]")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the ssh command that runs ``arguments`` on the device, without a terminal."""
        options = [part for option in OPTIONS for part in ("-o", option)]
        return ["ssh", "-T", *options, *self._port, "--", self._target, shlex.join(arguments)]

    def push_command(self, source: Path, target: str) -> tuple[list[str], Path | None]:
        """Copy through the session itself: boards may lack scp and sftp."""
        return self.command(["sh", "-c", 'exec cat > "$1"', "sh", target]), source

    def reboot_command(self) -> list[str]:
        """Return the command that starts the device again, where sudo allows it."""
        return self.command(["sudo", "-n", "reboot"])

    def complaint(self, status: int, log: str) -> DeviceUnavailableError | None:
        """Tell what ssh itself complained about."""
        if status != CLIENT_FAILED:
            return None
        url, text = self._url, last_words(log)
        by_hand = f"`{shlex.join(['ssh', *self._port, self._target])}`"
        if "host key" in log.lower():
            return DeviceUnavailableError(
                f"{url}: its host key is not known or has changed: compare it with the device's "
                f"own and run {by_hand} once by hand"
            )
        if "Permission denied" in log:
            return DeviceUnavailableError(
                f"{url}: ssh is not let in without a password ({text}): run ssh-copy-id, then "
                f"{by_hand} must work without asking"
            )
        return LinkLostError(f"{url} does not answer ({text or 'the connection ended'})")
