"""Blocks in slots: what may stand where, checked, coded and cut down.

A space says how its architectures are written (:meth:`SlottedSpace.blocks`,
:meth:`SlottedSpace.assemble`); the rest is here. How networks are drawn and changed, and what they
are built of, is in :mod:`hwprof.space.space`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Self

from hwprof.errors import SpaceError, either
from hwprof.space.architecture import Architecture, Slot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Alive = Mapping[Slot, tuple[str, ...]]
Units = Sequence[tuple[str, ...]]

RESOLUTIONS_PX = (8, 8192)
"""Shortest and longest side of an input: of less the halvings leave nothing, and one image of the
longest fills 0.8 GB."""


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A categorical decision beside blocks and depths: a ResNet-50 width, the stem's depth."""

    name: str
    levels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SlottedSpace(ABC):
    """Macro layout plus the candidates of every slot and the depths of every unit.

    ``candidates`` holds the blocks of the base space at every slot up to its maximum depth,
    ``alive`` those that are left, in the same order. A reduced space is the same object with
    fewer of them alive and, where depths were capped, a lower ``max_depth``.
    """

    name: str
    resolution_px: int
    n_classes: int
    candidates: Alive
    alive: Alive
    min_depth: tuple[int, ...]
    max_depth: tuple[int, ...]

    @property
    def n_units(self) -> int:
        """Number of searchable units."""
        return len(self.max_depth)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every slot, unit by unit, up to the maximum depth."""
        return tuple(
            Slot(unit, layer) for unit, depth in enumerate(self.max_depth) for layer in range(depth)
        )

    @property
    def meeting_slots(self) -> tuple[tuple[Slot, Slot], ...]:
        """Pairs of slots whose blocks may cost more or less together than each alone.

        One hands its output to the other, or they run side by side: in a chain of layers those
        that follow one another. The first of a pair comes first in :attr:`slots`.
        """
        return tuple(pairwise(self.slots))

    def choices(self, slot: Slot) -> tuple[str, ...]:
        """Return the blocks that may stand at ``slot``, in the space's order.

        Raises:
            SpaceError: the space has no such slot.
        """
        if slot not in self.alive or slot.layer >= self.max_depth[slot.unit]:
            raise SpaceError(
                f"{self.name} has no layer {slot.layer} in unit {slot.unit}; "
                f"its units have up to {', '.join(map(str, self.max_depth))} layers"
            )
        return self.alive[slot]

    def base_choices(self, slot: Slot) -> tuple[str, ...]:
        """Return the candidates of ``slot`` before any reduction: what :meth:`encode` counts in.

        Raises:
            SpaceError: the space has no such slot.
        """
        self.choices(slot)
        return self.candidates[slot]

    @property
    def is_reduced(self) -> bool:
        """Whether blocks or depths were dropped."""
        return dict(self.alive) != dict(self.candidates)

    def depths(self, unit: int) -> tuple[int, ...]:
        """Return the depths that ``unit`` may have (one value where depth is no decision)."""
        return tuple(range(self.min_depth[unit], self.max_depth[unit] + 1))

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Decisions that are neither block nor depth; none in most spaces."""
        return ()

    def factor_levels(self, arch: Architecture) -> tuple[int, ...]:
        """Return the level of each of :attr:`factors` in ``arch``."""
        return ()

    @abstractmethod
    def blocks(self, arch: Architecture) -> Units:
        """Return the blocks of every unit."""

    @abstractmethod
    def assemble(self, units: Units, levels: Sequence[int]) -> Architecture:
        """Return the architecture of the blocks of every unit and the level of every factor."""

    @abstractmethod
    def _check_form(self, arch: Architecture) -> None:
        """Refuse fields of an architecture that mean nothing in this space."""

    def validate(self, arch: Architecture) -> None:
        """Check that ``arch`` belongs to this space, reductions included.

        Raises:
            SpaceError: naming unit, layer, the value and what was expected.
        """
        if arch.space != self.name:
            raise SpaceError(f"the architecture is of {arch.space!r}; expected {self.name!r}")
        if arch.resolution_px != self.resolution_px:
            raise SpaceError(
                f"the architecture is for {arch.resolution_px} px, this {self.name} space for "
                f"{self.resolution_px} px; ask for the space at {arch.resolution_px} px"
            )
        self._check_form(arch)
        for unit, blocks in enumerate(self._units_of(arch)):
            self._check_unit(unit, blocks)
        self._check_levels(arch)

    def holds(self, arch: Architecture) -> bool:
        """Say whether ``arch`` belongs to this space, reductions included."""
        try:
            self.validate(arch)
        except SpaceError:
            return False
        return True

    def require_searchable(self, arch: Architecture) -> None:
        """Check that ``arch`` is one that searches and effects may use.

        Raises:
            SpaceError: it is not of this space, or has literal widths.
        """
        self._refuse_literal_widths(arch)
        self.validate(arch)

    def _refuse_literal_widths(self, arch: Architecture) -> None:
        if arch.channels is not None:
            raise SpaceError(
                "a network with literal channels is outside the design space; cost, bench and "
                "export take it, searches, effects and predictions do not: leave out its channels"
            )

    def encode(self, arch: Architecture) -> NDArray[np.int64]:
        """Return ``int64[len(slots) + len(factors)]``, as :meth:`encode_many`."""
        codes: NDArray[np.int64] = self.encode_many([arch])[0]
        return codes

    def encode_many(self, archs: Sequence[Architecture]) -> NDArray[np.int64]:
        """Return ``int64[len(archs), len(slots) + len(factors)]``.

        First the index into :meth:`base_choices` of every slot (-1 where the layer is absent),
        then the index of every factor's level.

        Raises:
            SpaceError: a unit is too deep, a block is unknown, or the widths are literal.
        """
        import numpy as np

        rows: list[list[int]] = []
        for arch in archs:
            self._refuse_literal_widths(arch)
            self._check_levels(arch)
            codes: list[int] = []
            for place in enumerate(self._units_of(arch)):
                known = self._known_units.get(place)
                if known is None:
                    known = self._known_units[place] = self._unit_codes(*place)
                codes += known
            levels = zip(self.factors, self.factor_levels(arch), strict=True)
            codes += [factor.levels.index(level) for factor, level in levels]
            rows.append(codes)
        n_codes = len(self.slots) + len(self.factors)
        return np.array(rows, dtype=np.int64).reshape(len(rows), n_codes)

    def used_codes(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return encoded networks without the blocks whose output nothing uses.

        A runtime that prunes the graph does not run them, one that takes it as it is does. In a
        chain of layers every block is used; a cell overrides this.

        Args:
            codes: ``int64[n, len(slots) + len(factors)]``, as :meth:`encode_many` returns them.
        """
        return codes

    def decode(self, codes: NDArray[np.int64]) -> Architecture:
        """Return the architecture that :meth:`encode` gives ``codes`` for."""
        rest = iter(codes.tolist())
        units = []
        for unit, depth in enumerate(self.max_depth):
            placed = [(Slot(unit, layer), next(rest)) for layer in range(depth)]
            units.append(tuple(self.candidates[slot][code] for slot, code in placed if code >= 0))
        levels = zip(self.factors, rest, strict=True)
        return self.assemble(units, [factor.levels[code] for factor, code in levels])

    def restrict(self, alive: Alive, max_depth: tuple[int, ...] | None = None) -> Self:
        """Return the space with fewer candidates (and lower maximum depths).

        Slots that ``alive`` does not name keep the candidates they have.

        Raises:
            SpaceError: a slot would be empty, a block is not a candidate now, or a maximum
                depth is not one that the unit may have.
        """
        depths = self.max_depth if max_depth is None else tuple(max_depth)
        if len(depths) != self.n_units:
            raise SpaceError(
                f"max_depth has {len(depths)} entries; {self.name} has {self.n_units} units"
            )
        for unit, depth in enumerate(depths):
            if depth not in self.depths(unit):
                raise SpaceError(
                    f"max_depth of unit {unit} is {depth}; expected {either(self.depths(unit))}"
                )
        for slot in alive:
            self.choices(Slot(*slot))
        kept = {
            slot: self._keep(slot, alive[slot]) if slot in alive else self.choices(slot)
            for slot in self.slots
            if slot.layer < depths[slot.unit]
        }
        return replace(self, alive=kept, max_depth=depths)

    def at_resolution(self, resolution_px: int) -> Self:
        """Return the same space for another input size.

        Raises:
            SpaceError: it is outside ``RESOLUTIONS_PX``.
        """
        least, most = RESOLUTIONS_PX
        if not least <= resolution_px <= most:
            raise SpaceError(
                f"resolution_px is {resolution_px}; expected an image side of {least} to {most}"
            )
        return replace(self, resolution_px=resolution_px)

    def n_unit_encodings(self, unit: int) -> int:
        """Count the ways to fill ``unit``: blocks of every depth it may have."""
        sizes = [len(self.choices(Slot(unit, layer))) for layer in range(self.max_depth[unit])]
        return sum(prod(sizes[:depth]) for depth in self.depths(unit))

    def _unit_codes(self, unit: int, blocks: tuple[str, ...]) -> list[int]:
        if len(blocks) > self.max_depth[unit]:
            raise SpaceError(self._wrong_depth(unit, len(blocks)))
        codes = []
        for layer, block in enumerate(blocks):
            code = self._codes[Slot(unit, layer)].get(block)
            if code is None:
                raise SpaceError(self._wrong_block(Slot(unit, layer), block))
            codes.append(code)
        return codes + [-1] * (self.max_depth[unit] - len(blocks))

    def _units_of(self, arch: Architecture) -> Units:
        units = self.blocks(arch)
        if len(units) != self.n_units:
            raise SpaceError(
                f"the architecture has {len(units)} units; {self.name} has {self.n_units}"
            )
        return units

    def _check_levels(self, arch: Architecture) -> None:
        for factor, level in zip(self.factors, self.factor_levels(arch), strict=True):
            if level not in factor.levels:
                raise SpaceError(
                    f"{factor.name} is {level}; {self.name} expects {either(factor.levels)}"
                )

    def _check_unit(self, unit: int, blocks: tuple[str, ...]) -> None:
        if not self.min_depth[unit] <= len(blocks) <= self.max_depth[unit]:
            raise SpaceError(self._wrong_depth(unit, len(blocks)))
        for layer, (block, choices) in enumerate(zip(blocks, self._choices[unit], strict=False)):
            if block not in choices:
                raise SpaceError(self._wrong_block(Slot(unit, layer), block))

    def _require_candidate(self, slot: Slot, block: str) -> None:
        if block not in self.base_choices(slot):
            raise SpaceError(self._wrong_block(slot, block))

    def _keep(self, slot: Slot, wanted: Sequence[str]) -> tuple[str, ...]:
        choices = self.choices(slot)
        for block in wanted:
            if block not in choices:
                raise SpaceError(self._wrong_block(slot, block))
        if not wanted:
            raise SpaceError(
                f"unit {slot.unit} layer {slot.layer} would have no block left; "
                f"keep {either(choices)}"
            )
        return tuple(block for block in choices if block in wanted)

    def _wrong_depth(self, unit: int, depth: int) -> str:
        least, most = self.min_depth[unit], self.max_depth[unit]
        expected = f"{least}" if least == most else f"{least} to {most}"
        return f"unit {unit} has {depth} layers; this {self.name} space expects {expected}"

    def _wrong_block(self, slot: Slot, block: str) -> str:
        dropped = " (dropped by the reduction)" if block in self.candidates[slot] else ""
        return (
            f"unit {slot.unit} layer {slot.layer} holds {block!r}{dropped}; expected "
            f"{either(self.choices(slot))}"
        )

    @cached_property
    def _choices(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        return tuple(
            tuple(self.choices(Slot(unit, layer)) for layer in range(depth))
            for unit, depth in enumerate(self.max_depth)
        )

    @cached_property
    def _levels(self) -> tuple[tuple[int, ...], ...]:
        return tuple(factor.levels for factor in self.factors)

    @cached_property
    def _codes(self) -> Mapping[Slot, Mapping[str, int]]:
        return {
            slot: {block: code for code, block in enumerate(blocks)}
            for slot, blocks in self.candidates.items()
        }

    @cached_property
    def _known_units(self) -> dict[tuple[int, tuple[str, ...]], list[int]]:
        """Codes of the units met so far: there are far fewer of them than networks."""
        return {}
