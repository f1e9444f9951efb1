"""From the bursts of a workload to its measurement: every derived figure, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwprof.measure.floor import SESSION_SD
from hwprof.measure.host_times import host_times
from hwprof.measure.level import Estimate, estimate, samples_s, used_bursts
from hwprof.measure.records import Fingerprint, LabelledBurst, Loaded, Measurement, MeasurePlan
from hwprof.measure.tails import tail_bounds
from hwprof.measure.verdict import Signs, judge
from hwprof.workload import Workload


def measurement_from(
    workload: Workload,
    plan: MeasurePlan,
    fingerprint: Fingerprint,
    bursts: Sequence[LabelledBurst],
    loaded: Loaded,
    telemetry: Mapping[str, Any],
) -> Measurement:
    """Return the measurement that the bursts support: every derived figure and the verdict.

    ``telemetry`` is kept and completed by what follows from the bursts, so that a measurement
    can be rebuilt from its own telemetry.

    Raises:
        MeasurementError: no burst is left once warm-up is set apart.
    """
    threads = int(fingerprint.stable.get("threads") or 1)
    found = estimate(
        bursts,
        threads,
        sustained=plan.sustained_s > 0,
        session_sd=telemetry.get("session_sd", SESSION_SD),
    )
    used = used_bursts(bursts)
    wall = np.concatenate([samples_s(b.burst) for b in used])
    median, p90, p99 = (float(q) for q in np.quantile(wall, (0.5, 0.9, 0.99)))
    telemetry = {**telemetry, **_derived(found, used)}
    target = plan.target_for(workload)
    verdict, evidence = judge(_signs(found, used, plan, target, telemetry))
    are_calls = all(b.burst.calls_per_sample == 1 for b in used)
    return Measurement(
        workload=workload,
        plan=plan,
        fingerprint=fingerprint,
        bursts=tuple(bursts),
        loaded=loaded,
        level_s=found.level_s,
        ci95_s=found.ci95_s,
        median_s=median,
        p90_s=p90,
        p99_s=p99,
        verdict=verdict,
        evidence=evidence,
        telemetry={**telemetry, **tail_bounds(wall, are_calls=are_calls)},
    )


def _signs(
    found: Estimate,
    used: Sequence[LabelledBurst],
    plan: MeasurePlan,
    target: float,
    telemetry: Mapping[str, Any],
) -> Signs:
    return Signs(
        preset=plan.preset,
        n_workers=len(found.worker_levels_s),
        n_bursts=found.n_bursts,
        n_excluded=found.n_excluded,
        rel_half_width=found.rel_half_width,
        rel_half_width_when_quiet=found.rel_half_width_when_quiet,
        session_sd=found.session_sd,
        sessions_known=telemetry.get("sessions_known"),
        target_rel=target,
        confirmed=found.confirmed,
        is_drifting=found.trend.is_drifting,
        drift=found.trend.drift,
        reference_drift=telemetry.get("reference_drift"),
        throttled_share=_share(used, "throttled"),
        over_quota_share=_share(used, "over_quota"),
        full_clock_share=1.0 - _share(used, "slow_clock"),
        steal_share=telemetry["steal_share"],
        foreign_cores=telemetry["foreign_cores"],
        n_cpus=telemetry.get("n_cpus"),
        shared_device_share=_share(used, "foreign_process"),
        foreign_processes=tuple(telemetry.get("foreign_processes", ())),
        faulted_share=_share(used, "faulted"),
        outside_ops=tuple(telemetry.get("outside_ops", ())),
        smt=telemetry.get("smt"),
        allocator=telemetry.get("allocator"),
        host_warnings=tuple(telemetry.get("warnings", ())),
    )


def _share(bursts: Sequence[LabelledBurst], cause: str) -> float:
    return sum(cause in b.causes for b in bursts) / len(bursts)


def _derived(found: Estimate, used: Sequence[LabelledBurst]) -> dict[str, Any]:
    calls = sum(b.burst.n_samples * b.burst.calls_per_sample for b in used)
    return {
        "beside_ci95_s": list(found.beside_ci95_s),
        "session_sd": found.session_sd,
        "worker_levels_s": dict(found.worker_levels_s),
        "n_bursts": found.n_bursts,
        "n_excluded": found.n_excluded,
        "confirmed": found.confirmed,
        "drift": found.trend.drift,
        "drift_p": found.trend.p,
        "slow_mode_share": found.slow_mode_share,
        "preempted_share": found.preempted_share,
        "steal_share": float(np.mean([b.steal_share for b in used])),
        "foreign_cores": float(np.mean([b.foreign_cores for b in used])),
        "page_faults_per_call": sum(b.burst.page_faults for b in used) / calls,
        "involuntary_switches": sum(b.burst.involuntary_switches for b in used),
        **host_times(used),
    }
