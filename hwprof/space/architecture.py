"""What a network is: slots, blocks by name, architectures and their JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hwprof.errors import SpaceError, either
from hwprof.space.fields import is_whole

SKIP = "skip"


class Slot(NamedTuple):
    """A place for a block: ``layer`` of ``unit``, both 0-based.

    The fixed first block of a network is no unit, so unit 0 is the first searchable one.
    """

    unit: int
    layer: int

    def __str__(self) -> str:
        return f"u{self.unit}.l{self.layer}"


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Literal widths of a network that deviates from its space (released ProxylessNAS nets)."""

    stem: int
    first: int
    units: tuple[int, ...]
    head: int


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network of a design space.

    ``units`` lists the active layers of every unit. Where a space has no ``skip`` the
    length of a unit is its depth. ``stem_depth`` and ``widths`` belong to ResNet-50,
    ``cell`` replaces ``units`` in NAS-Bench-201.
    """

    space: str
    resolution_px: int
    units: tuple[tuple[str, ...], ...] = ()
    stem_depth: int | None = None
    widths: tuple[int, ...] | None = None
    cell: str | None = None
    channels: Channels | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the architecture as plain data, in the documented form."""
        data: dict[str, Any] = {"space": self.space, "resolution_px": self.resolution_px}
        if self.cell is not None:
            data["cell"] = self.cell
        else:
            data["units"] = [list(unit) for unit in self.units]
        if self.stem_depth is not None:
            data["stem_depth"] = self.stem_depth
        if self.widths is not None:
            data["widths"] = list(self.widths)
        if self.channels is not None:
            widths = self.channels
            data["channels"] = {
                "stem": widths.stem,
                "first": widths.first,
                "units": list(widths.units),
                "head": widths.head,
            }
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Architecture:
        """Read an architecture from plain data.

        Only the form is checked here; whether it fits its space is asked of
        :meth:`hwprof.space.DesignSpace.validate`.

        Raises:
            SpaceError: a field is missing, unknown or of the wrong type.
        """
        if not isinstance(data, Mapping):
            raise SpaceError(f"an architecture is a JSON object, not {type(data).__name__}")
        known = ("space", "resolution_px", "units", "cell", "stem_depth", "widths", "channels")
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise SpaceError(
                f"unknown field {unknown[0]!r} in the architecture; expected {either(known)}"
            )
        space = data.get("space")
        if not isinstance(space, str):
            raise SpaceError(
                'the architecture names no space; expected "space": "proxylessnas" or another '
                "name that `hwprof spaces` lists"
            )
        resolution = data.get("resolution_px")
        if not is_whole(resolution) or resolution <= 0:
            found = repr(resolution) if "resolution_px" in data else "missing"
            raise SpaceError(f"resolution_px is {found}; expected a positive whole number")
        cell = data.get("cell")
        units = data.get("units")
        if cell is not None and not isinstance(cell, str):
            raise SpaceError(f"cell is {cell!r}; expected a string such as '|nor_conv_3x3~0|+…'")
        if (cell is None) == (units is None):
            raise SpaceError('an architecture has either "units" or "cell"; one of them is needed')
        stem_depth = data.get("stem_depth")
        if stem_depth is not None and not is_whole(stem_depth):
            raise SpaceError(f"stem_depth is {stem_depth!r}; expected 0 or 2")
        widths, channels = data.get("widths"), data.get("channels")
        return cls(
            space=space,
            resolution_px=resolution,
            units=_read_units(units) if units is not None else (),
            stem_depth=stem_depth,
            widths=_read_ints(widths, "widths") if widths is not None else None,
            cell=cell,
            channels=_read_channels(channels) if channels is not None else None,
        )

    def canonical_json(self) -> str:
        """Return the JSON text that identifies this architecture (sorted keys, no blanks)."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @cached_property
    def arch_id(self) -> str:
        """Sixteen hexadecimal digits that identify this encoding."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def block(self, slot: Slot) -> str | None:
        """Return the name of the block at ``slot``, or None where the layer is absent."""
        unit = self.units[slot.unit]
        return unit[slot.layer] if slot.layer < len(unit) else None

    def __str__(self) -> str:
        parts = [" ".join(unit) for unit in self.units] if self.cell is None else [self.cell]
        if self.stem_depth is not None:
            parts.append(f"stem depth {self.stem_depth}")
        if self.widths is not None:
            parts.append("widths " + " ".join(map(str, self.widths)))
        if self.channels is not None:
            own = self.channels
            widths = (own.stem, own.first, *own.units, own.head)
            parts.append("channels " + " ".join(map(str, widths)))
        return f"{self.space}@{self.resolution_px} " + " | ".join(parts)


def _read_units(units: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(units, list | tuple):
        raise SpaceError(
            f"units is {type(units).__name__}; expected a list of lists of block names"
        )
    out: list[tuple[str, ...]] = []
    for index, unit in enumerate(units):
        if not isinstance(unit, list | tuple) or not all(isinstance(b, str) for b in unit):
            raise SpaceError(f"unit {index} is {unit!r}; expected a list of block names")
        out.append(tuple(unit))
    return tuple(out)


def _read_ints(values: object, name: str) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(map(is_whole, values)):
        raise SpaceError(f"{name} is {values!r}; expected a list of whole numbers")
    return tuple(values)


def _read_channels(data: object) -> Channels:
    if not isinstance(data, Mapping) or set(data) != {"stem", "first", "units", "head"}:
        raise SpaceError(
            'channels needs exactly "stem", "first", "units" and "head", all literal widths'
        )
    for name in ("stem", "first", "head"):
        if not is_whole(data[name]):
            raise SpaceError(f"channels.{name} is {data[name]!r}; expected a whole number")
    return Channels(
        stem=data["stem"],
        first=data["first"],
        units=_read_ints(data["units"], "channels.units"),
        head=data["head"],
    )
