"""Golden checks 1 to 11 by the null device's scripted clock: each passes, and each can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest

from hwprof.checks import levels
from hwprof.checks.instruments import Instruments
from hwprof.checks.probing import PLAIN, Probing, open_probing, probing_ref
from hwprof.checks.records import CannotCheckError
from hwprof.checks.runner import run_check
from hwprof.checks.workloads import BLOCK, network, parts
from hwprof.devices.null_clock import ScriptedClock
from hwprof.errors import CompileError, MeasurementError
from hwprof.measure.measurement import measurement_from
from hwprof.measure.process import WORKER_NUMBER
from hwprof.measure.records import (
    Burst,
    DeviceOptions,
    DeviceRef,
    Fingerprint,
    LabelledBurst,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.measure.session_spread import FEW_SESSIONS
from hwprof.measure.worker import open_adapter
from hwprof.protocols import CanBeLost, DeviceAdapter, ReportsWarnings
from hwprof.workload import Workload

Script = dict[str, Any]


def script(labels: Mapping[str, float] | None = None, **more: Any) -> Script:
    """Return the script of a sound device; ``labels`` and ``more`` make it otherwise."""
    share = 0.94 / sum(p.count for p in parts())
    told = {
        "identity": 4e-6,
        "network": 10e-3,
        "part *": share * 10e-3,
        "block*": 0.3e-3,
        "same*": 0.3e-3,
        "slowed*": 0.3e-3,
    }
    latency = {"labels": {**told, **(labels or {})}, "cold_factor": 1.3}
    return {"latency": latency, "noise": {"call": 0.005, "worker": 0.001}, **more}


class NullRig:
    """Plays the engine's part in this process, with the null device in every worker.

    ``plain`` and ``loaded`` are the scripts of the plain loop and of a busy machine.
    """

    def __init__(
        self,
        told: Script | None = None,
        *,
        plain: Script | None = None,
        loaded: Script | None = None,
        threads: int = 1,
    ) -> None:
        self._told = script() if told is None else told
        self._plain = self._told if plain is None else plain
        self._loaded = self._told if loaded is None else loaded
        self._is_loaded = False
        self.threads = threads
        self.instruments: Instruments = ScriptedClock(self._told.get("clock", {}))

    def measure(
        self,
        workloads: Sequence[Workload],
        plan: MeasurePlan,
        *,
        threads: int | None = None,
        delays_s: Mapping[str, float] | None = None,
    ) -> dict[str, Measurement]:
        told = self._loaded if self._is_loaded else self._told
        return {w.label: self._measured(w, plan, told, delays_s or {}) for w in workloads}

    def plain_loop(
        self, workload: Workload, duration_s: float, *, threads: int | None = None
    ) -> Burst:
        (burst,) = self._bursts(workload, plan_for("quick"), self._plain, {workload.label: PLAIN})
        return burst

    @contextmanager
    def foreign_load(self) -> Iterator[None]:
        self._is_loaded = True
        yield
        self._is_loaded = False

    def _measured(
        self, workload: Workload, plan: MeasurePlan, told: Script, probing: Probing
    ) -> Measurement:
        bursts = []
        for worker in range(plan.workers):
            with patch.dict(os.environ, {WORKER_NUMBER: str(worker)}):
                drawn = self._bursts(workload, plan, told, probing, plan.looks[-1])
            bursts += [
                LabelledBurst(burst=burst, worker=f"w{worker}", round_index=index)
                for index, burst in enumerate(drawn)
            ]
        adapter = open_adapter(self._ref(told, {}))
        loaded = adapter.compile(workload, plan).loaded
        return measurement_from(workload, plan, adapter.fingerprint(), bursts, loaded, {})

    def _bursts(
        self, workload: Workload, plan: MeasurePlan, told: Script, probing: Probing, n: int = 1
    ) -> list[Burst]:
        executable = open_adapter(self._ref(told, probing)).compile(workload, plan)
        return [executable.burst(plan.burst_s, plan.min_calls, plan.cache) for _ in range(n)]

    @staticmethod
    def _ref(told: Script, probing: Probing) -> DeviceRef:
        options = DeviceOptions(script=json.dumps(told))
        ref = DeviceRef(name="null", factory="hwprof.devices.null:NullAdapter", options=options)
        return probing_ref(ref, probing)


SOUND = script()

CASES: list[tuple[str, int, NullRig, bool]] = [
    ("a fast clock", 1, NullRig(), True),
    ("a slow clock", 1, NullRig(script(clock={"step_ns": 800})), False),
    ("a clock that runs backward", 1, NullRig(script(clock={"backward_every": 500})), False),
    ("a clock that stands still", 1, NullRig(script(clock={"step_ns": 0})), False),
    ("waits as long as asked", 2, NullRig(), True),
    ("waits 0.1 % too long", 2, NullRig(script(clock={"spin_error": 0.001})), True),
    ("waits 1 % too long", 2, NullRig(script(clock={"spin_error": 0.01})), False),
    ("a loop that adds 1 µs", 2, NullRig(script(clock={"step_ns": 2000})), False),
    ("work on a line", 3, NullRig(), True),
    ("work off the line", 3, NullRig(script(clock={"work_curvature": 0.005})), False),
    ("quick dispatch", 4, NullRig(), True),
    ("slow dispatch", 4, NullRig(script({"identity": 12e-6})), False),
    ("equals", 5, NullRig(), True),
    ("equals that differ", 5, NullRig(script(noise={"worker": 0.1})), False),
    ("a slowdown in plain sight", 6, NullRig(), True),
    ("a slowdown lost in noise", 6, NullRig(script(noise={"worker": 0.1})), False),
    ("a loop that agrees", 7, NullRig(), True),
    ("a loop 4 % faster", 7, NullRig(plain=script({"block*": 0.288e-3})), False),
    ("a loop 4 % slower", 7, NullRig(plain=script({"block*": 0.312e-3})), False),
    ("a level that stays", 8, NullRig(), True),
    ("a block that moves by 2.5 %", 8, NullRig(loaded=script({"block*": 0.3075e-3})), False),
    ("a block faster by 2.5 %", 8, NullRig(loaded=script({"block*": 0.2925e-3})), False),
    ("a long call that moves by 2.5 %", 8, NullRig(loaded=script({"network": 10.25e-3})), True),
    ("a long call that moves by 4 %", 8, NullRig(loaded=script({"network": 10.4e-3})), False),
    ("parked workers that stand still", 9, NullRig(), True),
    ("parked workers that spin", 9, NullRig(plain=script({"network": 8.5e-3})), False),
    ("kept memory", 10, NullRig(script(page_faults_per_call=0.01)), True),
    ("memory given back", 10, NullRig(script(page_faults_per_call=680)), False),
    ("parts that add up", 11, NullRig(), True),
    ("parts that cost too little", 11, NullRig(script({"part *": 0.5e-3})), False),
    ("parts that cost too much", 11, NullRig(script({"part *": 0.8e-3})), False),
    (
        "cold parts cheaper than the network",
        11,
        NullRig({**SOUND, "latency": {**SOUND["latency"], "cold_factor": 1.02}}),
        False,
    ),
]


@pytest.mark.parametrize(
    ("number", "rig", "passes"), [c[1:] for c in CASES], ids=[f"{c[1]}: {c[0]}" for c in CASES]
)
def test_check(number: int, rig: NullRig, passes: bool) -> None:
    result = run_check(number, rig)
    assert result.passed is passes, result
    assert bool(result.advice) is not passes
    assert result.detail
    if result.value is not None and passes:
        sign = 1 if result.bound == "at most" else -1
        assert sign * result.value <= sign * result.limit


def test_every_check_has_a_case_that_passes_and_one_that_fails() -> None:
    seen = {(number, passes) for _, number, _, passes in CASES}
    assert seen == {(n, passes) for n in range(1, 12) for passes in (True, False)}


def test_figures_are_those_of_the_script() -> None:
    assert run_check(4, NullRig()).value == pytest.approx(4.0, rel=0.01)
    assert run_check(6, NullRig()).figures["median_shift_pct"] == pytest.approx(5.0, abs=0.2)
    found = run_check(11, NullRig()).figures
    assert found["hot_ratio"] == pytest.approx(0.94, rel=0.01)
    assert found["cold_ratio"] == pytest.approx(1.3 * 0.94, rel=0.01)


def test_a_plain_loops_floor_is_taken_as_a_levels() -> None:
    # Every tenth of 400 calls takes 10 ms, the others 10.9: of four in a row two in five hold a
    # fast one, so the lower tenth is fast, while the calls' own tenth percentile is 10.81 ms.
    duration_ns = np.full(401, 10_900_000, dtype=np.int64)
    duration_ns[1::10] = 10_000_000
    start_ns = 12_500_000 * np.arange(401, dtype=np.int64)
    loop = Burst(start_ns=start_ns, duration_ns=duration_ns, wait_ns=None)
    assert np.quantile(duration_ns[1:], 0.1) == pytest.approx(10.81e6)
    assert levels._floor_s(loop) == pytest.approx(10e-3)


@pytest.mark.parametrize(
    ("calls_ms", "floor_ms"),
    [
        # Bursts of 25 ms: one in four holds the call in a hundred that is fast.
        ([0.92, *[1.0] * 99] * 10, 0.92),
        # Fewer calls than the least of a burst: the fastest of all.
        ([1100.0, 1000.0, 1050.0], 1000.0),
    ],
)
def test_a_plain_loop_is_cut_into_bursts(calls_ms: list[float], floor_ms: float) -> None:
    duration_ns = np.array([5000.0, *calls_ms]) * 1e6
    loop = Burst(
        start_ns=np.cumsum(duration_ns).astype(np.int64),
        duration_ns=duration_ns.astype(np.int64),
        wait_ns=None,
    )
    assert levels._floor_s(loop) == pytest.approx(1e-3 * floor_ms)


class Unable(NullRig):
    """Cannot do anything, for a reason or by a fault."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def measure(self, *args: Any, **kwargs: Any) -> dict[str, Measurement]:
        raise self._error


