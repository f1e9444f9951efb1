"""Facts, outputs, agreement of the instruments, batch sizes: sections of ``gpu_check.py``."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, cast

import numpy as np

import hwprof
from hwprof.devices import device_ref, list_devices, open_device
from hwprof.devices.host import max_rel_error, random_inputs
from hwprof.devices.nvidia.cuda import CudaAdapter, CudaExecutable
from hwprof.devices.nvidia.cuda_memory import one_line
from hwprof.devices.nvidia.cuda_timing import GpuTimer
from hwprof.devices.nvidia.cuda_trace import profiled_blocks_s
from hwprof.errors import HwprofError
from hwprof.graph import to_torch, workload_graph
from hwprof.measure.records import DeviceOptions, Precision, plan_for
from hwprof.space import read_architecture
from hwprof.workload import InputSpec, Workload

GPU_DEVICES = ("cuda", "cuda-eager", "cuda-compiled", "cuda-ort", "tensorrt")
NETWORK = "proxyless-gpu"
ROUND_OFF = {"fp32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Unit round-off of each type's significand."""
LAYERS_OF_ERROR = 50
"""Errors of so many layers in a row, as if none cancelled; fp32 has the contract tests' bar."""
FP32_BAR = 1e-4
SWEEP = (1, 8, 32, 128)
AGREEMENT_BATCH = 512
"""So much work a kernel that the gaps between them, which not every instrument sees, are little: some
200 kernels with a microsecond each beside 20 ms or more are within the 1 % that is claimed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; ``holds`` None where nothing is claimed."""

    section: str
    what: str
    value: str
    bar: str = ""
    holds: bool | None = None


def usable() -> list[str]:
    """Return the GPU devices that can be used here."""
    return [s.name for s in list_devices() if s.name in GPU_DEVICES and s.available]


def facts() -> Iterator[Row]:
    """Say what is here, and what is missing."""
    row = partial(Row, section="facts")
    for status in list_devices():
        if status.name in GPU_DEVICES:
            yield row(what=status.name, value=status.runtime_version or "-", bar=status.reason)
    adapter = open_gpu(1, "fp32")
    for name, value in adapter.fingerprint().stable.items():
        yield row(what=name, value=str(value))
    for name, reading in (adapter.sensors.state().readings if adapter.sensors else {}).items():
        yield row(what=name, value=f"{reading:g}")
    for warning in adapter.warnings:
        yield row(what=warning, value="warning")


def open_gpu(batch: int, precision: Precision) -> CudaAdapter:
    """Return the torch adapter."""
    return CudaAdapter(DeviceOptions(batch=batch, precision=precision))


def network() -> Workload:
    """Return the network of all sections but the effects."""
    return Workload.network(read_architecture(NETWORK), NETWORK)


def compiled(batch: int = 1, precision: Precision = "fp32") -> CudaExecutable:
    """Return that network on the GPU."""
    return open_gpu(batch, precision).compile(network(), plan_for("quick"))


def outputs() -> Iterator[Row]:
    """Compare every device and precision with float64 on the host."""
    import torch

    workload = network()
    graph = workload_graph(workload)
    first = graph.inputs[0]
    inputs = random_inputs([InputSpec(name=first.name, shape=(1, *first.shape))], seed=7)
    module = to_torch(graph, seed=workload.seed).eval().double()
    with torch.inference_mode():
        expected = module(torch.from_numpy(inputs[first.name]).double()).numpy()
    for device in usable():
        for precision, round_off in ROUND_OFF.items():
            bar = FP32_BAR if precision == "fp32" else LAYERS_OF_ERROR * round_off
            options = DeviceOptions(precision=cast(Precision, precision))
            what = f"{device} {precision}: largest relative error"
            work = partial(_output, what, device, options, workload, inputs, expected, bar)
            yield attempted("outputs", what, work)


def _output(
    what: str,
    device: str,
    options: DeviceOptions,
    workload: Workload,
    inputs: Any,
    expected: Any,
    bar: float,
) -> Row:
    adapter = open_device(device_ref(device, options))
    if not (support := adapter.supports(workload)).ok:
        return Row(section="outputs", what=f"{device} {options.precision}", value=support.reason)
    executable = adapter.compile(workload, plan_for("quick"))
    error = max_rel_error(executable.outputs(inputs), [expected])
    executable.close()
    return Row(
        section="outputs",
        what=what,
        value=f"{error:.1e}",
        bar=f"<= {bar:.1e}",
        holds=error <= bar,
    )


