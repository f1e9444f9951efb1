"""A scripted device: latencies, noise and faults as told, in no time at all.

``DeviceOptions.script`` is a JSON object, or the path of a file that holds one. Every field may
be left out:

    {"seed": 0,
     "latency": {"base_s": 0.001, "per_mac_s": 0, "per_operator_s": 0,
                 "labels": {"u0.*": 0.002}, "cold_factor": 1.0},
     "noise": {"call": 0.01, "worker": 0.002, "spike_share": 0.01, "spike_s": 0.001},
     "slow_mode": {"share": 0.0, "factor": 1.3, "dwell_bursts": 4},
     "drift_per_burst": 0.0,
     "wait": {"share": 0.0, "s": 0.004},
     "load": {"steal_share": 0, "foreign_cores": 0, "throttled": false},
     "page_faults_per_call": 0,
     "clock": {"step_ns": 50},
     "faults": [{"label": "bad*", "stage": "compile", "kind": "die", "once": "MARKER"}]}

Labels are shell patterns; for ``clock`` see :mod:`hwprof.devices.null_clock`. A fault happens
at a stage (``supports``, ``compile``, ``check``, ``warmup``, ``burst``) and is one of ``die``,
``kill``, ``hang``, ``nan``, ``fallback``, ``garbage``, ``refuse``, ``model``, ``plan``,
``memory``, ``unsupported``, ``wrong`` (outputs, at the stage ``check``) or ``print`` (noise on
standard output); with ``once`` it happens until the file MARKER exists, and makes it, with
``workers`` only in workers of these numbers.
Noise is drawn from the seed, the workload and the worker's number, so that a campaign repeats
to the nanosecond.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from hwprof.devices.host import Array, max_rel_error
from hwprof.devices.null_clock import ScriptedClock
from hwprof.errors import CompileError, DeviceError, ModelError, PlanError
from hwprof.graph import workload_graph
from hwprof.measure.process import WORKER_NUMBER
from hwprof.measure.records import (
    Burst,
    Cache,
    DeviceOptions,
    Fingerprint,
    Loaded,
    MeasurePlan,
)
from hwprof.protocols import Check, Disturbance, OpTrace, Support
from hwprof.workload import Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.protocols import Arrays

FIELDS = frozenset(
    {
        "seed",
        "latency",
        "noise",
        "slow_mode",
        "drift_per_burst",
        "wait",
        "load",
        "page_faults_per_call",
        "clock",
        "faults",
    }
)
FAULTS = frozenset(
    (
        *("die", "kill", "hang", "nan", "fallback", "garbage", "refuse", "model", "memory"),
        *("plan", "unsupported", "wrong", "print"),
    )
)
DEFAULT_LATENCY_S = 1e-3
DEFAULT_NOISE: Mapping[str, float] = {"call": 0.01, "worker": 0.001}
MOST_SAMPLES = 1000
GAP_NS = 2000


def read_script(text: str | None) -> dict[str, Any]:
    """Return the script of a JSON text or of the file that it names.

    Raises:
        PlanError: it is no JSON object or has an unknown field or fault.
    """
    if text is None:
        return {}
    try:
        script: dict[str, Any] = json.loads(
            text if text.lstrip().startswith("{") else Path(text).read_text()
        )
    except (OSError, ValueError) as error:
        raise PlanError(f"the script of the null device cannot be read: {error}") from error
    unknown = sorted(set(script) - FIELDS)
    if unknown:
        raise PlanError(f"unknown field {unknown[0]!r} in the script; known are {sorted(FIELDS)}")
    for fault in script.get("faults", ()):
        if fault.get("kind") not in FAULTS:
            raise PlanError(f"unknown fault {fault.get('kind')!r}; known are {sorted(FAULTS)}")
    return script


class NullAdapter:
    """Follows a script. Its fingerprint says so: ``hardware`` is ``scripted``.

    Raises:
        PlanError: the script cannot be read.
    """

    def __init__(self, options: DeviceOptions) -> None:
        self._options = options
        self.script = read_script(options.script)
        self.worker_number = int(os.environ.get(WORKER_NUMBER, "0"))

    def fingerprint(self) -> Fingerprint:
        """Return the facts, which are the options and the script."""
        return Fingerprint(
            stable={
                "device": "null",
                "hardware": "scripted",
                "runtime": "scripted",
                "runtime_version": "1",
                "threads": self._options.threads,
                "batch": self._options.batch,
                "precision": self._options.precision,
            }
        )

    def supports(self, workload: Workload) -> Support:
        """Take everything but what the script refuses."""
        kind = self.fault(workload, "supports")
        if kind == "unsupported":
            return Support(ok=False, reason="the script does not support it")
        return Support(ok=True)

    def compile(self, workload: Workload, plan: MeasurePlan) -> NullExecutable:
        """Make nothing, at once.

        Raises:
            CompileError: the script refuses it.
            ModelError: the script says that the model is damaged.
            PlanError: the script says that the options do not suit it.
        """
        self.fault(workload, "compile")
        return NullExecutable(self, workload)

    def disturbance(self) -> Disturbance:
        """Return the load that the script tells of."""
        return Disturbance(**self.script.get("load", {}))

    @property
    def instruments(self) -> ScriptedClock:
        """The scripted clock."""
        return ScriptedClock(self.script.get("clock", {}))

    def close(self) -> None:
        """Nothing to free."""

    def latency_s(self, workload: Workload) -> float:
        """Return the floor that the script gives a workload, in seconds."""
        told: Mapping[str, Any] = self.script.get("latency", {})
        for pattern, value in told.get("labels", {}).items():
            if fnmatch(workload.label, pattern):
                return float(value)
        base_s = float(told.get("base_s", DEFAULT_LATENCY_S))
        per_mac_s, per_operator_s = told.get("per_mac_s", 0.0), told.get("per_operator_s", 0.0)
        if not (per_mac_s or per_operator_s):
            return base_s
        graph = workload_graph(workload)
        return float(base_s + per_mac_s * graph.macs + per_operator_s * len(graph.nodes))

    def fault(self, workload: Workload, stage: str) -> str | None:
        """Do or return the fault that the script has for ``workload`` at ``stage``."""
        for fault in self.script.get("faults", ()):
            if fault["stage"] != stage or not fnmatch(workload.label, fault["label"]):
                continue
            if self.worker_number not in fault.get("workers", (self.worker_number,)):
                continue
            if (marker := fault.get("once")) is not None:
                if Path(marker).exists():
                    continue
                Path(marker).touch()
            return _do(fault["kind"])
        return None


def _do(kind: str) -> str:
    """Do a fault that is done by doing; return the name of one that is not."""
    match kind:
        case "die":
            _die()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "refuse":
            raise CompileError("the script refuses it")
        case "model":
            raise ModelError("the script says that the model is damaged")
        case "plan":
            raise PlanError("the script says that the options do not suit it")
        case "memory":
            raise MemoryError("the script wants more than there is")
        case "print":
            os.write(1, b"hwp1 noise that an adapter writes to standard output\n")
    return kind


def _die() -> NoReturn:
    sys.stderr.write("the script lets the process die\n")
    sys.stderr.flush()
    os._exit(13)


class NullExecutable:
    """Draws bursts by the script. A clock of its own counts the nanoseconds."""

    def __init__(self, adapter: NullAdapter, workload: Workload) -> None:
        self._adapter, self._workload = adapter, workload
        script = adapter.script
        seeds = [script.get("seed", 0), int(workload.key, 16), adapter.worker_number]
        self._rng = np.random.default_rng(seeds)
        self._noise = {**DEFAULT_NOISE, **script.get("noise", {})}
        worker = float(np.exp(self._noise["worker"] * abs(self._rng.standard_normal())))
        self._floor_s = adapter.latency_s(workload) * worker
        self._clock_ns = 0
        self._checked: str | None = None
        self._n_bursts = 0
        self._slow_left = 0

    @property
    def loaded(self) -> Loaded:
        """A millisecond and a kilobyte, whatever it is."""
        return Loaded(load_s=1e-3, artifact_bytes=1024, peak_memory_bytes=2**20)

    def check(self, reference: Sequence[Array] | None = None) -> Check:
        """Return finite outputs unless the script says otherwise."""
        kind = self._checked = self._adapter.fault(self._workload, "check")
        error = None if reference is None else max_rel_error(self.outputs(), reference)
        return Check(
            finite=kind != "nan",
            provider="scripted",
            fallback_ops=("scripted operator",) if kind == "fallback" else (),
            # JSON has no NaN: this answer cannot be sent.
            max_rel_error=math.nan if kind == "garbage" else error,
        )

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Return one array of ones: nothing is computed. Where the script wants it wrong, zeros."""
        return [np.full(1, self._checked != "wrong", dtype=np.float32)]

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Draw a burst: the floor, noise upward, spikes, modes, drift and waits."""
        stage = "warmup" if self._n_bursts == 0 else "burst"
        kind = self._adapter.fault(self._workload, stage)
        level_s = self._floor_s * self._mode() * self._drift()
        if cache == "cold":
            level_s *= float(self._adapter.script.get("latency", {}).get("cold_factor", 1.0))
        self._n_bursts += 1
        n = max(min_calls, min(int(duration_s / level_s), MOST_SAMPLES))
        duration = np.maximum((self._calls_s(n, level_s) * 1e9).astype(np.int64), 1)
        wait = self._waits_ns(n)
        duration += wait
        if kind == "garbage":
            duration[n // 2] = -1
        starts = self._clock_ns + np.concatenate([[0], np.cumsum(duration[:-1] + GAP_NS)])
        self._clock_ns = int(starts[-1] + duration[-1]) + GAP_NS
        return Burst(
            start_ns=starts.astype(np.int64),
            duration_ns=duration,
            wait_ns=wait,
            page_faults=round(n * self._adapter.script.get("page_faults_per_call", 0)),
            cpu_ns=max(0, int(duration.sum() - wait.sum())),
            probe_ns=100_000,
        )

    def trace(self) -> OpTrace:
        """Refuse: there are no operators.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("the null device runs no operators, so it has no trace")

    def close(self) -> None:
        """Nothing to free."""

    def _calls_s(self, n: int, level_s: float) -> NDArray[np.float64]:
        """Return ``n`` calls: noise only adds, as on a real machine."""
        calls = level_s * np.exp(self._noise["call"] * np.abs(self._rng.standard_normal(n)))
        calls[0] *= 1.2
        spikes = self._rng.random(n) < self._noise.get("spike_share", 0.0)
        slowed: NDArray[np.float64] = calls + spikes * self._noise.get("spike_s", level_s)
        return slowed

    def _mode(self) -> float:
        """Return the factor of the present mode; a slow one lasts several bursts."""
        told = self._adapter.script.get("slow_mode", {})
        if self._slow_left == 0 and self._rng.random() < told.get("share", 0.0):
            self._slow_left = int(told.get("dwell_bursts", 4))
        if self._slow_left == 0:
            return 1.0
        self._slow_left -= 1
        return float(told.get("factor", 1.3))

    def _drift(self) -> float:
        per_burst = float(self._adapter.script.get("drift_per_burst", 0.0))
        return float((1.0 + per_burst) ** self._n_bursts)

    def _waits_ns(self, n: int) -> NDArray[np.int64]:
        told = self._adapter.script.get("wait", {})
        hit = self._rng.random(n) < told.get("share", 0.0)
        waits: NDArray[np.int64] = hit.astype(np.int64) * int(told.get("s", 0.004) * 1e9)
        return waits
