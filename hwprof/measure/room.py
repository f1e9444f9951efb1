"""How many workloads share a group of workers: no more than the memories hold.

All workers of a group live at once, the parked ones too, and each holds every workload. What it
holds is in the host's memory and, where the device has a memory of its own, in that one as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from hwprof.graph import workload_graph
from hwprof.measure.pool import Launcher, launcher_for
from hwprof.measure.records import DeviceRef, MeasurePlan
from hwprof.workload import Workload, model_files

GROUP_SIZE = 31
"""Candidates a group; with the reference block 32 share a worker."""
MEMORY_SHARE = 0.25
"""Share of the host's free memory that the weights of a group may take, over all workers."""
BYTES_PER_WEIGHT_BYTE = 3
"""A runtime holds the file's weights, its own layout of them, and work space."""
DEVICE_SHARE = 0.75
"""Share of the device's free memory that a group may take, over all workers. Free it is when groups
are formed, and what others take later is not known."""
CONTEXT_BYTES = 512 * 2**20
"""What a process takes on a device before its first model: a CUDA context with the kernels of its
libraries is 300 to 500 MiB."""
TENSORS_AT_ONCE = 4
"""So many times the largest tensor is what a call works in: an operator's input and output, what a
shortcut keeps, and the library's own work space."""
LEAST_WORK_BYTES = 64 * 2**20
"""What a call works in, at least, and where nothing is known of the model: the library's part."""
_FLOAT_BYTES = 4


def groups(
    workloads: Sequence[Workload], device: DeviceRef, plan: MeasurePlan
) -> Iterator[list[Workload]]:
    """Yield the groups, in order: at most 31, and no more than fit in memory, but always one.

    A runtime with several threads gets a process for itself, so a group is one candidate.
    """
    if device.options.threads > 1:
        yield from ([w] for w in workloads)
        return
    host_limit, device_limit = limits(launcher_for(device), plan.workers)
    batch = device.options.batch
    group: list[Workload] = []
    on_host = on_device = 0.0
    for workload in workloads:
        host_need = weight_bytes(workload)
        device_need = device_bytes(workload, batch) if math.isfinite(device_limit) else 0.0
        too_heavy = on_host + host_need > host_limit or on_device + device_need > device_limit
        if group and (len(group) == GROUP_SIZE or too_heavy):
            yield group
            group, on_host, on_device = [], 0.0, 0.0
        group.append(workload)
        on_host += host_need
        on_device += device_need
    if group:
        yield group


def limits(launcher: Launcher, workers: int) -> tuple[float, float]:
    """Return the bytes of weights on the host, and of all on the device, that a worker may hold.

    Infinite where it is not known how much is free, or the device has no memory of its own.
    """
    free, on_device = launcher.free_memory_bytes(), launcher.free_device_bytes()
    return (
        math.inf if free is None else MEMORY_SHARE * free / (workers * BYTES_PER_WEIGHT_BYTE),
        math.inf if on_device is None else DEVICE_SHARE * on_device / workers - CONTEXT_BYTES,
    )


def weight_bytes(workload: Workload) -> int:
    """Return what the weights of a workload take, as far as it can be told beforehand."""
    if workload.path is not None:
        path = Path(workload.path)
        return sum(p.stat().st_size for p in model_files(path)) if path.exists() else 0
    # A callable's module is not known before it is called: it is alone or among its like.
    return 0 if workload.target is not None else _FLOAT_BYTES * workload_graph(workload).params


def device_bytes(workload: Workload, batch: int) -> float:
    """Return what a workload takes on a device with memory of its own, as far as it can be told.

    Weights as on the host; inputs and outputs; and what a call works in, as if no two workloads
    shared it (ONNX Runtime and TensorRT keep one for each).
    """
    weights = float(BYTES_PER_WEIGHT_BYTE * weight_bytes(workload))
    if workload.path is not None or workload.target is not None:
        return weights + LEAST_WORK_BYTES
    graph = workload_graph(workload)
    inputs = [math.prod(t.shape) for t in graph.inputs]
    made = [math.prod(node.shape) for node in graph.live_nodes]
    work = _FLOAT_BYTES * batch * (sum(inputs) + TENSORS_AT_ONCE * max((*inputs, *made)))
    return weights + max(work, LEAST_WORK_BYTES)
