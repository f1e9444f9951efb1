"""Tables with a whole network in every line."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

from hwprof.errors import DataError, SpaceError
from hwprof.importing import pace
from hwprof.importing.tables import LatencyColumns, Row, Table, latency_columns, read_table
from hwprof.space import Architecture, DesignSpace, get_space, space_of
from hwprof.store import ImportedNetwork

logger = logging.getLogger(__name__)

CELL_SPACE = "nasbench201"


def parse_architecture(text: str) -> Architecture:
    """Read an architecture as tables have it: JSON, or the cell string of NAS-Bench-201.

    Whether it fits its space is not checked.

    Raises:
        SpaceError: it is neither.
    """
    if text.startswith("|"):
        return Architecture(
            space=CELL_SPACE, resolution_px=get_space(CELL_SPACE).resolution_px, cell=text
        )
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{error}; expected JSON or a cell string") from error
    return Architecture.from_json(data)


def networks_of(
    table: Table, space: DesignSpace, latency_column: str | None
) -> list[ImportedNetwork]:
    """Return the networks of a table, all of them in ``space``.

    A table that numbers NAS-Bench-201 cells by ``index`` instead of writing them is joined
    with the table beside it that has ``index`` and ``arch``.

    Raises:
        DataError: naming line and column.
    """
    columns = latency_columns(table, latency_column)
    arch_text = _arch_texts(table)
    lines: dict[str, int] = {}
    networks = []
    for row in table.rows:
        network = _network(row, arch_text(row), space, columns)
        _refuse_twice(lines, row, network.arch.arch_id)
        networks.append(network)
    columns.check_unit(table, [n.latency_s for n in networks])
    pace.check_networks(table, columns, space, networks)
    _check_accuracies(table, networks)
    return networks


def read_latency_table(path: Path) -> dict[str, float]:
    """Read the ``TABLE.csv`` of a search: latency in seconds by canonical ``arch_id``.

    Encodings of one network share the mean of their latencies.

    Raises:
        DataError: naming line and column.
    """
    table = read_table(path)
    columns = latency_columns(table)
    arch_text = _arch_texts(table)
    spaces: dict[tuple[str, int], DesignSpace] = {}
    lines: dict[str, int] = {}
    latencies: dict[str, list[float]] = {}
    for row in table.rows:
        try:
            arch = parse_architecture(arch_text(row))
            name = (arch.space, arch.resolution_px)
            if name not in spaces:
                spaces[name] = space_of(arch)
            spaces[name].validate(arch)
            key = spaces[name].canonical(arch).arch_id
        except SpaceError as error:
            raise _bad_arch(row, error) from error
        _refuse_twice(lines, row, arch.arch_id)
        latencies.setdefault(key, []).append(columns.latency_s(row))
    columns.check_unit(table, [v for values in latencies.values() for v in values])
    return {key: statistics.fmean(values) for key, values in latencies.items()}


def read_architectures(path: Path) -> list[Architecture]:
    """Read the column ``arch`` of a table, every network checked against its space.

    Raises:
        DataError: naming line and column.
    """
    table = read_table(path)
    arch_text = _arch_texts(table)
    found = []
    for row in table.rows:
        try:
            arch = parse_architecture(arch_text(row))
            space_of(arch).require_searchable(arch)
        except SpaceError as error:
            raise _bad_arch(row, error) from error
        found.append(arch)
    return found


def _network(row: Row, text: str, space: DesignSpace, columns: LatencyColumns) -> ImportedNetwork:
    try:
        arch = parse_architecture(text)
        space.require_searchable(arch)
    except SpaceError as error:
        raise _bad_arch(row, error) from error
    accuracy_pct = row.optional_number("accuracy_pct")
    if accuracy_pct is not None and accuracy_pct > 100.0:
        raise row.wrong("accuracy_pct", "top-1 in percent, 0 to 100")
    return ImportedNetwork(
        arch=arch,
        latency_s=columns.latency_s(row),
        sd_s=columns.sd_s(row),
        count=row.optional_whole("count"),
        accuracy_pct=accuracy_pct,
    )


def _bad_arch(row: Row, error: SpaceError) -> DataError:
    return DataError(f"{row.file} line {row.line}, arch: {error}")


def _refuse_twice(lines: dict[str, int], row: Row, arch_id: str) -> None:
    before = lines.setdefault(arch_id, row.line)
    if before != row.line:
        raise DataError(
            f"{row.file} line {row.line}, arch is that of line {before}; "
            "expected every network once: average the lines or keep one"
        )


def _check_accuracies(table: Table, networks: list[ImportedNetwork]) -> None:
    known = [n.accuracy_pct for n in networks if n.accuracy_pct is not None]
    if known and max(known) <= 1.0:
        raise table.wrong(
            f"has accuracy_pct up to {max(known):g}; expected percent (0 to 100), not fractions: "
            "multiply by 100"
        )


def _arch_texts(table: Table) -> Callable[[Row], str]:
    if "arch" in table.column_set:
        return lambda row: row.text("arch")
    if "index" not in table.column_set:
        raise table.wrong(f"has no column 'arch'; it has {', '.join(table.columns)}")
    archs = _archs_by_index(table)

    def looked_up(row: Row) -> str:
        text = archs.get(row.whole("index"))
        if text is None:
            raise row.wrong("index", "a number that the table with the architectures has")
        return text

    return looked_up


def _archs_by_index(table: Table) -> Mapping[int, str]:
    """Find the one table in the same folder that says which architecture an index means."""
    found = []
    for path in sorted(table.path.parent.glob("*.csv*")):
        if path != table.path and path.name.endswith((".csv", ".csv.gz")):
            other = read_table(path)
            if {"index", "arch"} <= other.column_set:
                found.append(other)
    if len(found) != 1:
        raise table.wrong(
            "has no column 'arch' but an 'index'; expected one table beside it with the columns "
            f"index and arch, found {len(found)}: add the column 'arch'"
        )
    logger.info("architectures of %s taken from %s by index", table.path.name, found[0].path.name)
    return {row.whole("index"): row.text("arch") for row in found[0].rows}
