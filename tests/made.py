"""Measurements of a level that the test chooses."""

from __future__ import annotations

from collections.abc import Sequence

from hwprof.measure.records import (
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.workload import Workload


def measurement(
    workload: Workload,
    level_s: float,
    ci95_s: tuple[float, float],
    *,
    plan: MeasurePlan | None = None,
    fingerprint: Fingerprint | None = None,
    bursts: Sequence[LabelledBurst] = (),
) -> Measurement:
    return Measurement(
        workload=workload,
        plan=plan or plan_for("quick"),
        fingerprint=fingerprint or Fingerprint(stable={"device": "cpu"}),
        bursts=tuple(bursts),
        loaded=Loaded(load_s=0.1, artifact_bytes=1, peak_memory_bytes=None),
        level_s=level_s,
        ci95_s=ci95_s,
        median_s=level_s,
        p90_s=level_s,
        p99_s=level_s,
        verdict="clean",
        evidence=(),
    )
