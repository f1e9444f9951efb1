"""CSV tables, read strictly: whatever is wrong is named by line and column."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import statistics
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hwprof.errors import DataError

PLAUSIBLE_MEDIAN_S = (1e-6, 100.0)
"""A table whose median lies outside has its unit mixed up (1 ns … 1 µs, or minutes)."""

MOST_WHOLE = 10**9
"""No size or count of a table is larger, and a run's database takes none beyond 2**63."""
MOST_BYTES = 2**28
"""A table of more unpacked bytes is none: a packed file can hold a thousand times its size."""
NAMED_COLUMNS = ("latency_ms", "latency_s", "mean_ms", "mean_s")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    file: str
    line: int
    cells: Mapping[str, str]

    def wrong(self, column: str, expected: str) -> DataError:
        """Return the error that says what stands where and what was expected."""
        value = self.cells.get(column, "")
        shown = repr(value if len(value) <= 60 else f"{value[:57]}...") if value else "empty"
        return DataError(f"{self.file} line {self.line}, {column} is {shown}; expected {expected}")

    def text(self, column: str) -> str:
        """Return the cell's text, "" where it is empty."""
        return self.cells.get(column, "").strip()

    def number(self, column: str, *, zero_allowed: bool = False) -> float:
        """Return a finite positive number.

        Raises:
            DataError: it is something else.
        """
        expected = "a number of 0 or more" if zero_allowed else "a number above 0"
        try:
            value = float(self.text(column))
        except ValueError:
            raise self.wrong(column, expected) from None
        if not math.isfinite(value) or value < 0.0 or (value == 0.0 and not zero_allowed):
            raise self.wrong(column, expected)
        return value

    def optional_number(self, column: str) -> float | None:
        """Return a finite number of 0 or more, None where the cell is empty."""
        return self.number(column, zero_allowed=True) if self.text(column) else None

    def whole(self, column: str) -> int:
        """Return a whole number from 0 to :data:`MOST_WHOLE` (``3`` and ``3.0``).

        Raises:
            DataError: it is something else.
        """
        try:
            value = float(self.text(column))
        except ValueError:
            value = math.nan
        if not value.is_integer() or not 0 <= value <= MOST_WHOLE:
            raise self.wrong(column, f"a whole number from 0 to {MOST_WHOLE}")
        return int(value)

    def optional_whole(self, column: str) -> int | None:
        """Return a whole number as :meth:`whole` does, None where the cell is empty."""
        return self.whole(column) if self.text(column) else None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A whole CSV file."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    sha256: str
    """Of the file as it lies there."""

    @cached_property
    def column_set(self) -> frozenset[str]:
        """The columns without their order."""
        return frozenset(self.columns)

    def wrong(self, what: str) -> DataError:
        """Return an error about the table as a whole."""
        return DataError(f"{str(self.path)!r} {what}")


@dataclass(frozen=True, kw_only=True)
class LatencyColumns:
    """Where a table has its latencies and their spread, and the unit of both."""

    latency: str
    unit_s: float
    sd: str | None
    sd_unit_s: float = 1.0

    def latency_s(self, row: Row, *, zero_allowed: bool = False) -> float:
        """Return the latency of a row in seconds."""
        return row.number(self.latency, zero_allowed=zero_allowed) * self.unit_s

    def sd_s(self, row: Row) -> float | None:
        """Return the standard deviation of a row in seconds, None where it has none."""
        if self.sd is None:
            return None
        value = row.optional_number(self.sd)
        return None if value is None else value * self.sd_unit_s

    def check_unit(self, table: Table, latencies_s: Sequence[float]) -> None:
        """Refuse a table whose unit cannot be the one that its column's name says.

        Raises:
            DataError: the median is shorter than a microsecond or longer than 100 s.
        """
        median_s = statistics.median(latencies_s)
        low, high = PLAUSIBLE_MEDIAN_S
        if not low <= median_s <= high:
            raise table.wrong(
                f"has a median {self.latency} of {median_s / self.unit_s:g}, which is "
                f"{median_s * 1e3:g} ms; expected {low * 1e3:g} to {high * 1e3:g} ms: "
                "is the unit in the column's name (_ms or _s) the right one?"
            )


def read_table(path: Path) -> Table:
    """Read a ``.csv`` or ``.csv.gz``.

    Raises:
        DataError: the file cannot be read, is no CSV, or has no rows.
    """
    try:
        raw = path.read_bytes()
        content = _unpacked(raw) if path.suffix == ".gz" else raw
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"cannot read {str(path)!r}: {reason}; expected a CSV table, as .csv or .csv.gz"
        ) from error
    reader = csv.reader(io.StringIO(text))
    try:
        columns = tuple(name.strip() for name in next(reader, []))
        rows = tuple(_row(path, reader.line_num, columns, cells) for cells in reader if any(cells))
    except csv.Error as error:
        raise DataError(f"{path.name} line {reader.line_num}: {error}") from error
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise DataError(f"{str(path)!r} has the column {twice[0]!r} twice; keep one of them")
    if not rows:
        raise DataError(f"{str(path)!r} has no rows; expected a header and a line per entry")
    return Table(path=path, columns=columns, rows=rows, sha256=hashlib.sha256(raw).hexdigest())


def _unpacked(raw: bytes) -> bytes:
    with gzip.open(io.BytesIO(raw)) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(f"it unpacks to more than {MOST_BYTES // 2**20} MiB")
    return content


def latency_columns(table: Table, wanted: str | None = None) -> LatencyColumns:
    """Find the column of the latencies: ``wanted``, or ``latency_ms`` or ``latency_s``.

    ``sd_ms`` or ``sd_s`` belongs to it unless it was picked by name.

    Raises:
        DataError: there is no such column, more than one, or its name has no unit.
    """
    if wanted is not None:
        if wanted not in table.column_set:
            raise table.wrong(f"has no column {wanted!r}; it has {', '.join(table.columns)}")
        return LatencyColumns(latency=wanted, unit_s=_unit_s(wanted), sd=None)
    found = [name for name in NAMED_COLUMNS if name in table.column_set]
    if len(found) > 1:
        raise table.wrong(
            f"has {' and '.join(found)}; keep one, or pick it with `hwprof import --latency-column`"
        )
    if not found:
        timed = [name for name in table.columns if name.endswith(("_ms", "_s"))]
        pick = f"rename one of {', '.join(timed)}, or pick it with `hwprof import --latency-column`"
        raise table.wrong(f"has no column latency_ms or latency_s; {pick if timed else 'add one'}")
    sd = next((name for name in ("sd_ms", "sd_s") if name in table.column_set), None)
    return LatencyColumns(
        latency=found[0],
        unit_s=_unit_s(found[0]),
        sd=sd,
        sd_unit_s=_unit_s(sd) if sd else 1.0,
    )


def _row(path: Path, line: int, columns: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) > len(columns):
        raise DataError(
            f"{path.name} line {line} has {len(cells)} cells under {len(columns)} columns; "
            'quote a cell that holds commas, with " doubled inside it'
        )
    return Row(file=path.name, line=line, cells=dict(zip(columns, cells, strict=False)))


def _unit_s(column: str) -> float:
    if column.endswith("_ms"):
        return 1e-3
    if column.endswith("_s"):
        return 1.0
    raise DataError(f"the name of the latency column {column!r} has no unit; end it in _ms or _s")
