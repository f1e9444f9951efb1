"""The database of a run: its tables, how it is opened, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hwprof.errors import FormatVersionError, StoreError, is_disk_full

DATABASE = "run.db"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0
LATER_COLUMNS = ("enqueue_ns", "end_to_end_ns")
"""Of ``bursts``, absent from the first runs of this format: they are read without."""

_BURST = """
    session TEXT NOT NULL, worker TEXT NOT NULL, round_index INTEGER NOT NULL,
    causes TEXT NOT NULL, steal_share REAL NOT NULL, foreign_cores REAL NOT NULL,
    calls_per_sample INTEGER NOT NULL, involuntary_switches INTEGER NOT NULL,
    page_faults INTEGER NOT NULL, cpu_ns INTEGER NOT NULL, probe_ns INTEGER,
    n_samples INTEGER NOT NULL, encoding TEXT NOT NULL,
    start_ns BLOB NOT NULL, duration_ns BLOB NOT NULL, wait_ns BLOB, enqueue_ns BLOB,
    end_to_end_ns BLOB"""

TABLES = f"""
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL, time_ns INTEGER NOT NULL,
    kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fingerprints (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, stable TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS workloads (
    key TEXT PRIMARY KEY, role TEXT NOT NULL, label TEXT NOT NULL, data TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bursts (
    id INTEGER PRIMARY KEY, workload TEXT NOT NULL REFERENCES workloads (key),{_BURST});
CREATE INDEX IF NOT EXISTS bursts_of_workload ON bursts (workload);
CREATE TABLE IF NOT EXISTS reference_bursts (
    id INTEGER PRIMARY KEY, beside TEXT NOT NULL,{_BURST});
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY, workload TEXT NOT NULL REFERENCES workloads (key),
    fingerprint TEXT NOT NULL REFERENCES fingerprints (digest),
    session TEXT NOT NULL, time_ns INTEGER NOT NULL,
    level_s REAL NOT NULL, ci95_lo_s REAL NOT NULL, ci95_hi_s REAL NOT NULL,
    median_s REAL NOT NULL, p90_s REAL NOT NULL, p99_s REAL NOT NULL,
    verdict TEXT NOT NULL, evidence TEXT NOT NULL, plan TEXT NOT NULL, loaded TEXT NOT NULL,
    volatile TEXT NOT NULL, telemetry TEXT NOT NULL, bursts TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS measurements_of_workload ON measurements (workload);
CREATE TABLE IF NOT EXISTS failures (
    id INTEGER PRIMARY KEY, workload TEXT NOT NULL REFERENCES workloads (key),
    session TEXT NOT NULL, time_ns INTEGER NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL,
    message TEXT NOT NULL, attempts INTEGER NOT NULL, retryable INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS accuracies (
    source_digest TEXT NOT NULL, source_name TEXT NOT NULL, arch_id TEXT NOT NULL,
    arch TEXT NOT NULL, accuracy_pct REAL NOT NULL, PRIMARY KEY (source_digest, arch_id))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS imported_networks (
    arch_id TEXT PRIMARY KEY, arch TEXT NOT NULL, latency_s REAL NOT NULL, sd_s REAL,
    count INTEGER, accuracy_pct REAL);
CREATE TABLE IF NOT EXISTS imported_blocks (
    resolution_px INTEGER NOT NULL, unit INTEGER, layer INTEGER, block TEXT NOT NULL,
    latency_s REAL NOT NULL, sd_s REAL, count INTEGER);
"""


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what SQLite and the system say about ``folder`` into one line that helps.

    Raises:
        StoreError: instead of ``sqlite3.DatabaseError`` and ``OSError``.
    """
    try:
        yield
    # UnicodeDecodeError: a text of a damaged database, its schema's included.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StoreError(_meaning(folder, error)) from error
    except OSError as error:
        if is_disk_full(error):
            raise StoreError(_no_space(folder)) from error
        raise StoreError(
            f"cannot use the run folder {str(folder)!r}: {error.strerror or error}; "
            "name a folder that you may write"
        ) from error


def _meaning(folder: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "disk is full" in text:
        return _no_space(folder)
    if "readonly" in text or "unable to open" in text:
        return f"cannot write to the run folder {str(folder)!r}: {text}; name one you may write"
    if "locked" in text or "busy" in text:
        return (
            f"the database of {str(folder)!r} is in use by another process; "
            "wait until that one has ended"
        )
    if "disk I/O error" in text:
        # Also what SQLite says where a full disk leaves no room for the index of its log.
        return (
            f"the system cannot read or write the database of {str(folder)!r} ({text}): see whether "
            "the disk is full or gone, then run the same command again; what was written is kept"
        )
    return damage(folder, text)


def damage(folder: Path, why: str) -> str:
    """Return the line that says that the database of ``folder`` is damaged."""
    return (
        f"the database {str(folder / DATABASE)!r} is damaged: {why}; "
        "restore it from a copy, or measure again into another folder"
    )


def _no_space(folder: Path) -> str:
    return (
        f"no space is left for the run folder {str(folder)!r}; everything up to the last burst "
        "is kept: free some space and run the same command again"
    )


def open_for_writing(folder: Path) -> sqlite3.Connection:
    """Open the database of ``folder`` for writing, making its tables where they are missing.

    Every statement outside an explicit transaction is a transaction of its own. WAL with
    ``synchronous=NORMAL`` survives a killed process without loss; a power cut may cost the
    last transactions, never the database.

    Raises:
        StoreError: the folder is read-only or full, or the database is damaged.
    """
    with explained(folder):
        db = sqlite3.connect(folder / DATABASE, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA foreign_keys=ON")
            _check_schema(folder, db)
            db.executescript(f"BEGIN;{TABLES}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
            _add_columns(db)
        except BaseException:
            db.close()
            raise
        return db


def _add_columns(db: sqlite3.Connection) -> None:
    """Give a run of an earlier version the columns that came later; its rows have none there."""
    known = {row["name"] for row in db.execute("PRAGMA table_info(bursts)")}
    for name in LATER_COLUMNS:
        if name not in known:
            db.execute(f"ALTER TABLE bursts ADD COLUMN {name} BLOB")


@dataclass(frozen=True, kw_only=True)
class Database:
    """A connection, and the temporary copy that it reads where one was needed."""

    db: sqlite3.Connection
    copy: tempfile.TemporaryDirectory[str] | None = None

    def close(self) -> None:
        """Close the connection and remove the copy."""
        self.db.close()
        if self.copy is not None:
            self.copy.cleanup()


def open_for_reading(folder: Path) -> Database:
    """Open the database of ``folder`` read-only, also in a folder that cannot be written.

    SQLite keeps an index of the WAL in a file beside the database and needs to make it. Where
    it may not, a database without WAL content is read as immutable, and one with content (its
    writer was killed) is copied to a temporary folder first.

    Raises:
        StoreError: there is no database, or it is damaged.
    """
    database = folder / DATABASE
    if not database.is_file():
        raise StoreError(
            f"the run folder {str(folder)!r} has no {DATABASE}; "
            "restore it from a copy, or measure again into another folder"
        )
    with explained(folder):
        try:
            return Database(db=_connect_read_only(folder, database, "mode=ro"))
        except sqlite3.OperationalError as error:
            if not _lacks_index(error):
                raise
        wal = folder / f"{DATABASE}-wal"
        if not wal.is_file() or wal.stat().st_size == 0:
            return Database(db=_connect_read_only(folder, database, "mode=ro&immutable=1"))
        copy = tempfile.TemporaryDirectory(prefix="hwprof-")
        for source in (database, wal):
            shutil.copy(source, copy.name)
        copied = Path(copy.name) / DATABASE
        return Database(db=_connect_read_only(folder, copied, "mode=rw"), copy=copy)


def _lacks_index(error: sqlite3.OperationalError) -> bool:
    return any(text in str(error) for text in ("unable to open", "readonly"))


def _connect_read_only(folder: Path, database: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(database.absolute()))}?{options}"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA query_only=ON")
        _check_schema(folder, db)
    except BaseException:
        db.close()
        raise
    return db


def _check_schema(folder: Path, db: sqlite3.Connection) -> None:
    # Reading the version also is the first read of the file: damage shows here.
    version = db.execute("PRAGMA user_version").fetchone()[0]
    n_tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version != SCHEMA_VERSION and n_tables:
        raise FormatVersionError(
            f"{str(folder / DATABASE)!r} has format {version}; this version of hwprof reads "
            f"{SCHEMA_VERSION}: open it with the version that wrote it"
        )


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit all that is written inside, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has already rolled back by itself when the disk is full.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
