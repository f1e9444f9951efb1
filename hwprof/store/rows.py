"""Records as database rows and back."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import overload

from hwprof.interval import NORMAL_975
from hwprof.measure.floor import SESSION_SD, interval_s
from hwprof.measure.records import (
    Failure,
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
    MeasurePlan,
)
from hwprof.measure.session_spread import LARGE_BYTES, session_name
from hwprof.results import Sample
from hwprof.store.blobs import BURST_COLUMNS, burst_row, decode
from hwprof.store.records import ImportedBlock, ImportedNetwork
from hwprof.workload import Workload

Labels = Sequence[tuple[int, tuple[str, ...]]]
"""Row of every burst behind a measurement, with the causes that were known at its end."""

ReadBursts = Callable[[Labels], tuple[LabelledBurst, ...]]

INSERT_BURST = (
    f"INSERT INTO bursts (workload, session, {', '.join(BURST_COLUMNS)})"
    f" VALUES (?, ?, {', '.join('?' * len(BURST_COLUMNS))})"
)
INSERT_REFERENCE = (
    f"INSERT INTO reference_bursts (beside, session, {', '.join(BURST_COLUMNS)})"
    f" VALUES (?, ?, {', '.join('?' * len(BURST_COLUMNS))})"
)
SELECT_STARTS = (
    "SELECT id, worker, round_index, encoding, n_samples, start_ns FROM bursts"
    " WHERE workload = ? ORDER BY id"
)
INSERT_MEASUREMENT = (
    "INSERT INTO measurements (workload, fingerprint, session, time_ns, level_s, ci95_lo_s,"
    " ci95_hi_s, median_s, p90_s, p99_s, verdict, evidence, plan, loaded, volatile, telemetry,"
    f" bursts) VALUES ({', '.join('?' * 17)})"
)


class StoredBursts(Sequence[LabelledBurst]):
    """The bursts behind a measurement, read when they are first looked at."""

    def __init__(self, labels: Labels, read: ReadBursts) -> None:
        self._labels = labels
        self._read = read
        self._bursts: tuple[LabelledBurst, ...] | None = None

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> LabelledBurst: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LabelledBurst, ...]: ...
    def __getitem__(self, index: int | slice) -> LabelledBurst | tuple[LabelledBurst, ...]:
        if self._bursts is None:
            self._bursts = self._read(self._labels)
        return self._bursts[index]


def insert_workload(db: sqlite3.Connection, workload: Workload) -> None:
    """Keep what is measured, once."""
    data = workload.to_json()
    db.execute(
        "INSERT OR IGNORE INTO workloads VALUES (?, ?, ?, ?)",
        (workload.key, workload.role, workload.label, json.dumps(data)),
    )


def insert_burst(db: sqlite3.Connection, key: str, session: str, burst: LabelledBurst) -> int:
    """Keep a burst of the workload ``key``; return its row."""
    cursor = db.execute(INSERT_BURST, (key, session, *burst_row(burst)))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_reference(db: sqlite3.Connection, key: str, session: str, burst: LabelledBurst) -> None:
    """Keep a burst of the reference block, taken beside the workload ``key`` and its group."""
    db.execute(INSERT_REFERENCE, (key, session, *burst_row(burst)))


def label_bursts(db: sqlite3.Connection, session: str, measurement: Measurement) -> Labels:
    """Return the rows of a measurement's bursts, keeping those that are not yet kept.

    A burst's causes may change after it was kept (a slow clock shows against later bursts),
    so the final ones go with the measurement.
    """
    key = measurement.workload.key
    kept: dict[tuple[object, ...], list[int]] = {}
    for row in db.execute(SELECT_STARTS, (key,)):
        start_ns = decode(row["start_ns"], row["encoding"], row["n_samples"])
        identity = row["worker"], row["round_index"], start_ns.tobytes()
        kept.setdefault(identity, []).append(row["id"])
    labels = []
    for burst in measurement.bursts:
        # When its calls began tells one burst of a worker from every other.
        same = kept.get((burst.worker, burst.round_index, burst.burst.start_ns.tobytes()))
        row_id = same.pop(0) if same else insert_burst(db, key, session, burst)
        labels.append((row_id, burst.causes))
    return labels


def insert_measurement(
    db: sqlite3.Connection, session: str, measurement: Measurement, labels: Labels
) -> None:
    """Keep the derived figures of a measurement beside the rows of its bursts."""
    low, high = measurement.ci95_s
    db.execute(
        INSERT_MEASUREMENT,
        (
            measurement.workload.key,
            measurement.fingerprint.digest,
            session,
            time.time_ns(),
            float(measurement.level_s),
            float(low),
            float(high),
            float(measurement.median_s),
            float(measurement.p90_s),
            float(measurement.p99_s),
            measurement.verdict,
            json.dumps(list(measurement.evidence)),
            json.dumps(asdict(measurement.plan)),
            json.dumps(asdict(measurement.loaded)),
            json.dumps(dict(measurement.fingerprint.volatile)),
            json.dumps(dict(measurement.telemetry)),
            json.dumps([[row_id, list(causes)] for row_id, causes in labels]),
        ),
    )


def insert_failure(db: sqlite3.Connection, session: str, failure: Failure) -> None:
    """Keep why a workload has no number."""
    db.execute(
        "INSERT INTO failures (workload, session, time_ns, stage, kind, message, attempts,"
        " retryable) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            failure.workload.key,
            session,
            time.time_ns(),
            failure.stage,
            failure.kind,
            failure.message,
            failure.attempts,
            failure.retryable,
        ),
    )


def insert_imported(
    db: sqlite3.Connection, networks: Iterable[ImportedNetwork], blocks: Iterable[ImportedBlock]
) -> None:
    """Keep someone else's measurements."""
    db.executemany(
        "INSERT INTO imported_networks VALUES (?, ?, ?, ?, ?, ?)",
        (
            (n.arch.arch_id, n.arch.canonical_json(), n.latency_s, n.sd_s, n.count, n.accuracy_pct)
            for n in networks
        ),
    )
    db.executemany(
        "INSERT INTO imported_blocks VALUES (:resolution_px, :unit, :layer, :block, :latency_s,"
        " :sd_s, :count)",
        (asdict(b) for b in blocks),
    )


