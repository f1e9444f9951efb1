"""Where a device is: ``ssh://user@host:port`` or ``adb://SERIAL``, and how it is to be used.

Options follow a question mark: ``python`` (the interpreter there), ``cpus`` (which to use, e.g.
``4-7``), ``emulated`` (``yes`` where an emulator plays the device and does not show it),
``reboot`` (``yes`` allows to start the device again when nothing else helps).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from hwprof.errors import PlanError

Link = Literal["ssh", "adb"]

FORMS = "ssh://user@host:port or adb://SERIAL"
CLIENTS: Mapping[str, str] = {"ssh": "openssh-client", "adb": "adb"}
"""The program of every link, and Debian's package of it."""
_EMULATOR = "emulator-"
"""What adb begins the serial number of an emulator with."""
_SSH = re.compile(
    # Nothing may begin with a dash: ssh and adb would take it for an option.
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.%a-z]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_CPUS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_PYTHON = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")
_FLAGS = {"yes": True, "no": False}


@dataclass(frozen=True, kw_only=True)
class Address:
    """A device's place, read and checked. ``port`` None leaves it to ssh's own configuration."""

    link: Link
    host: str
    """Host name or address; the serial number for adb."""
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    cpus: str | None = None
    emulated: bool = False
    may_reboot: bool = False

    @property
    def place(self) -> tuple[str | int | None, ...]:
        """Which device it is, however it is to be used."""
        return (self.link, self.user, self.host, self.port)

    @property
    def url(self) -> str:
        """The address as it is written."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        options = {
            "python": "" if self.python == "python3" else self.python,
            "cpus": self.cpus or "",
            "emulated": "yes" if self.emulated else "",
            "reboot": "yes" if self.may_reboot else "",
        }
        query = urlencode({k: v for k, v in options.items() if v}, safe="/,:")
        return f"{self.link}://{user}{self.host}{port}" + (f"?{query}" if query else "")


def parse_address(url: str) -> Address:
    """Read an address.

    Raises:
        PlanError: it is none.
    """
    scheme, separator, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if not separator or scheme not in ("ssh", "adb"):
        raise PlanError(f"{url!r} is no device's address; expected {FORMS}")
    options = _options(url, query)
    if scheme == "adb":
        if not _SERIAL.fullmatch(place):
            raise PlanError(
                f"{url!r} names no serial number; expected adb://SERIAL with one that "
                "`adb devices` lists"
            )
        if place.startswith(_EMULATOR):
            options["emulated"] = True
        return Address(link="adb", host=place, **options)
    match = _SSH.fullmatch(place)
    if match is None or not 0 < int(match["port"] or 22) < 65536:
        raise PlanError(f"{url!r} is no address for ssh; expected ssh://user@host:port")
    port = int(match["port"]) if match["port"] else None
    return Address(link="ssh", host=match["host"], user=match["user"], port=port, **options)


def _options(url: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "python" and _PYTHON.fullmatch(value):
            found["python"] = value
        elif name == "cpus" and _CPUS.fullmatch(value):
            found["cpus"] = value
        elif name == "emulated" and value in _FLAGS:
            found["emulated"] = _FLAGS[value]
        elif name == "reboot" and value in _FLAGS:
            found["may_reboot"] = _FLAGS[value]
        else:
            raise PlanError(
                f"{url!r}: the option {name}={value!r} cannot be used; expected python=PATH, "
                "cpus=4-7, emulated=yes or reboot=yes"
            )
    return found
