"""The interface of a design space: data only, no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hwprof.errors import SpaceError
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import BlockPlace, Piece, Placed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Alive = Mapping[Slot, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class SpaceSize:
    """How many architectures a space holds.

    ``n_encodings`` counts ways to write one down, ``n_distinct`` networks that differ
    (None where it is not known).
    """

    n_encodings: int
    n_distinct: int | None


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A categorical decision beside blocks and depths: a ResNet-50 width, the stem's depth."""

    name: str
    levels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DesignSpace(ABC):
    """Macro layout plus the candidates of every slot and the depths of every unit.

    ``candidates`` holds the blocks of the base space at every slot up to its maximum depth,
    ``alive`` those that are left, in the same order. A reduced space is the same object with
    fewer of them alive and, where depths were capped, a lower ``max_depth``.
    Implementations: ``MBConvSpace``, ``ResNet50Space``, ``CellSpace``.
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
    def assemble(self, units: Sequence[tuple[str, ...]], levels: Sequence[int]) -> Architecture:
        """Return the architecture of the blocks of every unit and the level of every factor."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture: depths uniform, then each block uniform over its candidates."""

    @abstractmethod
    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a neighbour of ``arch`` that differs from it (BlockProfile's operators).

        Raises:
            SpaceError: nothing can be changed (a space of one architecture).
        """

    @abstractmethod
    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a child that takes every decision from one of its parents, uniformly."""

    @abstractmethod
    def validate(self, arch: Architecture) -> None:
        """Check that ``arch`` belongs to this space, reductions included.

        Raises:
            SpaceError: naming unit, layer, the value and what was expected.
        """

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

    @abstractmethod
    def canonical(self, arch: Architecture) -> Architecture:
        """Return the representative of all encodings of the same network."""

    @abstractmethod
    def size(self) -> SpaceSize:
        """Count the architectures."""

    def encode(self, arch: Architecture) -> NDArray[np.int64]:
        """Return ``int64[len(slots) + len(factors)]``, as :meth:`encode_many`."""
        codes: NDArray[np.int64] = self.encode_many([arch])[0]
        return codes

    @abstractmethod
    def encode_many(self, archs: Sequence[Architecture]) -> NDArray[np.int64]:
        """Return ``int64[len(archs), len(slots) + len(factors)]``.

        First the index into :meth:`base_choices` of every slot (-1 where the layer is absent),
        then the index of every factor's level.

        Raises:
            SpaceError: a unit is too deep, a block is unknown, or the widths are literal.
        """

    def used_codes(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return encoded networks without the blocks whose output nothing uses.

        A runtime that prunes the graph does not run them, one that takes it as it is does. In a
        chain of layers every block is used; a cell overrides this.

        Args:
            codes: ``int64[n, len(slots) + len(factors)]``, as :meth:`encode_many` returns them.
        """
        return codes

    @abstractmethod
    def decode(self, codes: NDArray[np.int64]) -> Architecture:
        """Return the architecture that :meth:`encode` gives ``codes`` for."""

    @abstractmethod
    def restrict(self, alive: Alive, max_depth: tuple[int, ...] | None = None) -> DesignSpace:
        """Return the space with fewer candidates (and lower maximum depths).

        Raises:
            SpaceError: a slot would be empty, or a block is not a candidate now.
        """

    @abstractmethod
    def at_resolution(self, resolution_px: int) -> DesignSpace:
        """Return the same space for another input size."""

    @abstractmethod
    def pieces(self, arch: Architecture) -> tuple[Placed, ...]:
        """Return the parts of ``arch`` in order of execution."""

    @abstractmethod
    def block_pieces(
        self, slot: Slot, block: str, widths: tuple[int, ...] | None = None
    ) -> tuple[tuple[Piece, int], ...]:
        """Return what ``block`` at ``slot`` is made of, each piece with how often it stands there.

        One piece in layer-wise spaces; in NAS-Bench-201 an edge's operator stands five times
        at each of three widths. ``widths`` (ResNet-50 only, and needed there) are the width
        indices; :meth:`block_places` takes every width in turn.

        Raises:
            SpaceError: the block was never a candidate of the slot, or the widths are missing.
        """

    @abstractmethod
    def block_places(self) -> Mapping[Piece, tuple[BlockPlace, ...]]:
        """Return where every distinct piece of the live blocks stands, in the slots' order.

        Where a piece depends on widths that the slot does not fix (ResNet-50), each of its
        variants has the same place.
        """

    def block_totals(self, value: Callable[[Piece], float]) -> dict[tuple[Slot, str], float]:
        """Return a figure of every live block at every slot: the sum over what it is made of.

        Where the slot does not fix a block's widths (ResNet-50) it is the mean over them.
        """
        found: dict[tuple[Slot, str], list[float]] = {}
        for piece, places in self.block_places().items():
            one = value(piece)
            for place in places:
                found.setdefault((place.slot, place.block), []).append(place.count * one)
        return {key: sum(v) / (len(v) if self.factors else 1) for key, v in found.items()}

    @abstractmethod
    def fixed_parts(self) -> tuple[Placed, ...]:
        """Return what stands in no slot: stem, first block, head, with every width they take."""

    @abstractmethod
    def distinct_pieces(self) -> tuple[Piece, ...]:
        """Return every distinct piece of the space once: fixed parts, then live blocks."""

    def to_summary(self) -> dict[str, Any]:
        """Return what ``hwprof spaces`` shows, as plain data."""
        size = self.size()
        return {
            "space": self.name,
            "resolution_px": self.resolution_px,
            "n_classes": self.n_classes,
            "units": [
                {
                    "unit": unit,
                    "depths": list(self.depths(unit)),
                    "layers": [
                        list(self.choices(Slot(unit, layer)))
                        for layer in range(self.max_depth[unit])
                    ],
                }
                for unit in range(self.n_units)
            ],
            "factors": {f.name: list(f.levels) for f in self.factors},
            "n_encodings": size.n_encodings,
            "n_distinct": size.n_distinct,
        }
