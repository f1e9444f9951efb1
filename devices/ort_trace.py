"""Per-operator times of ONNX Runtime: its profiler's events, with the profiler's cost removed."""

from __future__ import annotations

from hwprof.devices.model_source import Source
from hwprof.devices.ort_calibration import profiler_cost
from hwprof.devices.ort_profile import Bind, Call, OpenSession, profile_calls
from hwprof.parts.tracer import TracerCost, correct
from hwprof.protocols import OpTime, OpTrace


class OrtTracer:
    """Traces sessions of one adapter; the profiler's cost is measured once a process."""

    def __init__(self, open_session: OpenSession, threads: int) -> None:
        self._open, self._threads = open_session, threads
        self._cost: TracerCost | None = None

    def trace(self, source: Source, plain: Call, bind: Bind) -> OpTrace:
        """Time the operators of a model.

        Args:
            source: the model.
            plain: runs the model once, in a session that does not profile.
            bind: makes such a call of a session that does.

        Raises:
            MeasurementError: the profile is empty or lacks calls.
        """
        if self._cost is None:
            self._cost = profiler_cost(self._open, self._threads)
        run = profile_calls(self._open, source, plain, bind, self._threads)
        profile = run.profile
        found = correct(run.traced, profile.n_inputs, profile.runs, self._cost)
        rows = zip(profile.names, profile.op_types, found.op_s, found.removed_s, strict=True)
        return OpTrace(
            ops=tuple(
                OpTime(
                    name=name,
                    op_type=op_type,
                    time_s=float(time_s),
                    removed_s=float(removed_s),
                    outputs=run.outputs.get(name, ()),
                )
                for name, op_type, time_s, removed_s in rows
            ),
            outside_s=found.outside_s,
            traced_s=run.traced.call_s,
            untraced_s=run.plain_s,
        )
