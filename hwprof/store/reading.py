"""The questions that a run folder answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from hwprof.errors import HwprofError, StoreError
from hwprof.measure.records import Failure, Fingerprint, LabelledBurst, Measurement
from hwprof.results import Sample
from hwprof.space import Architecture
from hwprof.store import rows
from hwprof.store.blobs import burst_from_row
from hwprof.store.records import ImportedBlock, ImportedNetwork
from hwprof.store.schema import damage, explained, open_for_reading

if TYPE_CHECKING:
    import sqlite3

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def _rebuilt(
    answer: Callable[Concatenate[Reading, Asked], Answer],
) -> Callable[Concatenate[Reading, Asked], Answer]:
    """Make one line of whatever comes of rows that no version has written: SQLite checks none.

    Raises:
        StoreError: instead of what rebuilding a damaged row raises.
    """

    @functools.wraps(answer)
    def told(self: Reading, /, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        try:
            return answer(self, *args, **kwargs)
        except HwprofError:
            raise
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            why = f"a row cannot be read ({type(error).__name__}: {error})"
            raise StoreError(damage(self.path, why)) from error

    return told


class Reading:
    """Everything that can be asked of an open run; a :class:`hwprof.store.Run` is one."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db
        self._closed = False

    @property
    @_rebuilt
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """The stable facts of every device that the run's numbers are from (one, as a rule)."""
        found = self._read("SELECT stable FROM fingerprints ORDER BY id")
        return tuple(Fingerprint(stable=json.loads(row["stable"])) for row in found)

    @property
    def fingerprint(self) -> Fingerprint:
        """The device's stable facts.

        Raises:
            StoreError: nothing has been measured yet.
        """
        found = self.fingerprints
        if not found:
            raise StoreError(
                f"{str(self.path)!r} holds no measurement yet; "
                "run the command that made it again to go on"
            )
        return found[0]

    @_rebuilt
    def measurements(self) -> list[Measurement]:
        """Return the newest measurement of every workload, in the order of their completion.

        Their raw bursts are read when they are first looked at.
        """
        found = self._read(
            "SELECT m.*, w.data AS workload_data, f.stable FROM measurements m"
            " JOIN workloads w ON w.key = m.workload"
            " JOIN fingerprints f ON f.digest = m.fingerprint"
            " WHERE m.id IN (SELECT max(id) FROM measurements GROUP BY workload) ORDER BY m.id"
        )
        return [rows.measurement_from_row(row, self._bursts_of) for row in found]

    @_rebuilt
    def failures(self) -> list[Failure]:
        """Return the newest failure of every workload that has no measurement."""
        found = self._read(
            "SELECT f.*, w.data AS workload_data FROM failures f"
            " JOIN workloads w ON w.key = f.workload"
            " WHERE f.id IN (SELECT max(id) FROM failures GROUP BY workload)"
            " AND f.workload NOT IN (SELECT workload FROM measurements) ORDER BY f.id"
        )
        return [rows.failure_from_row(row) for row in found]

    def measured_keys(self) -> set[str]:
        """Return the keys of the workloads that have a measurement."""
        return {row["workload"] for row in self._read("SELECT workload FROM measurements")}

    def finished_keys(self) -> set[str]:
        """Return the keys of the workloads that need not be tried again."""
        hopeless = {f.workload.key for f in self.failures() if not f.retryable}
        return self.measured_keys() | hopeless

    @_rebuilt
    def partial_bursts(self) -> dict[str, list[LabelledBurst]]:
        """Return the bursts of every workload that is not finished, by the workload's key."""
        found = self._read(
            "SELECT * FROM bursts WHERE workload NOT IN (SELECT workload FROM measurements)"
            " ORDER BY id"
        )
        partial: dict[str, list[LabelledBurst]] = {}
        for row in found:
            partial.setdefault(row["workload"], []).append(burst_from_row(row))
        return partial

    @_rebuilt
    def reference_bursts(self) -> list[tuple[str, LabelledBurst]]:
        """Return the reference block's bursts beside workloads that are not finished.

        With each the key of one workload of the group that it was timed beside. The run must be
        open for writing: one of an earlier version gets the table then.
        """
        unfinished = "NOT IN (SELECT workload FROM measurements)"
        found = self._read(
            f"SELECT * FROM reference_bursts WHERE beside {unfinished}"
            " OR (session, worker) IN"
            f" (SELECT session, worker FROM bursts WHERE workload {unfinished})"
            " ORDER BY id"
        )
        return [(row["beside"], burst_from_row(row)) for row in found]

    @_rebuilt
    def workers(self) -> set[str]:
        """Return the labels of the workers behind the measurements, which no later one may bear."""
        found = self._read("SELECT telemetry FROM measurements")
        told = (json.loads(row["telemetry"]) for row in found)
        return {label for t in told for label in t.get("worker_levels_s", ())}

    def accuracies(self, source_digest: str) -> dict[str, float | None]:
        """Return what a source said before: accuracy in percent by ``arch_id``."""
        found = self._read(
            "SELECT arch_id, accuracy_pct FROM accuracies WHERE source_digest = ?",
            (source_digest,),
        )
        return {row["arch_id"]: row["accuracy_pct"] for row in found}

    @_rebuilt
    def imported_networks(self) -> list[ImportedNetwork]:
        """Return the imported networks in the order of their table."""
        found = self._read("SELECT * FROM imported_networks ORDER BY rowid")
        return [
            ImportedNetwork(
                arch=Architecture.from_json(json.loads(row["arch"])),
                latency_s=row["latency_s"],
                sd_s=row["sd_s"],
                count=row["count"],
                accuracy_pct=row["accuracy_pct"],
            )
            for row in found
        ]

    @_rebuilt
    def imported_blocks(self, resolution_px: int | None = None) -> list[ImportedBlock]:
        """Return the imported blocks, of one input size or of all."""
        found = self._read(
            "SELECT * FROM imported_blocks WHERE ?1 IS NULL OR resolution_px = ?1 ORDER BY rowid",
            (resolution_px,),
        )
        return [ImportedBlock(**dict(row)) for row in found]

    def has_imports(self) -> bool:
        """Whether someone else's measurements are in the run."""
        sql = "SELECT EXISTS (SELECT 1 FROM imported_{}) AS any_row"
        return any(self._read(sql.format(t))[0]["any_row"] for t in ("networks", "blocks"))

    @_rebuilt
    def networks(self) -> list[Sample]:
        """Return every network that was measured here or imported, as estimators see it."""
        measured = self._read(
            "SELECT w.data AS workload_data, m.level_s, m.ci95_lo_s, m.ci95_hi_s,"
            " m.telemetry, m.loaded"
            " FROM measurements m JOIN workloads w ON w.key = m.workload"
            " WHERE w.role = 'network'"
            " AND m.id IN (SELECT max(id) FROM measurements GROUP BY workload) ORDER BY m.id"
        )
        # The last of each kind knows most.
        known = {rows.is_large(row): rows.session_sd_from_row(row) for row in measured}
        samples = [rows.sample_from_row(row, known[rows.is_large(row)]) for row in measured]
        samples += [
            Sample(
                arch=n.arch,
                latency_s=n.latency_s,
                latency_se_s=n.se_s,
                accuracy_pct=n.accuracy_pct,
            )
            for n in self.imported_networks()
        ]
        return samples

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        if self._closed:
            raise StoreError(f"the run {str(self.path)!r} is closed; open it again to read it")
        with explained(self.path):
            return self._db.execute(sql, tuple(values)).fetchall()

    @_rebuilt
    def _bursts_of(self, labels: rows.Labels) -> tuple[LabelledBurst, ...]:
        marks = ",".join("?" * len(labels))
        sql = f"SELECT * FROM bursts WHERE id IN ({marks})"
        ids = [row_id for row_id, _ in labels]
        if not self._closed:
            found = self._read(sql, ids)
        else:
            # Measurements outlive the run they were read from; their samples must stay in reach.
            reader = open_for_reading(self.path)
            try:
                with explained(self.path):
                    found = reader.db.execute(sql, ids).fetchall()
            finally:
                reader.close()
        by_id = {row["id"]: row for row in found}
        return tuple(burst_from_row(by_id[row_id], causes) for row_id, causes in labels)
