"""The contracts between the core and everything that plugs into it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from hwprof.measure.records import (
    Burst,
    Cache,
    Failure,
    Fingerprint,
    LabelledBurst,
    Loaded,
    Measurement,
    MeasurePlan,
)
from hwprof.measure.session_spread import SessionLevel
from hwprof.workload import Workload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwprof.space import Architecture

    Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Support:
    """Whether a device takes a workload; asked before compiling."""

    ok: bool
    reason: str = ""
    """What is missing and what would help, in one line; empty where ``ok``."""
    n_pieces: int | None = None
    """In how many pieces an accelerating part of the runtime takes it; None where unknown."""
    outside_ops: tuple[str, ...] = ()
    """Operators that will run outside of it, each named as often as it occurs."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What really ran, and whether its output can be believed."""

    finite: bool
    provider: str
    """The provider that really ran, e.g. ``CPUExecutionProvider``."""
    fallback_ops: tuple[str, ...] = ()
    """Operators that silently ran somewhere else; with one there is no latency, but a failure."""
    outside_ops: tuple[str, ...] = ()
    """Operators outside of the provider that the runtime itself is known to run on the same
    device, each named as often as it occurs."""
    max_rel_error: float | None = None
    """Largest error relative to the reference's largest output; None without a reference."""


@dataclass(frozen=True, kw_only=True)
class OpTime:
    """One operator of a trace, by the name that the runtime gives it (scope first)."""

    name: str
    op_type: str
    time_s: float
    """Time a call, without what the tracer adds where that is known."""
    removed_s: float = 0.0
    """What was taken off for the tracer."""
    outputs: tuple[str, ...] = ()
    """Tensors that it makes, where they are known: a fused operator keeps them, not its name."""
    members: tuple[str, ...] = ()
    """Operators of the written model that were fused into it, where the runtime names them."""
    count: int = 1
    """How many of its type a call runs, where the tracer sums them up."""


@dataclass(frozen=True, kw_only=True)
class OpTrace:
    """Per-operator times of a separate run, in order, that reports its own slowdown."""

    ops: tuple[OpTime, ...]
    outside_s: float
    """Time of a call before its first and after its last operator."""
    traced_s: float
    """A call with the tracer on."""
    untraced_s: float
    """A call without, in the same process, in turn with those."""

    @classmethod
    def adding_up(cls, ops: tuple[OpTime, ...], *, traced_s: float, untraced_s: float) -> Self:
        """Return the trace in which all that operators leave of a traced call is outside of them."""
        outside_s = max(traced_s - sum(op.time_s for op in ops), 0.0)
        return cls(ops=ops, outside_s=outside_s, traced_s=traced_s, untraced_s=untraced_s)

    @property
    def slowdown(self) -> float:
        """Time with the tracer on, over without."""
        return self.traced_s / self.untraced_s


class Executable(Protocol):
    """A workload, compiled and loaded."""

    @property
    def loaded(self) -> Loaded:
        """Load time, artifact size, memory."""
        ...

    def check(self, reference: Sequence[NDArray[np.generic]] | None = None) -> Check:
        """Run once on the seeded inputs; compare with ``reference`` outputs where given."""
        ...

    def outputs(self, inputs: Arrays | None = None) -> list[NDArray[np.generic]]:
        """Run once (on the seeded inputs unless told otherwise) and return the outputs."""
        ...

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Run synchronised calls back to back for ``duration_s``, at least ``min_calls``."""
        ...

    def trace(self) -> OpTrace:
        """Time the operators in a separate run.

        Raises:
            DeviceError: the runtime has no operator trace.
        """
        ...

    def close(self) -> None:
        """Free what the workload holds."""
        ...


class DeviceAdapter(Protocol):
    """A device with its runtime, opened in the process that does the timing."""

    def fingerprint(self) -> Fingerprint:
        """Return the facts that identify device, runtime and options."""
        ...

    def supports(self, workload: Workload) -> Support:
        """Say whether the device takes the workload, before anything is compiled."""
        ...

    def compile(self, workload: Workload, plan: MeasurePlan) -> Executable:
        """Build and load the workload; the time it takes is kept apart from latency.

        Raises:
            ModelError: the model file is damaged or its inputs cannot be bound.
            PlanError: the options or the plan do not suit this workload; what suits none is
                refused when the adapter is opened.
            CompileError: the runtime refuses it.
            MemoryError: it does not fit.
            DeviceUnavailableError: the device is gone, which ends the campaign.
        """
        ...

    def close(self) -> None:
        """Free the device."""
        ...


@dataclass(frozen=True, kw_only=True)
class ForeignProcess:
    """Another process on the device, as far as the device tells of it."""

    pid: int
    name: str | None = None
    memory_bytes: int | None = None
    """Of the device's own memory."""

    def __str__(self) -> str:
        held = "" if self.memory_bytes is None else f", {self.memory_bytes / 2**20:.0f} MiB"
        return f"{self.name or 'a process'} (pid {self.pid}{held})"


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What disturbed the last burst, as the device itself knows it."""

    steal_share: float = 0.0
    foreign_cores: float = 0.0
    throttled: bool = False
    over_quota: bool = False
    """Whether a control group that had spent its CPU quota stood still meanwhile."""
    foreign_processes: tuple[ForeignProcess, ...] = ()
    """Who else was on the device. On one that processes use in turn (a GPU) every one of them may
    have held a call up, whatever the host's load."""
    readings: Mapping[str, float] = field(default_factory=dict)
    """What the device's sensors say, by name with unit (``temperature_c``, ``battery_pct``)."""


