"""An adapter round another one, opened in a worker, that does what checks need and users do not.

Two things, chosen by a workload's label: a call that is made slower on purpose, and the plain
loop that anybody would write. The wrapped adapter's name, factory and script, and what to do
with which label, travel in ``DeviceOptions.script``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwprof.checks.instruments import spin
from hwprof.errors import CompileError
from hwprof.measure.records import (
    Burst,
    Cache,
    DeviceOptions,
    DeviceRef,
    Fingerprint,
    Loaded,
    MeasurePlan,
)
from hwprof.measure.timing import calls_per_sample, estimate_call_s, timed_burst
from hwprof.measure.worker import open_adapter
from hwprof.protocols import (
    AdapterAround,
    Check,
    DeviceAdapter,
    Disturbance,
    Executable,
    OpTrace,
    ReportsDisturbance,
    Support,
)
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

FACTORY = "hwprof.checks.probing:open_probing"
PLAIN = "plain"
"""In place of a delay: time the workload with the plain loop."""
WORK = "work:"
"""In place of a delay: hash so many bytes behind every call, such as ``work:4096``."""

Probing = Mapping[str, float | str]
"""What to do with a workload, by label: a delay in seconds, :data:`PLAIN` or :data:`WORK`."""


@runtime_checkable
class CalledHere(Protocol):
    """An executable that is called from this process, so that a call can be made slower."""

    def call(self) -> object:
        """Run once on the seeded inputs."""
        ...


def probing_ref(ref: DeviceRef, probing: Probing) -> DeviceRef:
    """Return how a worker opens ``ref`` with ``probing`` round its executables."""
    inner = {"name": ref.name, "factory": ref.factory, "script": ref.options.script}
    script = json.dumps({"inner": inner, "probing": dict(probing)})
    return DeviceRef(name=ref.name, factory=FACTORY, options=replace(ref.options, script=script))


def open_probing(options: DeviceOptions) -> DeviceAdapter:
    """Open the wrapped adapter, and wrap it.

    Raises:
        DeviceUnavailableError: the wrapped adapter's device is not there.
    """
    told = json.loads(options.script or "{}")
    inner = told["inner"]
    adapter = open_adapter(
        DeviceRef(
            name=inner["name"],
            factory=inner["factory"],
            options=replace(options, script=inner["script"]),
        )
    )
    if isinstance(adapter, ReportsDisturbance):
        return _DisturbedProbingAdapter(adapter, told["probing"])
    return _ProbingAdapter(adapter, told["probing"])


class _ProbingAdapter(AdapterAround):
    """Passes everything on but what it compiles."""

    def __init__(self, inner: DeviceAdapter, probing: Probing) -> None:
        super().__init__(inner)
        self._probing = probing

    def fingerprint(self) -> Fingerprint:
        """Return the wrapped adapter's facts."""
        return self._inner.fingerprint()

    def supports(self, workload: Workload) -> Support:
        """Take what the wrapped adapter takes."""
        return self._inner.supports(workload)

    def compile(self, workload: Workload, plan: MeasurePlan) -> Executable:
        """Compile, and wrap what was asked to be wrapped.

        Raises:
            CompileError: a delay is asked for that cannot be put into this device's calls.
        """
        executable = self._inner.compile(workload, plan)
        what = self._probing.get(workload.label)
        if what is None:
            return executable
        if what == PLAIN:
            return _PlainLoop(executable)
        if isinstance(executable, CalledHere):
            return _Slowed(executable, executable.call, _extra(what))
        if not self.fingerprint().is_scripted or isinstance(what, str):
            raise CompileError("an injection cannot be put into the calls of this device")
        return _Lengthened(executable, what)


class _DisturbedProbingAdapter(_ProbingAdapter):
    """The same for a device that reports its own disturbances."""

    def disturbance(self) -> Disturbance:
        """Return what the wrapped adapter knows."""
        assert isinstance(self._inner, ReportsDisturbance)
        return self._inner.disturbance()


class _Wrapped:
    """An executable that passes everything on; subclasses time in their own way."""

    def __init__(self, inner: Executable) -> None:
        self._inner = inner

    @property
    def loaded(self) -> Loaded:
        """What the wrapped executable says."""
        return self._inner.loaded

    def check(self, reference: Sequence[NDArray[np.generic]] | None = None) -> Check:
        """Check the wrapped executable."""
        return self._inner.check(reference)

    def outputs(self, inputs: Arrays | None = None) -> list[NDArray[np.generic]]:
        """Run the wrapped executable."""
        return self._inner.outputs(inputs)

    def trace(self) -> OpTrace:
        """Trace the wrapped executable."""
        return self._inner.trace()

    def close(self) -> None:
        """Close the wrapped executable."""
        self._inner.close()


def _extra(what: float | str) -> Callable[[], object]:
    """Return what is done behind every call: a busy wait, or real work."""
    if not isinstance(what, str):
        return lambda: spin(what)
    data = bytes(int(what.removeprefix(WORK)))
    return lambda: hashlib.sha256(data)


class _Slowed(_Wrapped):
    """Every call followed by something that takes time."""

    def __init__(
        self, inner: Executable, call: Callable[[], object], extra: Callable[[], object]
    ) -> None:
        super().__init__(inner)
        self._call, self._extra = call, extra
        self._per_sample: int | None = None

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Time calls with what follows them."""
        call, extra = self._call, self._extra

        def slowed() -> None:
            call()
            extra()

        if self._per_sample is None:
            self._per_sample = calls_per_sample(estimate_call_s(slowed))
        return timed_burst(slowed, duration_s, min_calls, per_sample=self._per_sample)


class _Lengthened(_Wrapped):
    """The same on a scripted clock: the delay is added to what the script says."""

    def __init__(self, inner: Executable, delay_s: float) -> None:
        super().__init__(inner)
        self._delay_s = delay_s

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Return calls that take ``delay_s`` longer than scripted."""
        burst = self._inner.burst(duration_s, min_calls, cache)
        added = round(self._delay_s * 1e9) * burst.calls_per_sample
        return replace(
            burst,
            start_ns=burst.start_ns + added * np.arange(burst.n_samples, dtype=np.int64),
            duration_ns=burst.duration_ns + added,
        )


class _PlainLoop(_Wrapped):
    """The loop that vendors' tools and most people write: one warm-up call, then time calls."""

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Time calls back to back with nothing but a clock pair round each."""
        inner = self._inner
        if not isinstance(inner, CalledHere):
            return inner.burst(duration_s, min_calls, cache)
        starts, durations = [], []
        clock = time.perf_counter_ns
        inner.call()
        stop_ns = clock() + int(duration_s * 1e9)
        while True:
            start = clock()
            inner.call()
            end = clock()
            starts.append(start)
            durations.append(end - start)
            if end >= stop_ns and len(starts) >= min_calls:
                break
        return Burst(
            start_ns=np.array(starts, dtype=np.int64),
            duration_ns=np.array(durations, dtype=np.int64),
            wait_ns=None,
        )
