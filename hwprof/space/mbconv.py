"""Mobile spaces: a stem, a fixed first block, units of inverted bottlenecks, a head.

A space is a :class:`MBConvLayout`, plain data. Sources of the layouts that ship:
ProxylessNAS (Cai et al., ICLR 2019) and once-for-all (Cai et al., ICLR 2020).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import prod

from hwprof.errors import SpaceError
from hwprof.space.architecture import SKIP, Architecture, Channels, Slot
from hwprof.space.counting import n_sequences
from hwprof.space.families import Place, block_family, make_piece
from hwprof.space.pieces import (
    Activation,
    ConvPiece,
    HeadPiece,
    MBConvPiece,
    Piece,
    Placed,
    SkipPiece,
    out_size,
)
from hwprof.space.slotted import Units
from hwprof.space.space import DesignSpace, SpaceSize

_BLOCK = re.compile(r"mbconv_k(\d+)_e(\d+)")


def mbconv_names(kernels: Sequence[int], expansions: Sequence[int]) -> tuple[str, ...]:
    """Return block names, all kernels of the first expansion before those of the next.

    This is BlockProfile's order: k3_e3, k5_e3, k7_e3, k3_e6 and so on.
    """
    return tuple(f"mbconv_k{k}_e{e}" for e in expansions for k in kernels)


@lru_cache(maxsize=256)
def parse_mbconv(name: str) -> tuple[int, int]:
    """Return kernel size and expansion of ``mbconv_k{K}_e{E}``.

    Raises:
        SpaceError: the name is of another form, or the kernel is even.
    """
    match = _BLOCK.fullmatch(name)
    if match is None or int(match[1]) % 2 == 0 or int(match[2]) == 0:
        raise SpaceError(f"{name!r} is no block; expected 'mbconv_k5_e3' with an odd kernel")
    return int(match[1]), int(match[2])


@block_family(_BLOCK.pattern)
def _mbconv(match: re.Match[str], place: Place) -> MBConvPiece:
    kernel, expand = parse_mbconv(match[0])
    return MBConvPiece(
        in_channels=place.in_channels,
        size_px=place.size_px,
        out_channels=place.out_channels,
        kernel=kernel,
        expand=expand,
        stride=place.stride,
        act=place.act,
        squeeze_excite=place.squeeze_excite,
        shortcut=place.keeps_shape,
        bn_eps=place.bn_eps,
    )


def _packed(unit: tuple[str, ...], least: int) -> tuple[str, ...]:
    """Return a unit's blocks, then as many skips as bring it to its least depth."""
    blocks = tuple(block for block in unit if block != SKIP)
    return blocks + (SKIP,) * min(len(unit) - len(blocks), max(0, least - len(blocks)))


@dataclass(frozen=True, kw_only=True)
class UnitLayout:
    """A unit: ``channels`` wide, ``stride`` in its first layer, ``min_depth`` to ``max_depth``.

    ``candidates`` may stand in every layer; with ``skip`` so may the empty layer wherever the
    shortcut alone would do, which is where stride is 1 and the width does not change.
    """

    channels: int
    stride: int
    min_depth: int
    max_depth: int
    act: Activation
    candidates: tuple[str, ...]
    squeeze_excite: bool = False
    skip: bool = False


@dataclass(frozen=True, kw_only=True)
class MBConvLayout:
    """A mobile space as data: every width, stride, activation and candidate.

    ``stem`` is a 3×3 convolution with stride 2, ``first`` a fixed block k3 e1 with stride 1.
    The head is 1×1 to ``head_channels`` with batch norm, pool, 1×1 to ``last_channels`` without
    norm (0: none), linear.
    """

    name: str
    resolution_px: int
    n_classes: int
    bn_eps: float
    stem_channels: int
    stem_act: Activation
    first_channels: int
    first_act: Activation
    first_shortcut: bool
    units: tuple[UnitLayout, ...]
    head_channels: int
    head_act: Activation
    last_channels: int = 0

    @property
    def channels(self) -> Channels:
        """The widths as an architecture would write them out."""
        return Channels(
            stem=self.stem_channels,
            first=self.first_channels,
            units=tuple(unit.channels for unit in self.units),
            head=self.head_channels,
        )

    def candidates(self) -> dict[Slot, tuple[str, ...]]:
        """Return the candidates of every slot."""
        widths = (self.first_channels, *self.channels.units)
        return {
            Slot(index, layer): (*unit.candidates, SKIP)
            if unit.skip and (layer > 0 or (unit.stride == 1 and widths[index] == unit.channels))
            else unit.candidates
            for index, unit in enumerate(self.units)
            for layer in range(unit.max_depth)
        }


