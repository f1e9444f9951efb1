"""Tables with a block of every place in every line: ``resolution_px,unit,layer,block``."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from hwprof.errors import DataError, SpaceError, either
from hwprof.importing import pace
from hwprof.importing.tables import LatencyColumns, Row, Table, latency_columns
from hwprof.space import SKIP, DesignSpace, Slot
from hwprof.store import ImportedBlock

logger = logging.getLogger(__name__)

PLACE_COLUMNS = frozenset({"resolution_px", "unit", "layer", "block"})
FIXED_PARTS = ("stem", "first", "head", "fixed")
FREE_BLOCKS = frozenset({SKIP, "none", "skip_connect"})
"""May be missing from a table, or cost nothing: they do nothing."""


def blocks_by_place(
    table: Table, space: DesignSpace, latency_column: str | None
) -> list[ImportedBlock]:
    """Return the blocks of a table keyed by unit and layer, at every resolution that it has.

    Raises:
        DataError: a line is wrong or there twice, or a block of the space is missing.
    """
    columns = latency_columns(table, latency_column)
    lines: dict[tuple[object, ...], int] = {}
    blocks = []
    for row in table.rows:
        block = _block(row, space, columns)
        place = (block.resolution_px, block.unit, block.layer, block.block)
        if lines.setdefault(place, row.line) != row.line:
            raise row.wrong("block", f"every place once; it is that of line {lines[place]}")
        blocks.append(block)
    columns.check_unit(table, [b.latency_s for b in blocks])
    pace.check_blocks(table, columns, space, blocks)
    _check_complete(table, space, blocks)
    return blocks


def _block(row: Row, space: DesignSpace, columns: LatencyColumns) -> ImportedBlock:
    name = row.text("block")
    unit, layer = row.optional_whole("unit"), row.optional_whole("layer")
    if unit is None and layer is None:
        if name not in FIXED_PARTS:
            raise row.wrong(
                "block", f"one of {', '.join(FIXED_PARTS)} where unit and layer are empty"
            )
    elif unit is None or layer is None:
        raise row.wrong("unit" if unit is None else "layer", "both unit and layer, or neither")
    else:
        _check_place(row, space, Slot(unit, layer), name)
    return ImportedBlock(
        resolution_px=row.whole("resolution_px"),
        unit=unit,
        layer=layer,
        block=name,
        latency_s=columns.latency_s(row, zero_allowed=name in FREE_BLOCKS),
        sd_s=columns.sd_s(row),
        count=row.optional_whole("count"),
    )


def _check_place(row: Row, space: DesignSpace, slot: Slot, block: str) -> None:
    try:
        choices = space.base_choices(slot)
    except SpaceError as error:
        raise DataError(f"{row.file} line {row.line}, unit and layer: {error}") from error
    if block not in choices:
        raise row.wrong("block", f"one of {', '.join(choices)} at {slot} of {space.name}")


def _check_complete(table: Table, space: DesignSpace, blocks: Sequence[ImportedBlock]) -> None:
    require_resolution(table, space, {b.resolution_px for b in blocks})
    for resolution in sorted({b.resolution_px for b in blocks}):
        here = [b for b in blocks if b.resolution_px == resolution]
        known = {(b.unit, b.layer, b.block) for b in here}
        missing = [
            f"{block} at {slot}"
            for slot in space.slots
            for block in space.choices(slot)
            if (slot.unit, slot.layer, block) not in known and block not in FREE_BLOCKS
        ]
        if missing:
            raise table.wrong(
                f"lacks {len(missing)} blocks of {space.name} at {resolution} px, first "
                f"{missing[0]}; expected a line for every block of every slot: add them, or "
                "reduce the space"
            )
        if all(b.unit is not None for b in here):
            logger.warning(
                "%s has no stem, first, head or fixed part at %d px: latencies predicted from it "
                "are relative to that part",
                table.path.name,
                resolution,
            )


def require_resolution(table: Table, space: DesignSpace, found: set[int]) -> None:
    """Refuse a table that has no line for the input size that was asked for."""
    if space.resolution_px not in found:
        raise table.wrong(
            f"has no line for {space.resolution_px} px; it has {either(sorted(found))}: "
            "choose one of those with --resolution"
        )
