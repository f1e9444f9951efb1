"""Design spaces: blocks in slots, drawn, changed, mixed, counted and built; data only, no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from hwprof.errors import SpaceError
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import BlockPlace, Piece, Placed
from hwprof.space.slotted import SlottedSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

MUTATION_PROBABILITY = 0.5
"""Chance of every unit to mutate (BlockProfile's default for all its spaces)."""


@dataclass(frozen=True, kw_only=True)
class SpaceSize:
    """How many architectures a space holds.

    ``n_encodings`` counts ways to write one down, ``n_distinct`` networks that differ
    (None where it is not known).
    """

    n_encodings: int
    n_distinct: int | None


@dataclass(kw_only=True)
class Draft:
    """An architecture while it is being changed: blocks of every unit, level of every factor."""

    units: list[tuple[str, ...]]
    levels: list[int]


Move = Callable[[Draft, "np.random.Generator"], None]
"""One way to change a draft in place."""


@dataclass(frozen=True, kw_only=True)
class DesignSpace(SlottedSpace):
    """A design space; implementations are ``MBConvSpace``, ``ResNet50Space``, ``CellSpace``."""

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw an architecture: depths uniform, then each block uniform over its candidates."""
        draws = rng.integers(self._bounds).tolist()
        depths, picks = draws[: self.n_units], iter(draws[self.n_units :])
        units = []
        for choices, extra, least in zip(self._choices, depths, self.min_depth, strict=True):
            # Layers beyond the depth use up their draws too: all slots keep their place in them.
            blocks = [layer[next(picks)] for layer in choices]
            units.append(tuple(blocks[: least + extra]))
        return self.assemble(units, [levels[next(picks)] for levels in self._levels])

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a neighbour of ``arch`` that differs from it.

        BlockProfile's operators: every unit mutates with probability one half, drawn again
        until one does, by one operation drawn from the legal ones: add a block, remove one, or
        swap one for another candidate (places and blocks uniform). In a reduced space the
        blocks that an addition or a removal shifts have to be candidates where they land.

        Raises:
            SpaceError: nothing can be changed (a space of one architecture).
        """
        self.require_searchable(arch)
        draft = Draft(units=list(self.blocks(arch)), levels=list(self.factor_levels(arch)))
        groups = [moves for moves in self._moves(draft) if moves]
        if not groups:
            raise SpaceError(
                f"{arch} has no neighbour: every slot of this {self.name} space has one "
                "candidate left; reduce it less"
            )
        chosen: list[bool] = []
        while not any(chosen):
            chosen = (rng.random(len(groups)) < MUTATION_PROBABILITY).tolist()
        for moves, wanted in zip(groups, chosen, strict=True):
            if wanted:
                pick(moves, rng)(draft, rng)
        return self.assemble(draft.units, draft.levels)

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a child that takes every depth, block and level from one parent, uniformly.

        A layer that only one parent has comes from that one.
        """
        self.require_searchable(a)
        self.require_searchable(b)
        units = []
        for mine, yours in zip(self.blocks(a), self.blocks(b), strict=True):
            depth = len((mine, yours)[int(rng.integers(2))])
            longer = mine if len(mine) > len(yours) else yours
            mixed = [pair[int(rng.integers(2))] for pair in zip(mine, yours, strict=False)]
            units.append((*mixed, *longer[len(mixed) :])[:depth])
        pairs = zip(self.factor_levels(a), self.factor_levels(b), strict=True)
        return self.assemble(units, [pair[int(rng.integers(2))] for pair in pairs])

    @abstractmethod
    def canonical(self, arch: Architecture) -> Architecture:
        """Return the representative of all encodings of the same network."""

    @abstractmethod
    def size(self) -> SpaceSize:
        """Count the architectures."""

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
    def fixed_parts(self) -> tuple[Placed, ...]:
        """Return what stands in no slot: stem, first block, head, with every width they take."""

    def block_places(self) -> Mapping[Piece, tuple[BlockPlace, ...]]:
        """Return where every distinct piece of the live blocks stands, in the slots' order.

        Where a piece depends on widths that the slot does not fix (ResNet-50), each of its
        variants has the same place.
        """
        found: dict[Piece, list[BlockPlace]] = {}
        for slot in self.slots:
            for block in self.choices(slot):
                for piece, count in self._variants(slot, block):
                    place = BlockPlace(slot=slot, block=block, count=count)
                    found.setdefault(piece, []).append(place)
        return {piece: tuple(places) for piece, places in found.items()}

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

    def distinct_pieces(self) -> tuple[Piece, ...]:
        """Return every distinct piece of the space once: fixed parts, then live blocks."""
        fixed = (part.piece for part in self.fixed_parts())
        return tuple(dict.fromkeys((*fixed, *self.block_places())))

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

    def _variants(self, slot: Slot, block: str) -> tuple[tuple[Piece, int], ...]:
        return self.block_pieces(slot, block)

    def _moves(self, draft: Draft) -> list[list[Move]]:
        """Return the legal moves of every group of decisions; one group a unit."""
        return [self._unit_moves(unit, blocks) for unit, blocks in enumerate(draft.units)]

    def _unit_moves(self, unit: int, blocks: tuple[str, ...]) -> list[Move]:
        depth, moves = len(blocks), list[Move]()
        if depth < self.max_depth[unit]:
            places = [p for p in range(depth + 1) if self._fits(unit, blocks[p:], p + 1)]
            if places:
                moves.append(partial(self._add, unit, places))
        if depth > self.min_depth[unit]:
            places = [p for p in range(depth) if self._fits(unit, blocks[p + 1 :], p)]
            if places:
                moves.append(partial(self._remove, unit, places))
        places = [p for p in range(depth) if len(self._choices[unit][p]) > 1]
        if places:
            moves.append(partial(self._swap, unit, places))
        return moves

    def _fits(self, unit: int, blocks: tuple[str, ...], first: int) -> bool:
        choices = self._choices[unit]
        return all(block in choices[first + i] for i, block in enumerate(blocks))

    def _add(
        self, unit: int, places: Sequence[int], draft: Draft, rng: np.random.Generator
    ) -> None:
        blocks, place = draft.units[unit], pick(places, rng)
        block = pick(self._choices[unit][place], rng)
        draft.units[unit] = (*blocks[:place], block, *blocks[place:])

    def _remove(
        self, unit: int, places: Sequence[int], draft: Draft, rng: np.random.Generator
    ) -> None:
        blocks, place = draft.units[unit], pick(places, rng)
        draft.units[unit] = (*blocks[:place], *blocks[place + 1 :])

    def _swap(
        self, unit: int, places: Sequence[int], draft: Draft, rng: np.random.Generator
    ) -> None:
        blocks, place = draft.units[unit], pick(places, rng)
        others = [b for b in self._choices[unit][place] if b != blocks[place]]
        draft.units[unit] = (*blocks[:place], pick(others, rng), *blocks[place + 1 :])

    @cached_property
    def _bounds(self) -> NDArray[np.int64]:
        """Number of levels of every draw of :meth:`sample`: depths, blocks, factors."""
        import numpy as np

        depths = [len(self.depths(unit)) for unit in range(self.n_units)]
        blocks = [len(layer) for unit in self._choices for layer in unit]
        return np.array([*depths, *blocks, *(len(levels) for levels in self._levels)])


def pick(items: Sequence[T], rng: np.random.Generator) -> T:
    """Return one of ``items``, each equally likely."""
    return items[int(rng.integers(len(items)))]
