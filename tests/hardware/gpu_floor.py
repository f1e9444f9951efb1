"""How far from the machine's floor a network is, and what a search step takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import numpy as np

from hwprof.devices.nvidia.cuda_timing import GpuTimer
from hwprof.devices.nvidia.cuda_trace import profiler
from hwprof.graph import Graph, workload_graph
from tests.hardware.gpu_sections import Row, compiled, network

GIB = 2**30
TINY_KERNELS = 200
PLACE = "cuda"
SEARCH_SPACE, SEARCH_BATCH = "proxylessnas", 64
STEPS = 5


def floors() -> Iterator[Row]:
    """Put the network's time beside what bandwidth, matrix rate and launches allow."""
    import torch

    bandwidth, rate, launch_s = machine_rates(torch)
    rates = (
        ("memory bandwidth (copy)", f"{bandwidth / 1e9:,.0f} GB/s"),
        ("matrix rate (fp32, TF32 off)", f"{rate / 1e12:.1f} TMAC/s"),
        ("a launch inside a graph", f"{1e6 * launch_s:.2f} µs"),
    )
    for what, value in rates:
        yield Row(section="floor", what=what, value=value)
    graph = workload_graph(network())
    for batch in (1, 32):
        executable = compiled(batch=batch)
        spent_s = median(executable.timer.gpu_times_s(15))
        kernels = count_kernels(torch, executable.timer.run, executable._launch)
        parts = {
            "bytes": moved_bytes(graph, batch) / bandwidth,
            "MACs": batch * graph.macs / rate,
            "launches": kernels * launch_s,
        }
        bound, floor_s = max(parts.items(), key=lambda item: item[1])
        told = ", ".join(f"{name} {1e6 * s:.0f}" for name, s in parts.items())
        yield Row(
            section="floor",
            what=f"batch {batch}: time over its floor ({bound}; {kernels} kernels)",
            value=f"{spent_s / floor_s:.2f}",
            bar=f"µs: {1e6 * spent_s:.0f}; {told}",
        )
        executable.close()


def machine_rates(torch: Any) -> tuple[float, float, float]:
    """Return bytes/s of a copy, MACs/s of a large product, and seconds a launch in a graph."""
    source = torch.randn(GIB // 4, device="cuda")
    target = torch.empty_like(source)
    copy_s = min(GpuTimer(torch, lambda _: target.copy_(source)).gpu_times_s(9))
    torch.backends.cuda.matmul.allow_tf32 = False  # whatever a section before has set
    n = 8192
    left, right = torch.randn(n, n, device="cuda"), torch.randn(n, n, device="cuda")
    product_s = min(GpuTimer(torch, lambda _: torch.mm(left, right)).gpu_times_s(5))
    tiny = torch.zeros(1, device="cuda")

    def launches(_: object) -> None:
        for _ in range(TINY_KERNELS):
            tiny.add_(1.0)

    launch_s = min(GpuTimer(torch, launches).gpu_times_s(9)) / TINY_KERNELS
    return 2 * GIB / copy_s, n**3 / product_s, launch_s


def moved_bytes(graph: Graph, batch: int) -> float:
    """Return the fewest bytes that operators one by one move: inputs, outputs, weights, fp32."""
    sizes = {t.name: math.prod(t.shape) for t in graph.inputs}
    moved = 0
    for node in graph.live_nodes:
        sizes[node.name] = math.prod(node.shape)
        moved += sizes[node.name] + sum(sizes[name] for name in node.inputs)
    return 4.0 * (batch * moved + graph.params)


def count_kernels(torch: Any, warm: Callable[[], None], launch: Callable[[Any], object]) -> int:
    """Return how many kernels one call launches, by torch's profiler."""
    warm()
    with profiler(torch) as profile:
        launch(None)
        torch.cuda.synchronize()
    return sum(len(getattr(event, "kernels", ())) for event in profile.events())


def search_steps() -> Iterator[Row]:
    """Say the peak memory and the images per second of ProxylessNAS's steps."""
    import torch
    from torch.nn import functional

    from hwprof.search.proxyless.choices import Choices
    from hwprof.search.proxyless.plans import full_plan, run_plan
    from hwprof.search.supernets.gates import GatePlan, frozen
    from hwprof.search.supernets.supernet import Supernet
    from hwprof.space import get_space

    # What a section before has set is not what a search computes in: torch's own defaults.
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    space = get_space(SEARCH_SPACE)
    net = Supernet(space, seed=0).to(PLACE)
    choices = Choices(space, seed=0)
    path = choices.draw(np.random.default_rng(0))
    side = space.resolution_px
    images = torch.randn(SEARCH_BATCH, 3, side, side, device=PLACE)
    labels = torch.zeros(SEARCH_BATCH, dtype=torch.int64, device=PLACE)

    def step(plan: GatePlan) -> None:
        net.zero_grad(set_to_none=True)
        functional.cross_entropy(net(images, plan), labels).backward()

    def architecture() -> None:
        with frozen(net):
            step(full_plan(path, choices.probabilities(), recompute=True))

    for what, work in (
        ("weight step", lambda: step(run_plan(path))),
        ("architecture step, recomputed", architecture),
    ):
        work()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started_s = time.perf_counter()
        for _ in range(STEPS):
            work()
        torch.cuda.synchronize()
        each_s = (time.perf_counter() - started_s) / STEPS
        peak = torch.cuda.max_memory_allocated() / GIB
        yield Row(
            section="search",
            what=f"{SEARCH_SPACE} at {side} px, batch {SEARCH_BATCH}: {what}",
            value=f"{SEARCH_BATCH / each_s:,.0f} images/s",
            bar=f"{peak:.2f} GiB",
        )