@runtime_checkable
class ReportsDisturbance(Protocol):
    """An adapter whose device is not this host's CPU: the host's load says nothing about it."""

    def disturbance(self) -> Disturbance:
        """Return what disturbed the last burst."""
        ...


@runtime_checkable
class CountsProcesses(Protocol):
    """An adapter whose device tells who uses it: it must know who belongs to the campaign."""

    def spare(self, pids: Callable[[], Collection[int]]) -> None:
        """Take the processes that ``pids`` returns, called anew each time, for our own."""
        ...


@runtime_checkable
class CanBeLost(Protocol):
    """An adapter whose device may end for the process that opened it, and for no other."""

    def is_lost(self) -> bool:
        """Return whether nothing can be run from this process any more."""
        ...


@runtime_checkable
class ReportsWarnings(Protocol):
    """An adapter that knows, once open, what must be said beside every result."""

    @property
    def warnings(self) -> Sequence[str]:
        """What widens results or is not known, each with what would mend it."""
        ...


class AdapterAround:
    """Base of an adapter round another one: passes on what that says of itself."""

    def __init__(self, inner: DeviceAdapter) -> None:
        self._inner = inner

    @property
    def warnings(self) -> Sequence[str]:
        """What the adapter has to say beside every result."""
        return self._inner.warnings if isinstance(self._inner, ReportsWarnings) else ()

    def is_lost(self) -> bool:
        """Return whether the adapter's device has ended for this process."""
        return isinstance(self._inner, CanBeLost) and self._inner.is_lost()

    def close(self) -> None:
        """Free the device."""
        self._inner.close()


class Sink(Protocol):
    """Where results go as soon as they exist (a run folder, or memory)."""

    def opened(self, fingerprint: Fingerprint) -> None:
        """Learn which device is measured, before its first burst.

        Raises:
            IncompatibleRunError: the sink holds results of another one.
        """
        ...

    def burst(self, workload: Workload, burst: LabelledBurst) -> None:
        """Keep one burst."""
        ...

    def reference(self, beside: Workload, burst: LabelledBurst) -> None:
        """Keep one burst of the reference block, timed beside a workload and its group."""
        ...

    def done(self, measurement: Measurement) -> None:
        """Keep a finished measurement (its bursts are already kept)."""
        ...

    def failed(self, failure: Failure) -> None:
        """Keep a failure."""
        ...


class SessionHistory(Protocol):
    """What is known of earlier sessions on a machine."""

    def known(self, fingerprint: Fingerprint) -> Sequence[SessionLevel]:
        """Return sessions on the fingerprint's machine, in any settings."""
        ...

    def add(self, fingerprint: Fingerprint, session: SessionLevel) -> None:
        """Keep a session that has just ended."""
        ...


@runtime_checkable
class AccuracySource(Protocol):
    """Something that gives a network's top-1 accuracy in percent.

    What only ranks networks gives their percentile, and has a name that begins with
    :data:`hwprof.units.PERCENTILE_BY`.
    """

    @property
    def name(self) -> str:
        """How the source is shown, e.g. ``supernet:mini.pt``."""
        ...

    @property
    def digest(self) -> str:
        """Hash that identifies the source, for caching."""
        ...

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return top-1 in percent for each architecture; None where the source has none."""
        ...
