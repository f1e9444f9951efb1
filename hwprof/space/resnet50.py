"""OFA-ResNet-50 (once-for-all, Cai et al., ICLR 2020): depths, bottleneck ratios, widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from math import prod
from typing import TYPE_CHECKING

from hwprof.errors import SpaceError
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import (
    BottleneckPiece,
    HeadPiece,
    Piece,
    Placed,
    ResNetStemPiece,
    make_divisible,
    out_size,
)
from hwprof.space.slotted import Factor, Units
from hwprof.space.space import DesignSpace, Draft, Move, SpaceSize, pick

if TYPE_CHECKING:
    import numpy as np

BLOCKS = ("bottleneck_e0.2", "bottleneck_e0.25", "bottleneck_e0.35")
STEM_DEPTHS = (0, 2)
STEM_MIDDLE = (24, 24, 32)
STEM_OUT = (40, 48, 64)
UNIT_WIDTHS = ((168, 208, 256), (336, 408, 512), (664, 816, 1024), (1328, 1640, 2048))
STRIDES = (1, 2, 2, 2)
MIN_DEPTH = (2, 2, 4, 2)
MAX_DEPTH = (4, 4, 6, 4)
BN_EPS = 1e-5

WIDTH_NAMES = (
    "width_stem_middle",
    "width_stem_out",
    "width_u0",
    "width_u1",
    "width_u2",
    "width_u3",
)
FACTORS = (
    Factor(name="stem_depth", levels=STEM_DEPTHS),
    *(Factor(name=name, levels=(0, 1, 2)) for name in WIDTH_NAMES),
)


@dataclass(frozen=True, kw_only=True)
class ResNet50Space(DesignSpace):
    """Bottlenecks in four units; factors are the stem's depth and six width indices."""

    @classmethod
    def base(cls) -> ResNet50Space:
        """Return the whole space at 224 px."""
        candidates = {
            Slot(unit, layer): BLOCKS
            for unit, depth in enumerate(MAX_DEPTH)
            for layer in range(depth)
        }
        return cls(
            name="ofa-resnet50",
            resolution_px=224,
            n_classes=1000,
            candidates=candidates,
            alive=candidates,
            min_depth=MIN_DEPTH,
            max_depth=MAX_DEPTH,
        )

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The stem's depth, then the index of every width."""
        return FACTORS

    def factor_levels(self, arch: Architecture) -> tuple[int, ...]:
        """Return the stem's depth and the six width indices.

        Raises:
            SpaceError: the architecture lacks them.
        """
        self._check_form(arch)
        assert arch.stem_depth is not None
        assert arch.widths is not None
        return (arch.stem_depth, *arch.widths)

    def blocks(self, arch: Architecture) -> Units:
        """Return the blocks of every unit."""
        return arch.units

    def assemble(self, units: Units, levels: Sequence[int]) -> Architecture:
        """Return the architecture of these blocks, stem depth and width indices."""
        return Architecture(
            space=self.name,
            resolution_px=self.resolution_px,
            units=tuple(units),
            stem_depth=levels[0],
            widths=tuple(levels[1:]),
        )

    def canonical(self, arch: Architecture) -> Architecture:
        """Return the representative: of two equal stem widths the first."""
        self._check_levels(arch)
        _, *widths = self.factor_levels(arch)
        widths[0] = STEM_MIDDLE.index(STEM_MIDDLE[widths[0]])
        return replace(arch, widths=tuple(widths))

    def size(self) -> SpaceSize:
        """Count the architectures; two of the three stem widths coincide."""
        blocks = prod(self.n_unit_encodings(unit) for unit in range(self.n_units))
        codes = blocks * prod(len(factor.levels) for factor in self.factors)
        distinct = codes // len(STEM_MIDDLE) * len(set(STEM_MIDDLE))
        return SpaceSize(n_encodings=codes, n_distinct=distinct)

    def pieces(self, arch: Architecture) -> tuple[Placed, ...]:
        """Return the parts of ``arch`` in order of execution."""
        self.validate(arch)
        stem_depth, middle, out, *widths = self.factor_levels(arch)
        layers = [
            Placed(
                scope=f"u{unit}.l{layer}",
                piece=self._bottleneck(Slot(unit, layer), block, (out, *widths)),
                slot=Slot(unit, layer),
                block=block,
            )
            for unit, blocks in enumerate(arch.units)
            for layer, block in enumerate(blocks)
        ]
        stem = self.stem(stem_depth, middle, out)
        head = _head(self._sizes[-1], UNIT_WIDTHS[-1][widths[-1]], self.n_classes)
        return (
            Placed(scope="stem", piece=stem),
            *layers,
            Placed(scope="head", piece=head),
        )

    def stem(self, depth: int, middle: int, out: int) -> ResNetStemPiece:
        """Return the stem of this depth (0 or 2) at the indices of its two widths."""
        return _stem(self.resolution_px, depth, middle, out)

    def block_pieces(
        self, slot: Slot, block: str, widths: tuple[int, ...] | None = None
    ) -> tuple[tuple[Piece, int], ...]:
        """Return the one piece that ``block`` is at ``slot``, at the six width indices given."""
        self._require_candidate(slot, block)
        if widths is None or len(widths) != len(WIDTH_NAMES):
            raise SpaceError(
                f"widths are {widths}; a block of {self.name} needs the six width indices: "
                "stem middle, stem out, units 1 to 4"
            )
        return ((self._bottleneck(slot, block, widths[1:]), 1),)

    def fixed_parts(self) -> tuple[Placed, ...]:
        """Return the stems and heads of every width."""
        stems = dict.fromkeys(
            self.stem(depth, middle, out)
            for depth in STEM_DEPTHS
            for middle in range(len(STEM_MIDDLE))
            for out in range(len(STEM_OUT))
        )
        heads = [_head(self._sizes[-1], width, self.n_classes) for width in UNIT_WIDTHS[-1]]
        return (
            *(Placed(scope="stem", piece=piece) for piece in stems),
            *(Placed(scope="head", piece=piece) for piece in heads),
        )

    def _check_form(self, arch: Architecture) -> None:
        if arch.cell is not None or arch.channels is not None:
            raise SpaceError(
                f"an architecture of {self.name} has neither cell nor channels; leave them out"
            )
        if arch.stem_depth is None:
            raise SpaceError(f'an architecture of {self.name} needs "stem_depth": 0 or 2')
        if arch.widths is None or len(arch.widths) != len(WIDTH_NAMES):
            raise SpaceError(
                f"widths are {arch.widths and list(arch.widths)}; {self.name} needs six indices "
                "0 to 2: stem middle, stem out, units 1 to 4"
            )

    def _moves(self, draft: Draft) -> list[list[Move]]:
        """Add the widths to the moves: a unit's to its own, the stem's as a group."""
        units = super()._moves(draft)
        first = 1 + WIDTH_NAMES.index("width_u0")
        for unit, moves in enumerate(units):
            moves.append(partial(_swap_width, first + unit))
        return [[_toggle_stem, _redraw_stem], *units]

    def _variants(self, slot: Slot, block: str) -> tuple[tuple[Piece, int], ...]:
        """Return the piece at every width of the unit and, in its first layer, of what precedes."""
        variants = []
        for before in range(3) if slot.layer == 0 else (0,):
            for own in range(3):
                widths = [0] * (1 + self.n_units)
                widths[slot.unit : slot.unit + 2] = before, own
                variants.append((self._bottleneck(slot, block, tuple(widths)), 1))
        return tuple(variants)

    def _bottleneck(self, slot: Slot, block: str, widths: Sequence[int]) -> Piece:
        """Return the piece; ``widths`` are the indices of stem out and the four units."""
        unit, layer = slot
        own = UNIT_WIDTHS[unit][widths[unit + 1]]
        before = (STEM_OUT, *UNIT_WIDTHS)[unit][widths[unit]]
        entering = layer == 0
        return _bottleneck(
            before if entering else own,
            self._sizes[unit if entering else unit + 1],
            own,
            STRIDES[unit] if entering else 1,
            entering,
            float(block.removeprefix("bottleneck_e")),
        )

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """Side of what enters every unit, then of what leaves the last one."""
        sizes = [out_size(out_size(self.resolution_px, 2), 2)]
        for stride in STRIDES:
            sizes.append(out_size(sizes[-1], stride))
        return tuple(sizes)