def measurement_from_row(row: sqlite3.Row, read: ReadBursts) -> Measurement:
    """Rebuild a measurement; ``read`` fetches its bursts when they are wanted."""
    labels = [(row_id, tuple(causes)) for row_id, causes in json.loads(row["bursts"])]
    _check_level(row)
    return Measurement(
        workload=_workload(row),
        plan=MeasurePlan.from_json(json.loads(row["plan"])),
        fingerprint=Fingerprint(
            stable=json.loads(row["stable"]), volatile=json.loads(row["volatile"])
        ),
        bursts=StoredBursts(labels, read),
        loaded=Loaded.from_json(json.loads(row["loaded"])),
        level_s=row["level_s"],
        ci95_s=(row["ci95_lo_s"], row["ci95_hi_s"]),
        median_s=row["median_s"],
        p90_s=row["p90_s"],
        p99_s=row["p99_s"],
        verdict=row["verdict"],
        evidence=tuple(json.loads(row["evidence"])),
        telemetry=json.loads(row["telemetry"]),
    )


def failure_from_row(row: sqlite3.Row) -> Failure:
    """Rebuild a failure."""
    return Failure(
        workload=_workload(row),
        stage=row["stage"],
        kind=row["kind"],
        message=row["message"],
        attempts=row["attempts"],
        retryable=bool(row["retryable"]),
    )


def sample_from_row(row: sqlite3.Row, session_sd: float) -> Sample:
    """Return a measured network; its 95 % interval is taken as 1.96 standard errors each way.

    Args:
        row: of a measurement.
        session_sd: what sessions differ by as far as is known by now. When a network was
            measured less was known than when the last one was: that makes it no better.
    """
    arch, level_s = _workload(row).arch, row["level_s"]
    assert arch is not None
    _check_level(row)
    low, high = row["ci95_lo_s"], row["ci95_hi_s"]
    telemetry = json.loads(row["telemetry"])
    if beside := telemetry.get("beside_ci95_s"):
        within = 0.5 * math.log(beside[1] / beside[0])
        low, high = interval_s(level_s, within, session_sd)
    return Sample(
        arch=arch,
        latency_s=level_s,
        latency_se_s=0.5 * (high - low) / NORMAL_975,
        session_sd=session_sd,
        session=session_name(telemetry),
    )


def _check_level(row: sqlite3.Row) -> None:
    """Refuse a level outside its own interval, which no measurement has."""
    low, level, high = row["ci95_lo_s"], row["level_s"], row["ci95_hi_s"]
    if not 0.0 <= low <= level <= high or level == 0.0:
        raise ValueError(f"a level of {level} s in an interval from {low} to {high} s")


def session_sd_from_row(row: sqlite3.Row) -> float:
    """Return what sessions differed by as far as was known when a measurement was made."""
    return float(json.loads(row["telemetry"]).get("session_sd", SESSION_SD))


def is_large(row: sqlite3.Row) -> bool:
    """Say whether a measured model is of those that sessions move as they do networks."""
    return int(json.loads(row["loaded"])["artifact_bytes"]) >= LARGE_BYTES


def _workload(row: sqlite3.Row) -> Workload:
    return Workload.from_json(json.loads(row["workload_data"]))
