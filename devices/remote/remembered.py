"""Devices that were given a name: ``hwprof devices add NAME URL``."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

from hwprof.devices.remote.address import FORMS, Address, parse_address
from hwprof.errors import PlanError
from hwprof.files import write_whole

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def config_path() -> Path:
    """Return the file that remembers devices, below the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "hwprof" / "devices.json"


def remembered() -> dict[str, Address]:
    """Return every device that was given a name.

    Raises:
        PlanError: the file cannot be read.
    """
    path = config_path()
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}, expected {FORMAT}")
        return {name: parse_address(url) for name, url in data["devices"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PlanError(
            f"cannot read {str(path)!r} ({error}): mend it, or move it away and add the devices again"
        ) from error


def remember(name: str, url: str) -> Address:
    """Give the device at ``url`` a name; an earlier one of that name is replaced.

    Raises:
        PlanError: the name or the address cannot be used, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise PlanError(
            f"{name!r} is no name for a device; expected letters, digits, '-', '_' and '.'"
        )
    address = parse_address(url)
    devices = {**{n: a.url for n, a in remembered().items()}, name: address.url}
    text = json.dumps({"format": FORMAT, "devices": devices}, indent=1)
    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{text}\n".encode())
    except OSError as error:
        raise PlanError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return address


def address_of(place: str) -> Address:
    """Return the address of a URL or of a remembered name.

    Raises:
        PlanError: it is neither.
    """
    if "://" in place:
        return parse_address(place)
    known = remembered()
    if place not in known:
        close = difflib.get_close_matches(place, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PlanError(
            f"no device is remembered as {place!r}: {hint}expected {FORMS}, or a name given with "
            "`hwprof devices add NAME URL`"
        )
    return known[place]
