"""The records of measuring: plans, bursts, measurements, failures, fingerprints.

Latency is per call, in float seconds, inside the program; raw samples are integer
nanoseconds. Raw data is kept and statistics are derived (:mod:`hwprof.measure.level`).
A failure is a state with a reason, never a number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from hwprof.errors import PlanError
from hwprof.measure.kinds import FailureKind
from hwprof.workload import Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOL_VERSION = 3
"""Changes whenever a number measured before could differ from one measured now."""

Cache = Literal["hot", "cold"]
Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "int8-dynamic"]
"""``tf32``: fp32 in memory, multiplied in TensorFloat-32 (NVIDIA GPUs). ``int8``: weights and activations, calibrated; ``int8-dynamic``: activations as they come."""
Stage = Literal["supports", "start", "compile", "check", "warmup", "burst", "link"]


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """The axes of every adapter; part of the key. Inert data: nothing is opened by making it.

    ``script`` steers the ``null`` adapter only (see :mod:`hwprof.devices.null`).
    """

    threads: int = 1
    batch: int = 1
    precision: Precision = "fp32"
    script: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceRef:
    """How a worker process opens an adapter: its registered name, its class, its options."""

    name: str
    factory: str
    """``package.module:Class``, called with one :class:`DeviceOptions`."""
    options: DeviceOptions = DeviceOptions()
    launcher: str | None = None
    """``package.module:callable``: of this record it makes what starts workers elsewhere."""
    address: str | None = None
    """Where the device is, e.g. ``ssh://pi@192.168.1.20:22``; None for this host."""
    memory: str | None = None
    """``package.module:function`` that tells the free bytes of the device's own memory, if any."""
    check: str = ""
    """``package.module:function`` that says, before workers start, what it lacks here, if anything."""
    refuses: str = ""
    """The same of a workload and the options: why they are not taken, as far as they alone tell."""


@dataclass(frozen=True, kw_only=True)
class MeasurePlan:
    """How long and how often something is timed (methods: measurement protocol, presets).

    ``looks`` are the only round counts at which stopping is considered, so that the interval
    keeps its meaning; measuring ends early where the interval's half-width is at most
    ``target_rel`` and the floor is confirmed. Of several ``sessions`` each has fresh workers and
    begins at least ``session_gap_s`` after the one before ended; only the last may end early.
    """

    preset: str
    workers: int
    looks: tuple[int, ...]
    burst_s: float
    sessions: int = 1
    session_gap_s: float = 30.0
    """A slow mode of a shared machine lasts seconds: this is beyond it."""
    round_s: float = 0.0
    """Shortest time from the start of one round to the next, of what a host times and no sustained
    load warms. A single workload's rounds would else all fall into one slow mode of the machine."""
    min_calls: int = 5
    warmup_calls: int = 3
    warmup_s: float = 0.05
    target_rel: float | None = None
    """Relative half-width asked for; None takes 1 % for blocks and 2 % for networks."""
    cache: Cache = "hot"
    timeout_s: float = 120.0
    """Longest any single request to a worker may take before the watchdog ends it."""
    seed: int = 0
    sustained_s: float = 0.0
    """Seconds of load before anything is timed, and no cooling down between bursts: what a device
    on another machine keeps up, instead of what it can do for a moment."""
    protocol: int = PROTOCOL_VERSION

    def looks_in(self, session: int) -> tuple[int, ...]:
        """Return the looks of a session (from 0), in rounds since the first one began."""
        before = session * self.looks[-1]
        is_last = session == self.sessions - 1
        return tuple(before + look for look in (self.looks if is_last else self.looks[-1:]))

    @property
    def most_bursts(self) -> int:
        """Bursts of a workload that never settles."""
        return self.sessions * self.looks[-1] * self.workers

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the plan itself makes of its results, to be said beside each."""
        if not self.sustained_s:
            return ()
        what = f"sustained: after {self.sustained_s:g} s of load, not cooled between bursts"
        return (f"{what}: compare it with sustained results only",)

    def target_for(self, workload: Workload) -> float:
        """Return the relative half-width asked for ``workload``."""
        if self.target_rel is not None:
            return self.target_rel
        return 0.01 if workload.role == "block" else 0.02

    def key_fields(self) -> dict[str, Any]:
        """What must be equal for two results to be compared (seed and timeouts need not)."""
        data = asdict(self)
        del data["seed"], data["timeout_s"]
        if not self.sustained_s:  # so that what was measured before it existed keeps its key
            del data["sustained_s"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a plan from what ``asdict`` made of it."""
        return cls(**{**data, "looks": tuple(data["looks"])})


