"""A phone or board behind adb, always named by its serial number."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hwprof.devices.remote.address import Address
from hwprof.devices.remote.transport import LinkLostError
from hwprof.errors import DeviceUnavailableError
from hwprof.measure.process import last_words

OWN = re.compile(r"adb: (error: )?|error: ")
LINK_ENDED = 255
"""What ``adb shell`` returns where the session ended without a status of its own."""


class AdbTransport:
    """Runs commands through ``adb``."""

    folder = "/data/local/tmp/hwprof"

    def __init__(self, address: Address) -> None:
        self._address = address

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the adb command that runs ``arguments`` on the phone.

        ``-T``: no terminal, so the streams pass bytes unchanged and the exit status comes back
        (Android 7 and later).
        """
        return [*self._adb(), "shell", "-T", shlex.join(arguments)]

    def push_command(self, source: Path, target: str) -> tuple[list[str], Path | None]:
        """Copy with adb's own protocol."""
        return [*self._adb(), "push", str(source), target], None

    def reboot_command(self) -> list[str]:
        """Return the command that starts the phone again."""
        return [*self._adb(), "reboot"]

    def complaint(self, status: int, log: str) -> DeviceUnavailableError | None:
        """Tell what adb itself complained about."""
        url = self._address.url
        # What runs on the phone writes there too: only adb begins a line with these words.
        own = next((line for line in map(str.strip, log.splitlines()) if OWN.match(line)), "")
        said = last_words(OWN.sub("", own))
        if "unauthorized" in said:
            return DeviceUnavailableError(
                f"{url}: the phone has not allowed this computer: unlock it and accept the "
                "question on its screen"
            )
        if "more than one" in said or "no permissions" in said:
            return DeviceUnavailableError(f"{url}: {said}")
        if said.startswith("device ") or said.endswith("closed") or status == LINK_ENDED:
            return LinkLostError(
                f"{url} does not answer ({said or last_words(log) or 'the session ended'}): "
                "is it plugged in and listed by `adb devices`?"
            )
        return None

    def _adb(self) -> list[str]:
        return ["adb", "-s", self._address.host]
