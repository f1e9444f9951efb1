"""Tables with a block's shape in every line, as OFA's published look-up tables have them.

Each line is an operator group with its shapes; a block of a space is looked up by what it is
made of, at every place where it may stand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hwprof.errors import SpaceError
from hwprof.importing import pace
from hwprof.importing.blocks import require_resolution
from hwprof.importing.tables import LatencyColumns, Row, Table, latency_columns
from hwprof.space import DesignSpace, Piece, Slot
from hwprof.space.pieces import ConvPiece, HeadPiece, MBConvPiece, SkipPiece
from hwprof.store import ImportedBlock

SHAPE_COLUMNS = frozenset(
    {"op", "input_h", "input_w", "input_c", "output_c", "expand", "kernel", "stride"}
    | {"idskip", "se", "hs"}
)


class Shape(NamedTuple):
    """What identifies a line of a table keyed by shape."""

    op: str
    size_px: int
    in_channels: int
    out_channels: int
    mid_channels: int | None = None
    kernel: int | None = None
    stride: int | None = None
    shortcut: int | None = None
    squeeze_excite: int | None = None
    hswish: int | None = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Latency of one shape, or of several that run one after the other."""

    latency_s: float
    sd_s: float | None
    count: int | None


def blocks_by_shape(
    table: Table, space: DesignSpace, latency_column: str | None
) -> list[ImportedBlock]:
    """Return every block and fixed part of a space from OFA's table keyed by shape.

    ``expand`` is the number of middle channels, ``hs`` is 1 for h-swish. ``resolution`` is the
    network's input size that a line was measured for; without that column the table is the
    one of the space's resolution.

    Raises:
        DataError: a line is wrong or there twice, or a shape of the space is missing.
    """
    columns = latency_columns(table, latency_column)
    tables: dict[int, dict[Shape, Cost]] = {}
    for row in table.rows:
        shape, cost = _shape(row), _cost(row, columns)
        resolution = (
            row.whole("resolution") if "resolution" in table.column_set else space.resolution_px
        )
        here = tables.setdefault(resolution, {})
        if shape in here:
            raise row.wrong("op", f"every shape once at {resolution} px; this one was there before")
        here[shape] = cost
    require_resolution(table, space, set(tables))
    columns.check_unit(table, [c.latency_s for t in tables.values() for c in t.values()])
    blocks = [
        block
        for resolution, costs in sorted(tables.items())
        for block in _placed(table, space.at_resolution(resolution), costs)
    ]
    pace.check_blocks(table, columns, space, blocks)
    return blocks


def _placed(
    table: Table, space: DesignSpace, costs: Mapping[Shape, Cost]
) -> Iterable[ImportedBlock]:
    def look_up(piece: Piece, place: str) -> list[Cost]:
        found = []
        for shape in _shapes_of(table, piece):
            if shape not in costs:
                raise table.wrong(
                    f"has no line for {place} of {space.name} at {space.resolution_px} px: "
                    f"expected {shape}"
                )
            found.append(costs[shape])
        return found

    for part in space.fixed_parts():
        yield _imported(space, None, part.scope, look_up(part.piece, part.scope))
    for slot in space.slots:
        for block in space.choices(slot):
            parts = [
                cost
                for piece, count in _pieces_of(table, space, slot, block)
                for cost in count * look_up(piece, f"{block} at {slot}")
            ]
            yield _imported(space, slot, block, parts)


def _pieces_of(
    table: Table, space: DesignSpace, slot: Slot, block: str
) -> tuple[tuple[Piece, int], ...]:
    try:
        return space.block_pieces(slot, block)
    except SpaceError as error:
        raise table.wrong(f"is keyed by shape, which {space.name} cannot use: {error}") from error


def _imported(
    space: DesignSpace, slot: Slot | None, block: str, parts: Sequence[Cost]
) -> ImportedBlock:
    spreads = [p.sd_s for p in parts if p.sd_s is not None]
    counts = [p.count for p in parts if p.count is not None]
    return ImportedBlock(
        resolution_px=space.resolution_px,
        unit=slot.unit if slot else None,
        layer=slot.layer if slot else None,
        block=block,
        latency_s=math.fsum(p.latency_s for p in parts),
        sd_s=math.hypot(*spreads) if parts and len(spreads) == len(parts) else None,
        count=min(counts) if parts and len(counts) == len(parts) else None,
    )


def _shape(row: Row) -> Shape:
    size = row.whole("input_h")
    if row.whole("input_w") != size:
        raise row.wrong("input_w", f"the input's height, {size}")
    return Shape(
        op=row.text("op"),
        size_px=size,
        in_channels=row.whole("input_c"),
        out_channels=row.whole("output_c"),
        mid_channels=row.optional_whole("expand"),
        kernel=row.optional_whole("kernel"),
        stride=row.optional_whole("stride"),
        shortcut=row.optional_whole("idskip"),
        squeeze_excite=row.optional_whole("se"),
        hswish=row.optional_whole("hs"),
    )


def _cost(row: Row, columns: LatencyColumns) -> Cost:
    return Cost(
        latency_s=columns.latency_s(row),
        sd_s=columns.sd_s(row),
        count=row.optional_whole("count"),
    )


def _shapes_of(table: Table, piece: Piece) -> list[Shape]:
    """Return the lines that make up a piece, under the names of OFA's tables."""
    size, channels = piece.size_px, piece.in_channels
    if isinstance(piece, SkipPiece):
        return []
    if isinstance(piece, ConvPiece):
        return [Shape("Conv", size, channels, piece.out_channels)]
    if isinstance(piece, MBConvPiece):
        return [
            Shape(
                op="expanded_conv",
                size_px=size,
                in_channels=channels,
                out_channels=piece.out_channels,
                mid_channels=piece.mid_channels,
                kernel=piece.kernel,
                stride=piece.stride,
                shortcut=int(piece.shortcut),
                squeeze_excite=int(piece.squeeze_excite),
                hswish=int(piece.act == "hswish"),
            )
        ]
    if isinstance(piece, HeadPiece) and piece.feature_channels and not piece.pre_norm:
        features, last = piece.feature_channels, piece.last_channels
        shapes = [
            Shape("Conv_1", size, channels, features),
            Shape("AvgPool2D", size, features, features),
        ]
        if last:
            shapes.append(Shape("Conv_2", 1, features, last))
        return [*shapes, Shape("Logits", 1, last or features, piece.n_classes)]
    raise table.wrong(
        f"is keyed by shape, which has no line for a {piece.kind!r}; "
        "expected a space of mobile blocks (MBConv)"
    )
