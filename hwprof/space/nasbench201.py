"""NAS-Bench-201 (Dong & Yang, ICLR 2020): one cell of six edges, repeated fifteen times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations, product
from typing import TYPE_CHECKING

from hwprof.errors import SpaceError
from hwprof.space.architecture import Architecture, Slot
from hwprof.space.pieces import (
    CellOpPiece,
    CellPiece,
    ConvPiece,
    HeadPiece,
    Piece,
    Placed,
    ReductionPiece,
    out_size,
)
from hwprof.space.slotted import Units
from hwprof.space.space import DesignSpace, SpaceSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
SOURCES = ((0,), (0, 1), (0, 1, 2))
"""Source nodes of the edges into nodes 1, 2 and 3; edges are numbered in this order."""
ENDS = tuple((s, target) for target, sources in enumerate(SOURCES, 1) for s in sources)
"""Source and target node of every edge."""
N_EDGES = len(ENDS)
STAGE_CHANNELS = (16, 32, 64)
CELLS_PER_STAGE = 5
BN_EPS = 1e-5

_EDGE = re.compile(r"([a-z0-9_]+)~(\d)")

Cell = tuple[str, ...]
"""The operators of the six edges."""


@lru_cache(maxsize=16_384)
def parse_cell(text: str) -> Cell:
    """Return the operators of a cell string, ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

    Raises:
        SpaceError: the string has another form.
    """
    edges = [_EDGE.findall(node) for node in text.split("+")]
    cell = tuple(op for node in edges for op, _ in node)
    if len(cell) != N_EDGES or cell_string(cell) != text:
        raise SpaceError(
            f"the cell is {text!r}; expected the form {cell_string(['none'] * N_EDGES)!r}"
        )
    return cell


def cell_string(cell: Iterable[str]) -> str:
    """Return the string of a cell: per target node ``|op~source|op~source|``, joined by ``+``."""
    ops = iter(cell)
    nodes = ("|".join(f"{next(ops)}~{source}" for source in sources) for sources in SOURCES)
    return "+".join(f"|{node}|" for node in nodes)


def topology(cell: Cell) -> str:
    """Return the expression of a cell's output, equal for cells that the benchmark calls equal.

    Skips stand for their source, dead edges for ``#``, sums are sorted. This is the benchmark's
    ``to_unique_str``, which counts 6,466 cells; it keeps a few apart that compute the same
    (a sum of nothing but zeros is not itself taken for zero).
    """
    nodes, ops = ["0"], iter(cell)
    for sources in SOURCES:
        terms = []
        for source, op in zip(sources, ops, strict=False):
            if op == "none" or nodes[source] == "#":
                terms.append("#")
            else:
                terms.append(nodes[source] if op == "skip_connect" else f"({nodes[source]})@{op}")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


@lru_cache(maxsize=16_384)
def canonical_cell(cell: Cell) -> str:
    """Return the string of the first cell of the same topology."""
    return cell_string(_representatives()[topology(cell)])


@lru_cache(maxsize=1)
def _representatives() -> Mapping[str, Cell]:
    """Return the first cell of every topology, in the order of the operators."""
    found: dict[str, Cell] = {}
    for cell in product(OPERATORS, repeat=N_EDGES):
        found.setdefault(topology(cell), cell)
    return found


@dataclass(frozen=True, kw_only=True)
class CellSpace(DesignSpace):
    """NAS-Bench-201 for CIFAR-10; its six edges are the layers of unit 0."""

    @classmethod
    def base(cls) -> CellSpace:
        """Return the whole space at 32 px, 10 classes."""
        candidates = {Slot(0, edge): OPERATORS for edge in range(N_EDGES)}
        return cls(
            name="nasbench201",
            resolution_px=32,
            n_classes=10,
            candidates=candidates,
            alive=candidates,
            min_depth=(N_EDGES,),
            max_depth=(N_EDGES,),
        )

    def blocks(self, arch: Architecture) -> Units:
        """Return the operators of the six edges, as one unit."""
        self._check_form(arch)
        assert arch.cell is not None
        return (parse_cell(arch.cell),)

    def assemble(self, units: Units, levels: Sequence[int] = ()) -> Architecture:
        """Return the architecture of these operators."""
        return Architecture(
            space=self.name, resolution_px=self.resolution_px, cell=cell_string(units[0])
        )

    def canonical(self, arch: Architecture) -> Architecture:
        """Return the first cell of the same topology, in the whole space."""
        (cell,) = self.blocks(arch)
        for edge, op in enumerate(cell):
            if op not in OPERATORS:
                raise SpaceError(self._wrong_block(Slot(0, edge), op))
        first = canonical_cell(cell)
        return arch if first == arch.cell else replace(arch, cell=first)

    @property
    def meeting_slots(self) -> tuple[tuple[Slot, Slot], ...]:
        """Any two edges: they follow one another, end in one sum, or may run at one time."""
        return tuple(combinations(self.slots, 2))

    def used_codes(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return encoded cells with ``none`` on every edge that does not lead to the output.

        An edge whose slot has no ``none`` left keeps its operator: what the cell costs without it
        could not be learnt in this space.
        """
        import numpy as np

        nothing = OPERATORS.index("none")
        out = codes.copy()
        # For every node, whether the output depends on it; edges into later nodes come first.
        read = np.zeros((len(SOURCES) + 1, len(codes)), dtype=np.bool_)
        read[-1] = True
        for edge, (source, target) in reversed(list(enumerate(ENDS))):
            if "none" in self.choices(Slot(0, edge)):
                out[~read[target], edge] = nothing
            read[source] |= read[target] & (out[:, edge] != nothing)
        return out

    def size(self) -> SpaceSize:
        """Count the cells, and their topologies as the benchmark counts them."""
        cells = product(*(self.choices(slot) for slot in self.slots))
        return SpaceSize(
            n_encodings=self.n_unit_encodings(0),
            n_distinct=len({topology(cell) for cell in cells}),
        )

    def pieces(self, arch: Architecture) -> tuple[Placed, ...]:
        """Return the parts of ``arch`` in order of execution; a cell is one part."""
        self.validate(arch)
        ((a, b, c, d, e, f),) = self.blocks(arch)
        stem, first, second, head = self.fixed_parts()
        parts = [stem]
        for stage, reduction in enumerate((None, first, second)):
            if reduction is not None:
                parts.append(reduction)
            piece = CellPiece(
                in_channels=STAGE_CHANNELS[stage],
                size_px=self._sizes[stage],
                ops=(a, b, c, d, e, f),
                bn_eps=BN_EPS,
            )
            parts += [
                Placed(scope=f"s{stage}.c{cell}", piece=piece) for cell in range(CELLS_PER_STAGE)
            ]
        return (*parts, head)

    def block_pieces(
        self, slot: Slot, block: str, widths: tuple[int, ...] | None = None
    ) -> tuple[tuple[Piece, int], ...]:
        """Return the operator at the three widths, five times each; all edges are alike."""
        self._require_candidate(slot, block)
        return tuple(
            (
                CellOpPiece(in_channels=channels, size_px=size, op=block, bn_eps=BN_EPS),
                CELLS_PER_STAGE,
            )
            for channels, size in zip(STAGE_CHANNELS, self._sizes, strict=True)
        )

    def fixed_parts(self) -> tuple[Placed, ...]:
        """Return stem, the two residual blocks between the stages, and head."""
        stem = ConvPiece(
            in_channels=3,
            size_px=self.resolution_px,
            out_channels=STAGE_CHANNELS[0],
            kernel=3,
            stride=1,
            act="none",
            bn_eps=BN_EPS,
        )
        reductions = (
            ReductionPiece(
                in_channels=STAGE_CHANNELS[stage - 1],
                size_px=self._sizes[stage - 1],
                out_channels=STAGE_CHANNELS[stage],
                stride=2,
                bn_eps=BN_EPS,
            )
            for stage in (1, 2)
        )
        head = HeadPiece(
            in_channels=STAGE_CHANNELS[-1],
            size_px=self._sizes[-1],
            feature_channels=0,
            last_channels=0,
            n_classes=self.n_classes,
            act="none",
            bn_eps=BN_EPS,
            pre_norm=True,
        )
        parts = zip(("stem", "s1.r", "s2.r", "head"), (stem, *reductions, head), strict=True)
        return tuple(Placed(scope=scope, piece=piece) for scope, piece in parts)

    def _check_form(self, arch: Architecture) -> None:
        if arch.cell is None:
            raise SpaceError(
                f'an architecture of {self.name} needs a "cell" string such as '
                f"{cell_string(['nor_conv_3x3'] * N_EDGES)!r}"
            )
        if arch.stem_depth is not None or arch.widths is not None or arch.channels is not None:
            raise SpaceError(
                f"an architecture of {self.name} has neither stem_depth, widths nor channels; "
                "leave them out"
            )

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """Side of the feature maps of every stage."""
        half = out_size(self.resolution_px, 2)
        return (self.resolution_px, half, out_size(half, 2))
