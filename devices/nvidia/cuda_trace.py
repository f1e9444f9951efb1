"""Where the GPU's time goes inside a network: events between its blocks, or torch's profiler.

The two are independent: events measure intervals of the stream, gaps included, while the network
runs as a graph as it does when it is timed; the profiler (CUPTI) measures kernels, launched one by
one. Neither is scaled to fit: what is left of the whole is told as time outside of the operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.devices.nvidia.cuda_timing import GpuTimer, Launch
from hwprof.errors import DeviceError
from hwprof.protocols import OpTime, OpTrace

if TYPE_CHECKING:
    from torch import nn

ROUNDS = 30
"""Replays with and without events, in turn."""
PROFILED_CALLS = 10


class Marks:
    """Events at the borders between the blocks of one of our own networks.

    A block's events are recorded by the graph itself (CUDA's *external* events), so that every
    replay times all of them.
    """

    def __init__(self, torch: Any, network: nn.Module) -> None:
        names = [node.name for node in _nodes(network)]
        # A block alone is one scope: there every operator stands between two events.
        is_alone = len({scope_of(name) for name in names}) == 1
        self._scope = (lambda name: name) if is_alone else scope_of
        self.blocks = [list(run) for _, run in groupby(names, self._scope)]
        """The operators between two events, in order."""
        make = partial(torch.cuda.Event, enable_timing=True, external=True)
        try:
            self._events = [make() for _ in range(len(self.blocks) + 1)]
        except TypeError as error:
            raise DeviceError(
                f"torch {torch.__version__} has no events inside graphs ({error}): update torch"
            ) from error
        self._network = network

    def launch(self, stream: Any, *inputs: Any) -> None:
        """Enqueue the network with an event before every block and one behind the last."""
        events = iter(self._events)
        current: str | None = None

        def before(node: str) -> None:
            nonlocal current
            if self._scope(node) != current:
                current = self._scope(node)
                next(events).record(stream)

        self._network(*inputs, before=before)
        next(events).record(stream)

    def times_s(self) -> list[float]:
        """Return every block's interval in the last replay."""
        pairs = zip(self._events, self._events[1:], strict=False)
        return [1e-3 * begun.elapsed_time(ended) for begun, ended in pairs]


def scope_of(node: str) -> str:
    """Return the block that an operator of our own networks belongs to."""
    return node.partition("/")[0]


def trace_blocks(torch: Any, plain: GpuTimer, network: nn.Module, image: Any) -> OpTrace:
    """Time the blocks of a network inside its graph; what events add shows as the slowdown.

    Args:
        torch: the module.
        plain: times the network without events.
        network: one of :func:`hwprof.graph.to_torch`.
        image: its input.

    Raises:
        DeviceError: torch has no events inside graphs, or the capture is refused.
    """
    marks = Marks(torch, network)

    def launch(stream: Any) -> None:
        with torch.inference_mode():
            marks.launch(stream, image)

    marked = GpuTimer(torch, launch, stream=plain.stream, pool=plain.pool)
    if not marked.is_graph:
        raise DeviceError(f"no graph with events can be captured: {marked.refusal}")
    plain_s, traced_s, blocks_s = [], [], []
    for _ in range(ROUNDS):
        plain_s += plain.gpu_times_s(1)
        traced_s += marked.gpu_times_s(1)
        blocks_s.append(marks.times_s())
    marked.close()
    each_s = np.median(np.array(blocks_s), axis=0)
    ops = tuple(
        # By the last operator's name, which the parts of a network are found by.
        OpTime(name=block[-1], op_type="block", time_s=float(time_s))
        for block, time_s in zip(marks.blocks, each_s, strict=True)
    )
    return OpTrace.adding_up(
        ops, traced_s=float(np.median(traced_s)), untraced_s=float(np.median(plain_s))
    )


def trace_operators(torch: Any, plain: GpuTimer, launch: Launch) -> OpTrace:
    """Time kernels with torch's profiler, all calls of an operator together.

    ``traced_s`` is a call launched kernel by kernel under the profiler, so beside a graph's the
    slowdown holds what the graph saves as well.

    Raises:
        DeviceError: the profiler sees no kernels.
    """
    eager = GpuTimer(torch, launch, capture=False, stream=plain.stream)
    plain_s = plain.gpu_times_s(PROFILED_CALLS, hide=plain.is_graph)
    with profiler(torch) as profile:
        traced_s = eager.gpu_times_s(PROFILED_CALLS, hide=False)
    events = profile.events()
    runs = Counter(str(event.name) for event in events if getattr(event, "kernels", ()))
    ops = tuple(
        OpTime(
            name=name,
            op_type=name,
            time_s=total_s / PROFILED_CALLS,
            count=max(round(runs[name] / PROFILED_CALLS), 1),
        )
        for name, total_s in kernel_times_s(events).items()
    )
    if not ops:
        raise DeviceError(
            "torch's profiler reports no kernels, so nothing is known of the operators: see "
            "whether another profiler holds the GPU"
        )
    return OpTrace.adding_up(
        ops, traced_s=float(np.median(traced_s)), untraced_s=float(np.median(plain_s))
    )


def profiler(torch: Any) -> Any:
    """Return torch's profiler of host operators and GPU kernels."""
    activity = torch.profiler.ProfilerActivity
    return torch.profiler.profile(activities=[activity.CPU, activity.CUDA])


def profiled_blocks_s(torch: Any, network: nn.Module, image: Any, calls: int) -> dict[str, float]:
    """Return the kernel time of every block, per call: the check on :func:`trace_blocks`."""
    scopes = {scope_of(node.name) for node in _nodes(network)}

    def run() -> None:
        current: str | None = None
        with torch.inference_mode(), ExitStack() as stack:

            def before(node: str) -> None:
                nonlocal current
                if scope_of(node) != current:
                    current = scope_of(node)
                    stack.close()
                    stack.enter_context(torch.profiler.record_function(current))

            network(image, before=before)

    run()
    torch.cuda.synchronize()
    with profiler(torch) as profile:
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
    found = kernel_times_s(profile.events(), scopes)
    return {name: total_s / calls for name, total_s in found.items()}


def kernel_times_s(events: Any, scopes: Collection[str] = ()) -> dict[str, float]:
    """Sum kernels by the host's operator that launched them, or by the scope round it.

    Args:
        events: ``profile.events()``: those of the host hold their kernels (µs) and their parent.
        scopes: names of ``record_function`` that stand for all inside them.
    """
    totals_s: dict[str, float] = {}
    for event in events:
        kernels = getattr(event, "kernels", ())
        if not kernels:
            continue
        label = _label(event, scopes)
        if label is not None:
            # A scope may come back as a range of the GPU's: that is its kernels once more.
            spent_us = (float(k.duration) for k in kernels if k.name not in scopes)
            spent_s = 1e-6 * sum(spent_us)
            totals_s[label] = totals_s.get(label, 0.0) + spent_s
    return totals_s


def _label(event: Any, scopes: Collection[str]) -> str | None:
    if not scopes:
        return str(event.name)
    around = event
    while around is not None:
        if around.name in scopes:
            return str(around.name)
        around = around.cpu_parent
    return None


def _nodes(network: nn.Module) -> Any:
    graph: Any = network.graph
    return graph.live_nodes
