"""A run folder, opened: the sink of the measuring engine and the source of every analysis."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from filelock import FileLock, Timeout

from hwprof.errors import IncompatibleRunError, StoreError
from hwprof.measure.records import Failure, Fingerprint, LabelledBurst, Measurement
from hwprof.space import Architecture
from hwprof.store import rows
from hwprof.store.folder import RUN_FILE, RunFile
from hwprof.store.reading import Reading
from hwprof.store.records import ImportedBlock, ImportedNetwork
from hwprof.store.schema import (
    DATABASE,
    Database,
    explained,
    open_for_reading,
    open_for_writing,
    transaction,
)
from hwprof.workload import Workload

if TYPE_CHECKING:
    import sqlite3

LOCK = "run.lock"


class Run(Reading):
    """A run folder.

    Make one with :meth:`create`, :meth:`open` (read-only) or :meth:`create_or_resume`, and
    close it, best by ``with``. A writer holds the folder's lock, so that no two processes
    write one run; readers need none. Every burst is committed when it arrives: a process that
    is killed loses the burst under way and nothing else.
    """

    def __init__(
        self,
        path: Path,
        description: RunFile,
        database: Database,
        lock: FileLock | None,
    ) -> None:
        super().__init__(path, database.db)
        self._database, self._description, self._lock = database, description, lock
        self._session = uuid.uuid4().hex[:12]
        # Absolute: who measures may change the working directory meanwhile.
        self._file = (path / DATABASE).absolute()
        self._side_db: sqlite3.Connection | None = None
        self._known: set[str] = set()
        """Keys of workloads that this process has kept."""

    # ------------------------------------------------------------------ open and close

    @classmethod
    def create(cls, path: str | Path, kind: str, request: Mapping[str, Any]) -> Self:
        """Make a run folder (and its parents) for ``request``, which is plain data.

        Raises:
            StoreError: the folder already holds a run, cannot be written, or is in use.
        """
        folder = Path(path)
        if (folder / RUN_FILE).exists():
            raise StoreError(f"{str(folder)!r} already holds a run; name another --out")
        return cls.create_or_resume(folder, kind, request)

    @classmethod
    def create_or_resume(cls, path: str | Path, kind: str, request: Mapping[str, Any]) -> Self:
        """Make a run folder, or go on with the one that is there.

        Raises:
            IncompatibleRunError: the folder holds something else than ``request`` asks for;
                counts may grow.
            StoreError: it cannot be written, is in use by another process, or is damaged.
        """
        folder = Path(path)
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        try:
            if (folder / RUN_FILE).exists():
                before = RunFile.read(folder)
                description = before.grown(folder, kind, request)
            else:
                before, description = None, RunFile.new(kind, request)
            db = open_for_writing(folder)
            try:
                # Last, so that a folder with a run.json always has its database.
                if description != before:
                    description.write(folder)
                run = cls(folder, description, Database(db=db), lock)
                run._event("opened", {"pid": os.getpid(), "host": platform.node()})
            except BaseException:
                db.close()
                raise
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder for reading, also while it is being written or write-protected.

        Raises:
            StoreError: it is no run folder, or it is damaged.
            FormatVersionError: another version of hwprof wrote it.
        """
        folder = Path(path)
        return cls(folder, RunFile.read(folder), open_for_reading(folder), None)

    def close(self) -> None:
        """Close the run; twice does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._lock is not None:
                self._event("closed", {})
        finally:
            self._database.close()
            if self._side_db is not None:
                self._side_db.close()
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ what was asked

    @property
    def kind(self) -> str:
        """Which command made it, as a rule by its name: ``profile``, ``import``, ``adapt``."""
        return self._description.kind

    @property
    def request(self) -> Mapping[str, Any]:
        """What was asked, as plain data."""
        return self._description.request

    @property
    def writable(self) -> bool:
        """Whether something may be added: accuracies also by a reader."""
        if self._lock is not None:
            return True
        return os.access(self.path, os.W_OK) and os.access(self.path / DATABASE, os.W_OK)

    # ------------------------------------------------------------------ the sink

    def opened(self, fingerprint: Fingerprint) -> None:
        """Record the fingerprint of the run's device, or refuse another device.

        Raises:
            IncompatibleRunError: a stable fact (hardware, runtime, its version, threads …)
                differs from what the run was measured with; it names each with both values.
        """
        known = self.fingerprints
        if not known:
            with self._writing() as db:
                db.execute(
                    "INSERT INTO fingerprints (digest, stable) VALUES (?, ?)",
                    (fingerprint.digest, json.dumps(dict(fingerprint.stable), sort_keys=True)),
                )
        elif fingerprint.digest not in {f.digest for f in known}:
            what = "; ".join(
                f"{name} {old!r}, not {new!r}"
                for name, (old, new) in known[0].differences(fingerprint).items()
            )
            raise IncompatibleRunError(
                f"{str(self.path)!r} was measured with {what}: "
                "go on where it was begun, or name another --out"
            )

    def burst(self, workload: Workload, burst: LabelledBurst) -> None:
        """Keep one burst; it is safe when this returns."""
        self._know(workload)
        db = self._writable_db()
        with explained(self.path):  # a statement alone is a transaction of its own
            rows.insert_burst(db, workload.key, self._session, burst)

    def reference(self, beside: Workload, burst: LabelledBurst) -> None:
        """Keep one burst of the reference block."""
        db = self._writable_db()
        with explained(self.path):
            rows.insert_reference(db, beside.key, self._session, burst)

    def done(self, measurement: Measurement) -> None:
        """Keep a finished measurement, and of its bursts those that are not yet kept.

        Raises:
            IncompatibleRunError: it is from another device than the run's.
        """
        self.opened(measurement.fingerprint)
        self._know(measurement.workload)
        with self._writing() as db:
            labels = rows.label_bursts(db, self._session, measurement)
            rows.insert_measurement(db, self._session, measurement, labels)

    def failed(self, failure: Failure) -> None:
        """Keep a failure."""
        self._know(failure.workload)
        with self._writing() as db:
            rows.insert_failure(db, self._session, failure)

    def put_accuracy(
        self, source_digest: str, source_name: str, arch: Architecture, accuracy_pct: float
    ) -> None:
        """Keep what a source says of a network (top-1 in percent), also into a run being read."""
        row = (source_digest, source_name, arch.arch_id, arch.canonical_json(), accuracy_pct)
        db = self._cache_db()
        with explained(self.path), transaction(db):
            db.execute("INSERT OR IGNORE INTO accuracies VALUES (?, ?, ?, ?, ?)", row)

    def put_imported(
        self, networks: Iterable[ImportedNetwork] = (), blocks: Iterable[ImportedBlock] = ()
    ) -> None:
        """Keep someone else's measurements, all or none of them."""
        with self._writing() as db:
            rows.insert_imported(db, networks, blocks)

    # ------------------------------------------------------------------ plumbing

    def _know(self, workload: Workload) -> None:
        """Keep what is measured, once: a workload gets many bursts."""
        if workload.key not in self._known:
            with self._writing() as db:
                rows.insert_workload(db, workload)
            self._known.add(workload.key)

    def _writable_db(self) -> sqlite3.Connection:
        if self._lock is None:
            raise StoreError(
                f"the run {str(self.path)!r} is open for reading; "
                "Run.create_or_resume opens it for writing"
            )
        if not self._file.exists():
            # SQLite would go on, into a file that has no name any more.
            raise StoreError(
                f"the run folder {str(self.path)!r} was moved or removed while it was written to: "
                "move it back and run the same command again"
            )
        return self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        db = self._writable_db()
        with explained(self.path), transaction(db):
            yield db

    def _cache_db(self) -> sqlite3.Connection:
        """Return a connection that may write accuracies, which needs no lock of the run."""
        if self._lock is not None:
            return self._db
        if self._side_db is None:
            self._side_db = open_for_writing(self.path)
        return self._side_db

    def _event(self, kind: str, data: Mapping[str, Any]) -> None:
        with self._writing() as db:
            db.execute(
                "INSERT INTO events (session, time_ns, kind, data) VALUES (?, ?, ?, ?)",
                (self._session, time.time_ns(), kind, json.dumps(dict(data))),
            )


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / LOCK)
    with explained(folder):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"another process is writing to the run folder {str(folder)!r}; "
                "wait until it has ended, or name another --out"
            ) from error
    return lock
