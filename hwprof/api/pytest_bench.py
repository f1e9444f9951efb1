"""What the pytest fixture does: measure as hwprof does, and hand pytest-benchmark the bursts.

A function that a fresh process can import is timed in five of them. A lambda, a closure, a bound
method, a wrapper that bears the name of what it wraps, what is defined in a module that only pytest
can import, or is called with more than plain data, cannot be imported there: it is timed in this
process, and ``extra_info`` says so.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwprof.api.models import as_workload, check_inputs, raise_failure
from hwprof.errors import ModelError
from hwprof.measure.engine import measure
from hwprof.measure.floor import SESSION_SD
from hwprof.measure.level import burst_statistic_s, estimate, used_bursts
from hwprof.measure.records import (
    DeviceOptions,
    DeviceRef,
    LabelledBurst,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.measure.timing import calls_per_sample, estimate_call_s, timed_burst
from hwprof.space import Architecture
from hwprof.store.session_file import SessionFile
from hwprof.workload import Workload

CALL_DEVICE = "hwprof.devices.python_call:PythonCallAdapter"
PLAN = plan_for("standard", looks=(8, 16), burst_s=0.01, warmup_s=0.02, round_s=0.0)
"""A test takes seconds at most: its rounds are not spread over time."""
ROUNDS_HERE = 40
ONE_PROCESS = "timed in the process of the tests"


class ReplayTimer:
    """A timer for pytest-benchmark that gives durations back one by one: start 0, end d."""

    __name__ = "hwprof_bursts"

    def __init__(self) -> None:
        self._readings: list[float] = []

    def load(self, durations_s: Sequence[float]) -> None:
        """Replay these, in order."""
        self._readings = [reading for d in durations_s for reading in (0.0, d)][::-1]

    def __call__(self) -> float:
        """Return the next reading."""
        return self._readings.pop()


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """Bursts with what is said of them in ``extra_info.hwprof``."""

    bursts: Sequence[LabelledBurst]
    threads: int
    facts: Mapping[str, object]
    fresh_workers: bool
    note: str = ""
    reference_s: float | None = None
    session_sd: float = SESSION_SD
    verdict: str | None = None


class HwprofBenchmark:
    """The fixture ``hwprof_benchmark``; like pytest-benchmark's own it is used once a test.

    Args:
        benchmark: pytest-benchmark's fixture.
        timer: the timer that was given to it.
    """

    def __init__(self, benchmark: Any, timer: ReplayTimer) -> None:
        self._benchmark, self._timer = benchmark, timer

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Time a function and return what it returns, called once more in this process."""
        result = function(*args, **kwargs)
        if self._benchmark.enabled:
            self._report(_time_function(function, args, kwargs))
        return result

    def model(
        self,
        model: Architecture | str | Path,
        *,
        device: str = "cpu",
        threads: int = 1,
        inputs: Sequence[str] = (),
        preset: str = "standard",
        script: str | None = None,
    ) -> Measurement | None:
        """Time a model as ``hwprof bench`` does and return its measurement.

        None under ``--benchmark-disable``.

        Raises:
            DeviceError: the device is not there, refuses the model, or gave no number.
        """
        from hwprof.devices import device_ref

        if not self._benchmark.enabled:
            return None
        options = DeviceOptions(threads=threads, script=script)
        workload = as_workload(model, inputs)
        check_inputs(inputs, workload)
        found = _measured(workload, device_ref(device, options), plan_for(preset))
        self._report(_timed_in_workers(found))
        return found

    def _report(self, timed: _Timed) -> None:
        statistics = (burst_statistic_s(b.burst, timed.threads) for b in used_bursts(timed.bursts))
        data = [s for s in statistics if s is not None]
        found = estimate(timed.bursts, timed.threads, session_sd=timed.session_sd)
        self._benchmark.extra_info["hwprof"] = {
            "level_s": found.level_s,
            "ci95_s": list(found.ci95_s),
            "worker_levels_s": list(found.worker_levels_s.values()),
            "reference_s": timed.reference_s,
            "facts": json.loads(json.dumps(dict(timed.facts))),
            "fresh_workers": timed.fresh_workers,
            "note": timed.note,
            "verdict": timed.verdict,
        }
        self._timer.load(data)
        self._benchmark.pedantic(lambda: None, rounds=len(data), iterations=1)


def _time_function(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> _Timed:
    """Time a function in fresh workers if they can import it, else here."""
    reason = _why_not_importable(function, args, kwargs)
    if reason is None:
        target = f"{function.__module__}:{function.__qualname__}"
        script = json.dumps({"args": list(args), "kwargs": dict(kwargs)})
        ref = DeviceRef(name="python", factory=CALL_DEVICE, options=DeviceOptions(script=script))
        try:
            return _timed_in_workers(_measured(Workload.from_callable(target, ()), ref, PLAN))
        except ModelError as error:
            reason = str(error)
    return _time_here(function, args, kwargs, reason)


def _why_not_importable(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    name = getattr(function, "__qualname__", None)
    if name is None or getattr(function, "__module__", None) in (None, "__main__"):
        return f"{function!r} has no importable name"
    if "<" in name:
        return f"{name} is a lambda or defined inside a function"
    try:
        found = operator.attrgetter(name)(sys.modules.get(function.__module__))
    except AttributeError:
        return f"{function.__module__} has no {name}"
    # Equal, not identical: a class method is bound anew whenever it is looked up.
    if found != function:
        return f"{function.__module__}.{name} is another object there (a bound method, or wrapped)"
    given = [list(args), dict(kwargs)]
    try:
        is_plain = json.loads(json.dumps(given)) == given
    except (TypeError, ValueError):
        is_plain = False
    return None if is_plain else "its arguments are not plain data"


def _measured(workload: Workload, ref: DeviceRef, plan: MeasurePlan) -> Measurement:
    (result,) = measure([workload], ref, plan, history=SessionFile())
    return raise_failure(result)


def _timed_in_workers(found: Measurement) -> _Timed:
    return _Timed(
        bursts=found.bursts,
        threads=int(found.fingerprint.stable.get("threads") or 1),
        facts=found.facts,
        fresh_workers=True,
        reference_s=found.telemetry.get("reference_level_s"),
        session_sd=found.telemetry["session_sd"],
        verdict=found.verdict,
    )


def _time_here(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], reason: str
) -> _Timed:
    def call() -> object:
        return function(*args, **kwargs)

    per_sample = calls_per_sample(estimate_call_s(call))
    timed_burst(call, PLAN.warmup_s, PLAN.warmup_calls, per_sample=per_sample)
    bursts = [
        LabelledBurst(
            burst=timed_burst(call, PLAN.burst_s, PLAN.min_calls, per_sample=per_sample),
            worker="w0",
            round_index=index,
        )
        for index in range(ROUNDS_HERE)
    ]
    return _Timed(
        bursts=bursts,
        threads=1,
        facts={"device": "python", "where": ONE_PROCESS, "plan.protocol": PLAN.protocol},
        fresh_workers=False,
        note=f"{ONE_PROCESS}: {reason}",
    )