@dataclass(frozen=True, kw_only=True)
class MBConvSpace(DesignSpace):
    """The design space of a :class:`MBConvLayout`."""

    layout: MBConvLayout = field(repr=False)

    @classmethod
    def from_layout(cls, layout: MBConvLayout) -> MBConvSpace:
        """Return the whole space of ``layout``, at its own resolution."""
        candidates = layout.candidates()
        space = cls(
            name=layout.name,
            resolution_px=layout.resolution_px,
            n_classes=layout.n_classes,
            candidates=candidates,
            alive=candidates,
            min_depth=tuple(unit.min_depth for unit in layout.units),
            max_depth=tuple(unit.max_depth for unit in layout.units),
            layout=layout,
        )
        # Now, so that a block that no family knows is refused where the space is made.
        assert space._own_places
        return space

    def blocks(self, arch: Architecture) -> Units:
        """Return the blocks of every unit."""
        return arch.units

    def assemble(self, units: Units, levels: Sequence[int] = ()) -> Architecture:
        """Return the architecture of these blocks."""
        return Architecture(space=self.name, resolution_px=self.resolution_px, units=tuple(units))

    def canonical(self, arch: Architecture) -> Architecture:
        """Return the representative of all encodings of the same network: skips come last.

        Of those as few as the least depth leaves: a layer that is skipped is one that is not there.
        It is the same for every reduction of a space, so that it may serve as a key; where a
        reduction drops ``skip`` from some layers the representative may be outside of it.
        """
        pairs = zip(self._units_of(arch), self.min_depth, strict=True)
        units = tuple(_packed(unit, least) for unit, least in pairs)
        return arch if units == arch.units else replace(arch, units=units)

    def size(self) -> SpaceSize:
        """Count the architectures; networks differ where their blocks do, skips left out."""
        units = range(self.n_units)
        merge = any(SKIP in self.choices(Slot(unit, 0)) for unit in units)
        return SpaceSize(
            n_encodings=prod(self.n_unit_encodings(unit) for unit in units),
            # An optional first layer could make the blocks of two units interchangeable.
            n_distinct=None
            if merge
            else prod(n_sequences(self._choices[unit], self.depths(unit)) for unit in units),
        )

    def pieces(self, arch: Architecture) -> tuple[Placed, ...]:
        """Return the parts of ``arch`` in order of execution; literal widths are honoured."""
        self.validate(arch)
        filled = (
            (Slot(unit, layer), block)
            for unit, blocks in enumerate(arch.units)
            for layer, block in enumerate(blocks)
        )
        if arch.channels is not None:
            stem, first, head = self._fixed(arch.channels)
            layers = [self._place(slot, block, arch.channels) for slot, block in filled]
        else:
            stem, first, head = self._own_fixed
            layers = [self._own_places[place] for place in filled]
        return (stem, first, *layers, head)

    def block_pieces(
        self, slot: Slot, block: str, widths: tuple[int, ...] | None = None
    ) -> tuple[tuple[Piece, int], ...]:
        """Return the one piece that ``block`` is at ``slot``."""
        self._require_candidate(slot, block)
        return ((self._own_places[slot, block].piece, 1),)

    def fixed_parts(self) -> tuple[Placed, ...]:
        """Return stem, first block and head."""
        return self._own_fixed

    def _check_form(self, arch: Architecture) -> None:
        if arch.cell is not None or arch.stem_depth is not None or arch.widths is not None:
            raise SpaceError(
                f"an architecture of {self.name} has neither cell, stem_depth nor widths; "
                "leave them out"
            )
        if arch.channels is not None:
            widths = arch.channels
            every = (widths.stem, widths.first, *widths.units, widths.head)
            if len(widths.units) != self.n_units or min(every) < 1:
                raise SpaceError(
                    f"channels are {every}; expected a positive width for the stem, the first "
                    f"block, each of {self.n_units} units and the head"
                )

    def _fixed(self, widths: Channels) -> tuple[Placed, Placed, Placed]:
        layout = self.layout
        stem = ConvPiece(
            in_channels=3,
            size_px=self.resolution_px,
            out_channels=widths.stem,
            kernel=3,
            stride=2,
            act=layout.stem_act,
            bn_eps=layout.bn_eps,
        )
        first = MBConvPiece(
            in_channels=widths.stem,
            size_px=self._sizes[0],
            out_channels=widths.first,
            kernel=3,
            expand=1,
            stride=1,
            act=layout.first_act,
            squeeze_excite=False,
            shortcut=layout.first_shortcut,
            bn_eps=layout.bn_eps,
        )
        head = HeadPiece(
            in_channels=widths.units[-1],
            size_px=self._sizes[-1],
            feature_channels=widths.head,
            last_channels=layout.last_channels,
            n_classes=self.n_classes,
            act=layout.head_act,
            bn_eps=layout.bn_eps,
        )
        return (
            Placed(scope="stem", piece=stem),
            Placed(scope="first", piece=first),
            Placed(scope="head", piece=head),
        )

    def _place(self, slot: Slot, block: str, widths: Channels) -> Placed:
        unit = self.layout.units[slot.unit]
        before = (widths.first, *widths.units)
        entering = slot.layer == 0
        c_in, c_out = before[slot.unit + (not entering)], before[slot.unit + 1]
        size_px = self._sizes[slot.unit + (not entering)]
        piece: Piece
        if block == SKIP:
            piece = SkipPiece(in_channels=c_in, size_px=size_px)
        else:
            place = Place(
                in_channels=c_in,
                size_px=size_px,
                out_channels=c_out,
                stride=unit.stride if entering else 1,
                act=unit.act,
                squeeze_excite=unit.squeeze_excite,
                bn_eps=self.layout.bn_eps,
            )
            piece = make_piece(block, place)
        return Placed(scope=str(slot), piece=piece, slot=slot, block=block)

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """Side of what enters every unit, then of what leaves the last one."""
        sizes = [out_size(self.resolution_px, 2)]
        for unit in self.layout.units:
            sizes.append(out_size(sizes[-1], unit.stride))
        return tuple(sizes)

    @cached_property
    def _own_fixed(self) -> tuple[Placed, Placed, Placed]:
        return self._fixed(self.layout.channels)

    @cached_property
    def _own_places(self) -> Mapping[tuple[Slot, str], Placed]:
        return {
            (slot, block): self._place(slot, block, self.layout.channels)
            for slot, blocks in self.candidates.items()
            for block in blocks
        }
