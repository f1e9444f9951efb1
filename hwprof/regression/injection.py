"""Slowdowns made on purpose: how often does the gate find them, and call equals different?

Two kinds are put behind every call of the new side: a *delay* (a busy wait, exact but idle) and
*work* (hashing, which uses the core as added work does and whose time moves with its clock).
Sizes are shares of the floor, not of a median.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

from hwprof.checks.probing import WORK, probing_ref
from hwprof.errors import MeasurementError
from hwprof.measure.engine import measure
from hwprof.measure.paired import SIGNIFICANCE
from hwprof.measure.process import Interpreter
from hwprof.measure.records import DeviceRef, Failure, plan_for
from hwprof.regression.gate import Gate
from hwprof.regression.side_by_side import (
    CAP_S,
    PLAN,
    Pair,
    PairFailed,
    PairTimed,
    Workers,
    side_by_side,
)
from hwprof.store.session_file import SessionFile
from hwprof.workload import Workload

Kind = Literal["delay", "work"]
KINDS: tuple[Kind, ...] = ("delay", "work")
SIZES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.10)
_SLOWED = "slowed"
_CALIBRATION_BYTES = (2**12, 2**16)
_CALIBRATION_REPEATS = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One comparison with a known slowdown, and all that was timed for it."""

    workload: str
    kind: Kind
    size: float
    verdict: str
    shift: float
    detectable: float
    seconds: float
    """What the comparison took, the start of its workers included also where they were shared."""
    timed: PairTimed


@dataclass(frozen=True, kw_only=True)
class PowerPoint:
    """The trials of one size."""

    workload: str
    kind: Kind
    size: float
    n_trials: int
    n_regressed: int
    n_improved: int
    n_equivalent: int
    n_inconclusive: int
    median_shift: float
    median_seconds: float

    @property
    def regressed_ci95(self) -> tuple[float, float]:
        """The 95 % interval of the share called regressed (Clopper and Pearson, 1934)."""
        from scipy.stats import binomtest

        low, high = binomtest(self.n_regressed, self.n_trials).proportion_ci(0.95, method="exact")
        return float(low), float(high)

    def to_row(self) -> dict[str, Any]:
        """Return what ``hwprof selftest --inject --json`` prints for the size."""
        return {
            "workload": self.workload,
            "injection": self.kind,
            "slowdown": self.size,
            "n_trials": self.n_trials,
            "regressed": self.n_regressed,
            "regressed_ci95": list(self.regressed_ci95),
            "improved": self.n_improved,
            "equivalent": self.n_equivalent,
            "inconclusive": self.n_inconclusive,
            "median_shift": self.median_shift,
            "median_seconds": self.median_seconds,
        }


def floor_s(workload: Workload, device: DeviceRef, seed: int = 0) -> float:
    """Return a workload's level, of which sizes are shares.

    Raises:
        MeasurementError: it fails on the device.
    """
    (found,) = tuple(
        measure([workload], device, plan_for("quick", seed=seed), history=SessionFile())
    )
    if isinstance(found, Failure):
        raise MeasurementError(f"{workload.label}: {found.message}")
    return found.level_s


def work_bytes(duration_s: float) -> int:
    """Return how many bytes this core hashes in ``duration_s``, by the slope of two sizes."""
    small, large = (_hashing_s(n) for n in _CALIBRATION_BYTES)
    per_byte_s = (large - small) / (_CALIBRATION_BYTES[1] - _CALIBRATION_BYTES[0])
    return max(1, round(duration_s / per_byte_s))


def _hashing_s(n_bytes: int) -> float:
    data, best_s = bytes(n_bytes), float("inf")
    for _ in range(_CALIBRATION_REPEATS):
        began_s = time.perf_counter()
        hashlib.sha256(data)
        best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """What is put behind every call of the new side: ``size`` is a share of ``level_s``."""

    kind: Kind
    size: float
    level_s: float

    def put_into(self, device: DeviceRef) -> DeviceRef:
        """Return how a worker opens the device so that the new side is slower by it."""
        if not self.size:
            return device
        delay_s = self.size * self.level_s
        what = delay_s if self.kind == "delay" else f"{WORK}{work_bytes(delay_s)}"
        return probing_ref(device, {_SLOWED: what})


def run_trial(
    workload: Workload,
    device: DeviceRef,
    slowdown: Slowdown,
    *,
    seed: int,
    cap_s: float = CAP_S,
    workers: Workers | None = None,
    base_python: Interpreter | None = None,
) -> Trial:
    """Compare a workload with itself, the new side slowed down.

    Args:
        workload: what is timed.
        device: where.
        slowdown: what makes the new side slower; nothing at size 0.
        seed: of weights, inputs and orders.
        cap_s: longest, start of the workers included.
        workers: that run on the device with the slowdown put into it; fresh ones without. What they
            save is their start: every comparison compiles both sides anew, from other weights.
        base_python: the base's workers run on this Python.

    Raises:
        MeasurementError: a side failed, or nothing can be put into this device's calls.
        DeviceUnavailableError: the device cannot be opened.
    """
    began_s = time.monotonic()
    base = replace(workload, seed=workload.seed + 2 * seed)
    slowed = replace(workload, label=_SLOWED, seed=workload.seed + 2 * seed + 1)
    pair = Pair(label=workload.label, base=base, new=slowed, base_python=base_python)
    gate = Gate(apart=pair.is_apart(device.options.threads))
    timed = side_by_side(
        pair,
        slowdown.put_into(device) if workers is None else device,
        gate,
        plan=replace(PLAN, seed=seed),
        cap_s=cap_s if workers is None else cap_s - workers.start_s,
        workers=workers,
    )
    if isinstance(timed, PairFailed):
        raise MeasurementError(f"{workload.label} ({slowdown.kind}): {timed.failure.message}")
    assert gate.latest is not None
    verdict = gate.verdict(slower=gate.p_slower < SIGNIFICANCE, faster=gate.p_faster < SIGNIFICANCE)
    return Trial(
        workload=workload.label,
        kind=slowdown.kind,
        size=slowdown.size,
        verdict=verdict,
        shift=gate.latest.shift,
        detectable=gate.latest.detectable,
        seconds=time.monotonic() - began_s + (0.0 if workers is None else workers.start_s),
        timed=timed,
    )


def power_points(trials: Sequence[Trial]) -> Iterator[PowerPoint]:
    """Yield the trials counted by workload, kind and size, in the order they first appear."""
    cells: dict[tuple[str, Kind, float], list[Trial]] = {}
    for trial in trials:
        cells.setdefault((trial.workload, trial.kind, trial.size), []).append(trial)
    for (workload, kind, size), found in cells.items():
        said = [t.verdict for t in found]
        yield PowerPoint(
            workload=workload,
            kind=kind,
            size=size,
            n_trials=len(found),
            n_regressed=said.count("regressed"),
            n_improved=said.count("improved"),
            n_equivalent=said.count("equivalent"),
            n_inconclusive=said.count("inconclusive"),
            median_shift=median(t.shift for t in found),
            median_seconds=median(t.seconds for t in found),
        )