class TestUndone:
    def test_what_cannot_be_done_is_skipped_with_the_reason(self) -> None:
        result = run_check(9, Unable(CannotCheckError("one core only")))
        assert (result.passed, result.value) == (None, None)
        assert "one core only" in result.detail

    def test_what_breaks_has_failed(self) -> None:
        result = run_check(10, Unable(MeasurementError("the process ended with exit code 13")))
        assert (result.passed, result.value) == (False, None)
        assert "exit code 13" in result.detail

    @pytest.mark.parametrize("check", [5, 6, 11])
    def test_pairs_and_parts_are_of_one_thread_only(self, check: int) -> None:
        result = run_check(check, NullRig(threads=2))
        assert result.passed is None
        assert "--threads 1" in result.detail


class HostCalls:
    """An executable and its adapter at once, called from this process."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(stable={"hardware": "some CPU"})

    def compile(self, workload: Workload, plan: MeasurePlan) -> HostCalls:
        return self

    def call(self) -> None:
        self.events.append("call")


class OwnTiming(HostCalls):
    """Times itself: nothing can be put into its calls."""

    call = None  # type: ignore[assignment]


class TestProbing:
    @staticmethod
    def open(adapter: HostCalls, probing: Probing) -> DeviceAdapter:
        ref = DeviceRef(name="x", factory="x:X", options=DeviceOptions())
        with patch("hwprof.checks.probing.open_adapter", lambda _: adapter):
            return open_probing(probing_ref(ref, probing).options)

    def test_every_call_of_a_host_device_is_followed_by_its_delay(self) -> None:
        host = HostCalls()
        slowed = self.open(host, {"block": 0.125}).compile(BLOCK, plan_for("quick"))
        with patch("hwprof.checks.probing.spin", host.events.append):
            burst = slowed.burst(0.0, 4, "hot")
        assert burst.n_samples >= 4
        assert len(host.events) > burst.n_samples  # the batch is chosen by timing a few first
        assert host.events == ["call", 0.125] * (len(host.events) // 2)

    def test_what_the_wrapped_adapter_says_of_itself_is_passed_on(self) -> None:
        class Lost(HostCalls):
            warnings = ("a doubt",)

            def is_lost(self) -> bool:
                return True

        lost, sound = self.open(Lost(), {}), self.open(HostCalls(), {})
        assert isinstance(lost, CanBeLost)
        assert isinstance(lost, ReportsWarnings)
        assert isinstance(sound, CanBeLost)
        assert lost.is_lost()
        assert list(lost.warnings) == ["a doubt"]
        assert not sound.is_lost()

    def test_other_workloads_stay_as_they_are(self) -> None:
        host = HostCalls()
        other = self.open(host, {"other": 0.125}).compile(BLOCK, plan_for("quick"))
        assert cast(object, other) is host

    def test_a_plain_loop_makes_one_warm_up_call(self) -> None:
        host = HostCalls()
        loop = self.open(host, {"block": PLAIN}).compile(BLOCK, plan_for("quick"))
        burst = loop.burst(0.0, 5, "hot")
        assert (burst.n_samples, len(host.events)) == (5, 6)
        assert burst.wait_ns is None

    def test_a_device_that_times_itself_cannot_be_slowed(self) -> None:
        adapter = self.open(OwnTiming(), {"block": 0.125})
        with pytest.raises(CompileError, match="cannot be put into"):
            adapter.compile(BLOCK, plan_for("quick"))

    def test_a_scripted_call_is_longer_by_the_delay(self) -> None:
        def total_ns(probing: Probing) -> int:
            ref = NullRig._ref(SOUND, probing)
            executable = open_adapter(ref).compile(BLOCK, plan_for("quick"))
            burst = executable.burst(0.01, 5, "hot")
            assert (burst.start_ns[1:] >= burst.start_ns[:-1] + burst.duration_ns[:-1]).all()
            return int(burst.duration_ns.sum())

        n = 33  # 10 ms of 0.3 ms calls
        assert total_ns({"block": 1e-4}) - total_ns({}) == pytest.approx(n * 100_000, rel=0.05)
        assert total_ns({"other": 1e-4}) == total_ns({})


class CountingRig(NullRig):
    """Counts the sessions in which a network is timed as it usually is."""

    def __init__(self) -> None:
        super().__init__()
        self.n_sessions = 0

    def measure(
        self, workloads: Sequence[Workload], plan: MeasurePlan, **how: Any
    ) -> dict[str, Measurement]:
        if not how.get("threads") and plan.cache == "hot" and any(w.arch for w in workloads):
            self.n_sessions += plan.sessions
        return super().measure(workloads, plan, **how)


def test_all_checks_together_know_how_far_sessions_of_networks_lie_apart() -> None:
    rig = CountingRig()
    for number in range(1, 12):
        run_check(number, rig)
    assert rig.n_sessions >= FEW_SESSIONS


def test_what_keeps_a_core_busy_ends_with_its_parent() -> None:
    program = (
        "import os, subprocess, sys; from hwprof.checks.rig import _BUSY;"
        "p = subprocess.Popen([sys.executable, '-S', '-c', _BUSY, str(os.getpid())]);"
        "print(p.poll(), flush=True); os._exit(0)"
    )
    # It inherits the pipe, which is read to its end: that comes when all who hold it have ended.
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True, timeout=60
    )
    assert done.stdout == "None\n"


def test_the_networks_parts_are_all_of_it() -> None:
    from hwprof.graph import workload_graph

    total = sum(p.count * workload_graph(p.workload).macs for p in parts())
    assert total == workload_graph(network()).macs
