"""Operator traces from several fresh processes, one running at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from hwprof.errors import CompileError, DeviceError, MeasurementError
from hwprof.measure.kinds import error_class
from hwprof.measure.pool import Pool, refusal
from hwprof.measure.process import Worker, WorkerFault
from hwprof.measure.records import DeviceRef, MeasurePlan
from hwprof.parts.tracer import LOWEST_BURSTS, lowest
from hwprof.progress import Progress, ProgressCallback
from hwprof.protocols import OpTime, OpTrace
from hwprof.workload import Workload

TRACING_DEVICES = ("cpu", "cpu-torch", "cuda", "cuda-eager", "cuda-compiled", "tensorrt")


def trace_workloads(
    workloads: Sequence[Workload],
    device: DeviceRef,
    plan: MeasurePlan,
    progress: ProgressCallback | None = None,
) -> list[tuple[OpTrace, ...]]:
    """Return traces of every workload, one from each of ``plan.workers`` fresh processes.

    Raises:
        DeviceError: the device has no operator trace, or a process did not survive it.
        ModelError: a model cannot be used.
    """
    for workload in workloads:
        if (failure := refusal(device, workload)) is not None:
            raise CompileError(f"{workload.label}: {failure.message}")
    found: list[list[OpTrace]] = [[] for _ in workloads]
    with Pool(device, 0) as pool:
        workers, _ = pool.start(plan.workers)
        for number, worker in enumerate(workers):
            pool.run_only(worker)
            for index, workload in enumerate(workloads):
                if progress is not None:
                    done, total = number * len(workloads) + index, len(workers) * len(workloads)
                    label = workload.label
                    progress(Progress(stage="trace", done=done, total=total, label=label))
                found[index].append(_trace(worker, workload, plan, device.name))
    return [tuple(traces) for traces in found]


def fastest(traces: Sequence[OpTrace]) -> tuple[OpTrace, ...]:
    """Return the traces of the fastest half of the processes: some stay in a slow mode for life.

    Processes are ranked by what was measured, not by what correcting made of it.
    """
    traced_s = np.array([trace.traced_s for trace in traces])
    return tuple(traces[i] for i in lowest(traced_s, LOWEST_BURSTS))


def _trace(worker: Worker, workload: Workload, plan: MeasurePlan, device: str) -> OpTrace:
    data, timeout_s = workload.to_json(), plan.timeout_s
    try:
        support = worker.request("supports", timeout_s, workload=data).header
        if not support["ok"]:
            raise CompileError(f"{workload.label}: {support['reason']}")
        worker.request("compile", timeout_s, workload=data, plan=asdict(plan))
    except WorkerFault as fault:
        raise error_class(fault.kind)(f"{workload.label}: {fault}") from fault
    try:
        header = worker.request("trace", timeout_s, key=workload.key).header["trace"]
        worker.request("drop", timeout_s, key=workload.key)
    except WorkerFault as fault:
        if fault.lost or device.partition("@")[0] in TRACING_DEVICES:
            raise MeasurementError(f"{workload.label}: tracing failed: {fault}") from fault
        raise DeviceError(
            f"{device!r} gives no operator trace ({fault}); devices that do: "
            f"{', '.join(TRACING_DEVICES)}"
        ) from fault
    ops = tuple(
        OpTime(**{**op, "outputs": tuple(op["outputs"]), "members": tuple(op["members"])})
        for op in header["ops"]
    )
    return OpTrace(**{**header, "ops": ops})