def _swap_width(level: int, draft: Draft, rng: np.random.Generator) -> None:
    draft.levels[level] = pick([w for w in range(3) if w != draft.levels[level]], rng)


def _toggle_stem(draft: Draft, rng: np.random.Generator) -> None:
    draft.levels[0] = pick([depth for depth in STEM_DEPTHS if depth != draft.levels[0]], rng)


def _redraw_stem(draft: Draft, rng: np.random.Generator) -> None:
    """Draw both stem widths anew, until the network differs."""
    middle, out = draft.levels[1:3]
    others = [
        (m, o)
        for m in range(len(STEM_MIDDLE))
        for o in range(len(STEM_OUT))
        if (STEM_MIDDLE[m], o) != (STEM_MIDDLE[middle], out)
    ]
    draft.levels[1:3] = pick(others, rng)


@lru_cache(maxsize=256)
def _stem(size_px: int, depth: int, middle: int, out: int) -> ResNetStemPiece:
    return ResNetStemPiece(
        in_channels=3,
        size_px=size_px,
        mid_channels=STEM_MIDDLE[middle],
        out_channels=STEM_OUT[out],
        residual=depth == 2,
        bn_eps=BN_EPS,
    )


@lru_cache(maxsize=1024)
def _bottleneck(
    c_in: int, size_px: int, c_out: int, stride: int, downsample: bool, expand: float
) -> BottleneckPiece:
    return BottleneckPiece(
        in_channels=c_in,
        size_px=size_px,
        mid_channels=make_divisible(round(c_out * expand)),
        out_channels=c_out,
        stride=stride,
        downsample=downsample,
        bn_eps=BN_EPS,
    )


def _head(size_px: int, c_in: int, n_classes: int) -> HeadPiece:
    return HeadPiece(
        in_channels=c_in,
        size_px=size_px,
        feature_channels=0,
        last_channels=0,
        n_classes=n_classes,
        act="none",
        bn_eps=BN_EPS,
    )
