"""What a trace on a GPU tells: blocks by events between them, operators by torch's profiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hwprof.campaign import plan_campaign
from hwprof.devices.nvidia.cuda import CudaEagerAdapter
from hwprof.devices.nvidia.cuda_trace import PROFILED_CALLS, kernel_times_s
from hwprof.errors import DeviceError
from hwprof.parts.assembly import written_nodes
from hwprof.parts.grouping import group_operators
from hwprof.space import get_space, space_of
from hwprof.testing import block
from tests.devices.cuda_adapters import PLAN, adapter, compiled
from tests.devices.fake_cuda import CALL_NS, FakeGpu

pytest.importorskip("torch")


def test_trace_times_the_blocks_of_a_network_between_events() -> None:
    """In a graph of 30 µs all kernels belong to the first block: the intervals add up to it."""
    executable = compiled(FakeGpu(), block("mbconv"))
    trace = executable.trace()
    names = {op.name for op in trace.ops}
    assert all(name.startswith("mbconv") for name in names)
    assert len(names) == len(trace.ops) > 3
    assert sum(op.time_s for op in trace.ops) + trace.outside_s == pytest.approx(trace.traced_s)
    assert trace.untraced_s == pytest.approx(CALL_NS * 1e-9, abs=0.5e-6)


def test_trace_of_a_network_is_found_back_by_its_blocks() -> None:
    workload = plan_campaign(get_space("mobile-mini"), 0, 1, isolated=False).networks[0]
    assert workload.arch is not None
    scopes = [place.scope for place in space_of(workload.arch).pieces(workload.arch)]
    ops = compiled(FakeGpu(), workload).trace().ops
    groups = group_operators(ops, written_nodes(workload), scopes)
    assert groups.grouped_by == "blocks"
    assert list(groups.parts) == [scope for scope in scopes if scope in groups.parts]
    assert len(set(groups.parts)) == len(ops) > 3


def test_trace_needs_events_inside_graphs() -> None:
    executable = compiled(FakeGpu())

    def event(**options: object) -> None:
        raise TypeError("unexpected keyword argument 'external'")

    executable._torch.cuda.Event = event
    with pytest.raises(DeviceError, match="no events inside graphs"):
        executable.trace()


def test_a_profiler_that_sees_no_kernels_says_so() -> None:
    @contextmanager
    def profile(**_: object) -> Iterator[Any]:
        yield SimpleNamespace(events=list)

    blind = SimpleNamespace(profile=profile, ProfilerActivity=SimpleNamespace(CPU=0, CUDA=1))
    opened = adapter(kind=CudaEagerAdapter, replaced={"profiler": blind})
    with pytest.raises(DeviceError, match="no kernels"):
        opened.compile(block("mbconv"), PLAN).trace()


def test_operators_are_counted_by_call() -> None:
    """The profiler lists every run of an operator: two convolutions and a sum in each call."""
    call = [
        _event("aten::conv2d", (5.0,)),
        _event("aten::conv2d", (3.0,)),
        _event("aten::add", (1.0,)),
    ]

    @contextmanager
    def profile(**_: object) -> Iterator[Any]:
        yield SimpleNamespace(events=lambda: call * PROFILED_CALLS)

    scripted = SimpleNamespace(profile=profile, ProfilerActivity=SimpleNamespace(CPU=0, CUDA=1))
    opened = adapter(kind=CudaEagerAdapter, replaced={"profiler": scripted})
    trace = opened.compile(block("mbconv"), PLAN).trace()
    assert {op.name: op.count for op in trace.ops} == {"aten::conv2d": 2, "aten::add": 1}
    assert [op.time_s for op in trace.ops] == pytest.approx([8e-6, 1e-6])


def _event(name: str, kernels: tuple[float, ...] = (), parent: Any = None) -> Any:
    found = [SimpleNamespace(name="kernel", duration=us) for us in kernels]
    return SimpleNamespace(name=name, kernels=found, cpu_parent=parent)


def test_kernels_are_summed_by_operator_or_by_the_scope_round_it() -> None:
    first, second = _event("u0.l1"), _event("u0.l2")
    conv = _event("aten::conv2d", parent=first)
    events = [
        first,
        conv,
        _event("aten::cudnn_convolution", (5.0, 2.5), conv),
        _event("aten::add", (1.5,), second),
        _event("aten::add", (1.0,), None),
    ]
    assert kernel_times_s(events) == pytest.approx(
        {"aten::cudnn_convolution": 7.5e-6, "aten::add": 2.5e-6}
    )
    assert kernel_times_s(events, {"u0.l1", "u0.l2"}) == pytest.approx(
        {"u0.l1": 7.5e-6, "u0.l2": 1.5e-6}
    )


def test_a_scopes_own_range_on_the_gpu_does_not_count_again() -> None:
    first = _event("u0.l1")
    first.kernels.append(SimpleNamespace(name="u0.l1", duration=9.0))
    events = [first, _event("aten::cudnn_convolution", (5.0, 2.5), first)]
    assert kernel_times_s(events, {"u0.l1"}) == pytest.approx({"u0.l1": 7.5e-6})
