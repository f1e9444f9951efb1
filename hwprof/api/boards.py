"""Devices on other machines: remembered by a name, asked what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BoardState:
    """What a device on another machine says of itself."""

    url: str
    state: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what ``hwprof devices check --json`` prints."""
        return {"url": self.url, **self.state}


def add_device(name: str, url: str) -> str:
    """Remember the device at ``url`` as ``name``; return its address in full.

    Raises:
        PlanError: the name or the address cannot be used.
    """
    from hwprof.devices.remote.remembered import remember

    return remember(name, url).url


def check_device(place: str) -> BoardState:
    """Connect to a device and return what there is: cores, clocks, temperature, runtimes, space.

    Args:
        place: its address, or the name that it is remembered by.

    Raises:
        DeviceUnavailableError: it cannot be reached, lacks Python, or another campaign has it.
    """
    from hwprof.devices.remote.board import board_at, release_boards
    from hwprof.devices.remote.remembered import address_of

    address = address_of(place)
    board = board_at(address.url)
    try:
        board.connect()
        state = dict(board.state)
    finally:
        release_boards()
    state["emulated"] = bool(state.get("emulated")) or address.emulated
    return BoardState(url=address.url, state=state)
