"""Workloads, a scripted device, and what the engine makes of them, kept in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hwprof.measure import engine
from hwprof.measure.records import (
    DeviceOptions,
    DeviceRef,
    Failure,
    Fingerprint,
    LabelledBurst,
    Measurement,
    MeasurePlan,
    Result,
    plan_for,
)
from hwprof.measure.session_spread import SessionLevel
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

PLAN = plan_for("quick", workers=2, looks=(3,), timeout_s=20.0)


class MemorySink:
    """Keeps everything in memory."""

    def __init__(self) -> None:
        self.fingerprints: list[Fingerprint] = []
        self.bursts: dict[str, list[LabelledBurst]] = {}
        self.references: list[tuple[str, LabelledBurst]] = []
        self.measurements: list[Measurement] = []
        self.failures: list[Failure] = []

    def opened(self, fingerprint: Fingerprint) -> None:
        self.fingerprints.append(fingerprint)

    def burst(self, workload: Workload, burst: LabelledBurst) -> None:
        self.bursts.setdefault(workload.key, []).append(burst)

    def reference(self, beside: Workload, burst: LabelledBurst) -> None:
        self.references.append((beside.key, burst))

    def done(self, measurement: Measurement) -> None:
        self.measurements.append(measurement)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)


class MemoryHistory:
    """What is known of sessions, in memory."""

    def __init__(self, known: Sequence[SessionLevel] = ()) -> None:
        self.kept = list(known)

    def known(self, fingerprint: Fingerprint) -> Sequence[SessionLevel]:
        return tuple(self.kept)

    def add(self, fingerprint: Fingerprint, session: SessionLevel) -> None:
        self.kept.append(session)


def block(label: str, width: int = 8) -> Workload:
    return Workload.block(SkipPiece(in_channels=width, size_px=8), label)


def null(threads: int = 1, **script: Any) -> DeviceRef:
    options = DeviceOptions(threads=threads, script=json.dumps(script))
    return DeviceRef(name="null", factory="hwprof.devices.null:NullAdapter", options=options)


def run(
    workloads: list[Workload], ref: DeviceRef, plan: MeasurePlan = PLAN, **more: Any
) -> dict[str, Result]:
    return {r.workload.label: r for r in engine.measure(workloads, ref, plan, **more)}


def measured(result: Result) -> Measurement:
    assert isinstance(result, Measurement), result
    return result