PRESETS: Mapping[str, MeasurePlan] = {
    "quick": MeasurePlan(
        preset="quick", workers=3, looks=(8,), burst_s=0.025, round_s=0.5, target_rel=0.02
    ),
    "standard": MeasurePlan(
        preset="standard", workers=5, looks=(16, 24, 32), burst_s=0.025, round_s=0.5
    ),
    "strict": MeasurePlan(
        preset="strict", workers=5, looks=(32,), burst_s=0.025, round_s=0.5, sessions=2
    ),
}


def differing(
    mine: Mapping[str, object], theirs: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Return the facts in which two descriptions differ: name → (mine, theirs)."""
    return {
        name: (mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    }


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Facts about device and runtime: the stable ones identify it, the volatile ones explain.

    ``stable`` holds at least ``device``, ``hardware``, ``runtime``, ``runtime_version``,
    ``threads``, ``batch`` and ``precision``.
    """

    stable: Mapping[str, str | int | float | bool | None]
    volatile: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over the stable facts."""
        text = json.dumps(dict(self.stable), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_scripted(self) -> bool:
        """Whether the device follows a script, so that the host's time means nothing to it."""
        return self.stable.get("hardware") == "scripted"

    def differences(self, other: Fingerprint) -> dict[str, tuple[object, object]]:
        """Return the stable facts in which the two differ: name → (here, there)."""
        return differing(self.stable, other.stable)

    def to_json(self) -> dict[str, Any]:
        """Return the fingerprint as plain data."""
        return {
            "digest": self.digest,
            "stable": dict(self.stable),
            "volatile": dict(self.volatile),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fingerprint:
        """Read a fingerprint from plain data."""
        return cls(stable=dict(data["stable"]), volatile=dict(data["volatile"]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Burst:
    """Back-to-back calls, timed next to the device.

    Arrays are ``int64[n]`` nanoseconds, one entry a sample; a sample is ``calls_per_sample``
    calls (more than one only where a call is too short for a clock pair). ``wait_ns`` is the
    time the thread stood in the run queue during the sample, None where the system does not
    tell.
    """

    start_ns: NDArray[np.int64]
    duration_ns: NDArray[np.int64]
    wait_ns: NDArray[np.int64] | None
    calls_per_sample: int = 1
    involuntary_switches: int = 0
    page_faults: int = 0
    cpu_ns: int = 0
    """CPU time of the whole worker process during the burst."""
    probe_ns: int | None = None
    """Duration of the clock probe (fixed SHA-256 work; on a GPU fixed SM cycles) run right before
    the burst."""
    enqueue_ns: NDArray[np.int64] | None = None
    """Where the samples are a GPU's own time: what the host took to hand one call over, timed
    beside every sample. None where the host's clock times the samples."""
    end_to_end_ns: NDArray[np.int64] | None = None
    """The same call until the host knew that it was done."""

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return int(self.duration_ns.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledBurst:
    """A burst with its place in the campaign and what disturbed it.

    ``causes`` may hold ``first`` (warm-up), ``preempted``, ``faulted``, ``slow_clock``,
    ``stolen``, ``foreign_load``, ``foreign_process`` (another on the device), ``throttled``,
    ``over_quota`` (a control group's), ``superseded`` (timed again). Nothing is deleted for its
    value; bursts whose cause is in :data:`EXCLUDING_CAUSES` are kept but leave the level.
    """

    burst: Burst
    worker: str
    round_index: int
    causes: tuple[str, ...] = ()
    steal_share: float = 0.0
    """Share of all CPU time the hypervisor gave to others during the burst."""
    foreign_cores: float = 0.0
    """Cores kept busy by other processes during the burst."""


EXCLUDING_CAUSES = frozenset({"stolen", "throttled", "superseded"})

Verdict = Literal["clean", "noisy", "unconfirmed", "drifting", "contaminated", "throttled"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From best to most serious; a measurement carries the most serious that applies."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What became known while a workload was compiled and loaded in one worker."""

    load_s: float
    artifact_bytes: int
    peak_memory_bytes: int | None
    """At its highest while the workload was loaded and run: the device's own where it has some, else
    resident memory without what other workloads hold (:mod:`hwprof.measure.memory`), or None."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read it from what ``asdict`` made of it."""
        return cls(**{**data, "warnings": tuple(data["warnings"])})


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """A workload's latency on a device: raw bursts, and what is said about them.

    Statistics (``level_s``, ``ci95_s`` …) are computed once by :mod:`hwprof.measure.level`
    from ``bursts`` and are recomputable from them.
    """

    workload: Workload
    plan: MeasurePlan
    fingerprint: Fingerprint
    bursts: Sequence[LabelledBurst]
    """A tuple, or, out of a run folder, a sequence that is read when it is first used."""
    loaded: Loaded
    level_s: float
    """The latency that repeats best: that of a call which nothing disturbs."""
    ci95_s: tuple[float, float]
    median_s: float
    p90_s: float
    p99_s: float
    verdict: Verdict
    evidence: tuple[str, ...]
    telemetry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_samples(self) -> int:
        """Number of timed samples, warm-up apart."""
        return sum(b.burst.n_samples for b in self.bursts if "first" not in b.causes)

    @property
    def beside_ci95_s(self) -> tuple[float, float]:
        """The 95 % interval against others of one campaign: without what sessions differ by."""
        low, high = self.telemetry.get("beside_ci95_s", self.ci95_s)
        return (low, high)

    @property
    def half_width_s(self) -> float:
        """Half the width of the 95 % interval of the level."""
        return 0.5 * (self.ci95_s[1] - self.ci95_s[0])

    def differences(self, other: Measurement) -> dict[str, tuple[object, object]]:
        """Return all that keeps the two from being compared: name → (here, there).

        Stable facts of device, runtime and options, and everything of the plan but seed and
        timeout. Empty where only the workload, or nothing, differs.
        """
        return differing(self.facts, other.facts)

    @property
    def facts(self) -> dict[str, object]:
        """Return all that must be equal for two measurements to be compared."""
        plan = {f"plan.{name}": value for name, value in self.plan.key_fields().items()}
        return {**self.fingerprint.stable, **plan}

    def to_json(self) -> dict[str, Any]:
        """Return the documented keys of ``hwprof bench --json``."""
        return {
            "workload": self.workload.label,
            "key": self.workload.key,
            "level_s": self.level_s,
            "ci95_s": list(self.ci95_s),
            "median_s": self.median_s,
            "p90_s": self.p90_s,
            "p99_s": self.p99_s,
            "n_samples": self.n_samples,
            "verdict": self.verdict,
            "evidence": list(self.evidence),
            "warnings": list(self.loaded.warnings),
            "peak_memory_bytes": self.loaded.peak_memory_bytes,
            "load_s": self.loaded.load_s,
            "artifact_bytes": self.loaded.artifact_bytes,
            "device": self.fingerprint.stable["device"],
            "fingerprint": self.fingerprint.to_json(),
            "plan": asdict(self.plan),
            "telemetry": dict(self.telemetry),
        }


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no number for a workload."""

    workload: Workload
    stage: Stage
    kind: FailureKind
    message: str
    attempts: int = 1
    retryable: bool = False

    @property
    def why(self) -> str:
        """What failed and how, in one line."""
        return f"{self.stage} failed ({self.kind}): {self.message}"

    def to_json(self) -> dict[str, Any]:
        """Return the failure as plain data."""
        return {
            "workload": self.workload.label,
            "key": self.workload.key,
            "stage": self.stage,
            "kind": self.kind,
            "message": self.message,
            "attempts": self.attempts,
            "retryable": self.retryable,
        }


Result = Measurement | Failure


def plan_for(preset: str, **changes: Any) -> MeasurePlan:
    """Return a preset's plan with some fields changed.

    Raises:
        PlanError: the preset is unknown.
    """
    if preset not in PRESETS:
        raise PlanError(f"unknown preset {preset!r}; expected one of {', '.join(PRESETS)}")
    return replace(PRESETS[preset], **changes)
