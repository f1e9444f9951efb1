"""What all design spaces share: blocks in slots, to draw, change, mix, check and encode.

A space says how its architectures are written (:meth:`SlottedSpace.blocks`,
:meth:`DesignSpace.assemble`) and what they are built of (its pieces); the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Self, TypeVar

from hwprof.errors import SpaceError, either
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import BlockPlace, Piece
from hwprof.space.space import Alive, DesignSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Units = Sequence[tuple[str, ...]]

MUTATION_PROBABILITY = 0.5
"""Chance of every unit to mutate (BlockProfile's default for all its spaces)."""
RESOLUTIONS_PX = (8, 8192)
"""Shortest and longest side of an input: of less the halvings leave nothing, and one image of the
longest fills 0.8 GB."""


@dataclass(kw_only=True)
class Draft:
    """An architecture while it is being changed: blocks of every unit, level of every factor."""

    units: list[tuple[str, ...]]
    levels: list[int]


Move = Callable[[Draft, "np.random.Generator"], None]
"""One way to change a draft in place."""


@dataclass(frozen=True, kw_only=True)
class SlottedSpace(DesignSpace):
    """A design space whose networks are a block in every active slot, and a level per factor."""

    @abstractmethod
    def blocks(self, arch: Architecture) -> Units:
        """Return the blocks of every unit."""

    @abstractmethod
    def _check_form(self, arch: Architecture) -> None:
        """Refuse fields of an architecture that mean nothing in this space."""

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
                moves[int(rng.integers(len(moves)))](draft, rng)
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

    def validate(self, arch: Architecture) -> None:
        """Check that ``arch`` belongs to this space, reductions included."""
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

    def encode_many(self, archs: Sequence[Architecture]) -> NDArray[np.int64]:
        """Return the codes of every slot and factor, ``int64[n, len(slots) + len(factors)]``."""
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

    def distinct_pieces(self) -> tuple[Piece, ...]:
        """Return every distinct piece of the space once: fixed parts, then live blocks."""
        fixed = (part.piece for part in self.fixed_parts())
        return tuple(dict.fromkeys((*fixed, *self.block_places())))

    def block_places(self) -> Mapping[Piece, tuple[BlockPlace, ...]]:
        """Return where every distinct piece of the live blocks stands, in the slots' order."""
        found: dict[Piece, list[BlockPlace]] = {}
        for slot in self.slots:
            for block in self.choices(slot):
                for piece, count in self._variants(slot, block):
                    place = BlockPlace(slot=slot, block=block, count=count)
                    found.setdefault(piece, []).append(place)
        return {piece: tuple(places) for piece, places in found.items()}

    def n_unit_encodings(self, unit: int) -> int:
        """Count the ways to fill ``unit``: blocks of every depth it may have."""
        sizes = [len(self.choices(Slot(unit, layer))) for layer in range(self.max_depth[unit])]
        return sum(prod(sizes[:depth]) for depth in self.depths(unit))

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
