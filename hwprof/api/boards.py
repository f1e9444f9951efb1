"""Devices on other machines: remembered by a name, asked what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwprof.errors import PlanError

if TYPE_CHECKING:
    from hwprof.measure.records import DeviceRef


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


def refuse_emulated(device: str, what: str) -> None:
    """Keep the times of an emulated device out of what is taken for hardware.

    Args:
        device: as a fingerprint names it.
        what: what would be made of its times.

    Raises:
        PlanError: it is emulated.
    """
    from hwprof.devices.agent.board_server import EMULATED_MARK

    if EMULATED_MARK in device:
        raise PlanError(
            f"{what} is of an emulated device ({device!r}), whose times say nothing about any "
            "hardware: measure on a real one, or add --allow-emulated"
        )


def device_label(ref: DeviceRef) -> str:
    """Return what a device is called in results, marked where an emulator plays it.

    Raises:
        DeviceUnavailableError: a device on another machine cannot be reached.
    """
    if ref.address is None:
        return ref.name
    from hwprof.devices.agent.board_server import EMULATED_MARK
    from hwprof.devices.remote.board import board_at

    board = board_at(ref.address)
    board.connect()
    emulated = board.address.emulated or board.state.get("emulated") is True
    return f"{ref.name} {EMULATED_MARK}" if emulated else ref.name
