"""``hwprof import``: a table becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.importing.blocks import PLACE_COLUMNS, blocks_by_place
from hwprof.importing.networks import networks_of
from hwprof.importing.shapes import SHAPE_COLUMNS, blocks_by_shape
from hwprof.importing.tables import read_table
from hwprof.measure.records import Fingerprint
from hwprof.space.own import own_space_request
from hwprof.store import ImportedBlock, ImportedNetwork, Run

if TYPE_CHECKING:
    from hwprof.space import DesignSpace


def import_csv(
    path: Path,
    space: DesignSpace,
    device_name: str,
    out: Path,
    latency_column: str | None = None,
) -> Run:
    """Make a run folder from a table of networks, of blocks by place, or of blocks by shape.

    The kind is told by the columns: ``arch`` (or ``index``) means networks;
    ``resolution_px,unit,layer,block`` blocks by place; ``op,input_h,…`` blocks by shape.
    Called again with the same table it changes nothing.

    Args:
        path: a ``.csv`` or ``.csv.gz``.
        space: the space of every network or block in it.
        device_name: what the device is called from now on.
        out: the run folder.
        latency_column: a column whose name ends in ``_ms`` or ``_s``; by default
            ``latency_ms`` or ``latency_s``.

    Returns:
        The run, open for writing; close it.

    Raises:
        DataError: the table cannot be right; nothing is kept.
        IncompatibleRunError: ``out`` holds another import or a profile.
    """
    table = read_table(path)
    networks: list[ImportedNetwork] = []
    blocks: list[ImportedBlock] = []
    if table.column_set >= PLACE_COLUMNS:
        blocks = blocks_by_place(table, space, latency_column)
    elif table.column_set >= SHAPE_COLUMNS:
        blocks = blocks_by_shape(table, space, latency_column)
    else:
        networks = networks_of(table, space, latency_column)
    request = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        **own_space_request(space),
        **_reduction(space),
        "device": device_name,
        "file": path.name,
        "sha256": table.sha256,
        "latency_column": latency_column,
    }
    run = Run.create_or_resume(out, "import", request)
    try:
        run.opened(imported_fingerprint(device_name))
        if not run.has_imports():
            run.put_imported(networks, blocks)
    except BaseException:
        run.close()
        raise
    return run


def _reduction(space: DesignSpace) -> dict[str, Any]:
    """Return what a reduced space leaves, as a campaign's request has it; nothing of a whole one."""
    if not space.is_reduced:
        return {}
    return {
        "max_depth": list(space.max_depth),
        "alive": {str(slot): list(space.choices(slot)) for slot in space.slots},
    }


def imported_fingerprint(device_name: str) -> Fingerprint:
    """Return the fingerprint of a device of which only the name is known."""
    unknown = dict.fromkeys(("runtime_version", "threads", "batch", "precision"))
    return Fingerprint(
        stable={"device": device_name, "hardware": device_name, "runtime": "imported", **unknown}
    )
