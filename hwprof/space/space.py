"""The interface of a design space: data only, no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import Piece, Placed

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

    ``alive`` holds the candidates that are left, in the base space's order; a reduced space
    is the same object with fewer of them and, where depths were capped, a lower ``max_depth``.
    Implementations: ``MBConvSpace``, ``ResNet50Space``, ``CellSpace``.
    """

    name: str
    resolution_px: int
    n_classes: int
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

    def choices(self, slot: Slot) -> tuple[str, ...]:
        """Return the blocks that may stand at ``slot``, in the space's order.

        Raises:
            SpaceError: the space has no such slot.
        """
        from hwprof.errors import SpaceError

        if slot not in self.alive or slot.layer >= self.max_depth[slot.unit]:
            raise SpaceError(
                f"{self.name} has no layer {slot.layer} in unit {slot.unit}; "
                f"its units have up to {list(self.max_depth)} layers"
            )
        return self.alive[slot]

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

    @abstractmethod
    def canonical(self, arch: Architecture) -> Architecture:
        """Return the representative of all encodings of the same network."""

    @abstractmethod
    def size(self) -> SpaceSize:
        """Count the architectures."""

    @abstractmethod
    def encode(self, arch: Architecture) -> NDArray[np.int64]:
        """Return ``int64[len(slots) + len(factors)]``: index into the *base* candidates of
        every slot (-1 where the layer is absent), then the index of every factor's level.
        """

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
        at each of three widths. ``widths`` (ResNet-50 only) are the width indices; without
        them every width of the space is taken in turn by :meth:`distinct_pieces`.
        """

    @abstractmethod
    def distinct_pieces(self) -> tuple[Piece, ...]:
        """Return every distinct piece of the space once, fixed parts and live blocks."""

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