def attempted(section: str, what: str, work: Callable[[], Row]) -> Row:
    """Return the row that ``work`` makes; one that fails where it raises: others go on."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever a library raises that never met this GPU
        if not isinstance(error, (HwprofError, MemoryError)):
            traceback.print_exc()
        told = f"{type(error).__name__}: {one_line(error)}"
        return Row(section=section, what=what, value=told, holds=False)


def agreement() -> Iterator[Row]:
    """Golden check 13: independent instruments must agree, and a flush must show."""
    import torch

    def spin(cycles: int) -> float:
        timer = GpuTimer(torch, lambda _: torch.cuda._sleep(cycles))
        return median(timer.gpu_times_s(9))

    executable = compiled(batch=AGREEMENT_BATCH)
    executable.burst(0.05, 5, "hot")  # works until the clock holds
    whole_s = median(executable.timer.gpu_times_s(15))

    def stream_s() -> float:
        stream = GpuTimer(torch, executable._launch, capture=False)
        return median(stream.gpu_times_s(15))

    def blocks_s() -> float:
        return sum(op.time_s for op in executable.trace().ops)

    def kernels_s() -> float:
        module, image = executable._eager, executable._inputs[0]
        return sum(profiled_blocks_s(torch, module, image, calls=10).values())

    instruments: list[tuple[str, Callable[[], float], Callable[[], float], float]] = [
        # Long enough that what a launch takes, some µs, does not count.
        (
            "a spin of four times the cycles takes four times as long",
            lambda: spin(20_000_000),
            lambda: 4 * spin(5_000_000),
            0.01,
        ),
        ("stream, launch hidden, over graph", stream_s, lambda: whole_s, 0.03),
        ("blocks between events in the graph, over the whole", blocks_s, lambda: whole_s, 0.01),
        ("kernels of the profiler, over the whole", kernels_s, lambda: whole_s, 0.01),
    ]
    for what, one_s, other_s, within in instruments:
        work = partial(_ratio, what, one_s, other_s, within)
        yield attempted("agreement", what, work)
    executable.close()
    yield attempted("agreement", "cold over hot", partial(_flush, torch))


def _ratio(
    what: str, one_s: Callable[[], float], other_s: Callable[[], float], within: float
) -> Row:
    ratio = one_s() / other_s()
    return Row(
        section="agreement",
        what=what,
        value=f"{ratio:.4f}",
        bar=f"1 ± {within:g}",
        holds=abs(ratio - 1.0) <= within,
    )


def _flush(torch: Any) -> Row:
    """Add to what fits into the L2 cache, with and without a flush: a kernel, unlike a copy."""
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    source = torch.randn(l2_bytes // 16, device="cuda")
    target = torch.empty_like(source)
    timer = GpuTimer(torch, lambda _: torch.add(source, 1.0, out=target))
    hot, cold = (timer.burst(0.05, 10, cache) for cache in ("hot", "cold"))
    times = [float(np.median(b.duration_ns[1:] / b.calls_per_sample)) for b in (hot, cold)]
    return Row(
        section="agreement",
        what="cold over hot, for an addition to a quarter of the L2 cache",
        value=f"{times[1] / times[0]:.2f}",
        bar="> 1.05",
        holds=times[1] > 1.05 * times[0],
    )


def batches() -> Iterator[Row]:
    """Time a network at several batch sizes on every device."""
    for device in usable():
        try:
            rows = hwprof.bench_batches(NETWORK, SWEEP, device=device, preset="quick")
        except HwprofError as refused:  # at every size; the other devices go on
            yield Row(section="batches", what=device, value=str(refused), holds=False)
            continue
        for found in rows:
            what = f"{device}, batch {found.batch}"
            measured = found.measurement
            if measured is None:
                yield Row(section="batches", what=what, value=found.failure, holds=False)
                continue
            times = [
                1e6 * measured.telemetry[f"{name}_median_s"]
                for name in ("gpu", "enqueue", "end_to_end")
            ]
            yield Row(
                section="batches",
                what=f"{what}: level; GPU, enqueue, end to end in µs",
                value=f"{1e3 * measured.level_s:.3f} ms",
                bar=" ".join(f"{t:.0f}" for t in times) + f" {measured.verdict}",
            )
