"""GPU timing against a scripted GPU, whose own times are known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwprof.devices.nvidia.cuda_timing import GpuTimer, calls_between_events, hold_clock
from hwprof.errors import MeasurementError
from tests.devices.fake_cuda import EVENT_NS, FakeGpu, fake_torch, network


def timer(gpu: FakeGpu, n_kernels: int, kernel_ns: int, **options: Any) -> GpuTimer:
    launch = network(gpu, n_kernels, kernel_ns)
    return GpuTimer(fake_torch(gpu), launch, clock_ns=gpu.clock_ns, **options)


@pytest.mark.parametrize(("n_kernels", "kernel_ns"), [(1, 3_000), (50, 2_000), (50, 100_000)])
def test_a_graph_gives_the_gpus_own_time(n_kernels: int, kernel_ns: int) -> None:
    """The host takes 5 µs a kernel: a launch-bound network's GPU time must not hold that."""
    burst = timer(FakeGpu(), n_kernels, kernel_ns).burst(0.0, 7, "hot")
    per_call = burst.duration_ns / burst.calls_per_sample
    resolution = EVENT_NS / burst.calls_per_sample
    assert per_call == pytest.approx(n_kernels * kernel_ns, abs=resolution)
    assert burst.duration_ns.min() >= 200_000 - EVENT_NS
    assert np.all(burst.start_ns[1:] >= burst.start_ns[:-1] + burst.duration_ns[:-1])


def test_three_times_are_kept_apart() -> None:
    """A replay costs the host one launch; end to end is that, the GPU's time, and the waiting."""
    gpu = FakeGpu()
    burst = timer(gpu, 50, 20_000).burst(0.0, 5, "hot")
    assert burst.enqueue_ns is not None
    assert burst.end_to_end_ns is not None
    assert burst.enqueue_ns.shape == burst.end_to_end_ns.shape == burst.duration_ns.shape
    assert burst.enqueue_ns == pytest.approx(gpu.host_launch_ns, abs=100)
    assert burst.end_to_end_ns == pytest.approx(gpu.host_launch_ns + 50 * 20_000, rel=0.01)
    assert burst.wait_ns is None


def test_without_a_graph_a_launch_bound_network_takes_the_hosts_time() -> None:
    """50 kernels of 2 µs that the host launches in 5 µs each: the GPU waits, and that is said."""
    found = timer(FakeGpu(), 50, 2_000, capture=False)
    assert not found.is_graph
    burst = found.burst(0.0, 5, "hot")
    per_call = burst.duration_ns / burst.calls_per_sample
    assert per_call == pytest.approx(50 * 5_000, rel=0.02)


def test_events_with_nothing_between_them_may_tell_the_same_time() -> None:
    """They lie closer than they resolve then: that says nothing of the work."""
    found = timer(FakeGpu(event_gap_ns=0), 1, 3_000, capture=False)
    assert found.burst(0.0, 3, "hot").n_samples >= 3


def test_a_refused_capture_says_why_and_goes_on() -> None:
    gpu = FakeGpu(refuses_capture="operation not permitted when stream is capturing\nmore")
    found = timer(gpu, 3, 50_000)
    assert found.refusal == "operation not permitted when stream is capturing"
    assert not found.is_graph
    assert found.burst(0.0, 3, "hot").n_samples >= 3


def test_a_refused_capture_leaves_the_next_one_free() -> None:
    """torch's allocators stay in a capture that failed, or in its pool: no other could begin."""
    gpu = FakeGpu(refuses_capture="operation not permitted when stream is capturing")
    pool = object()
    assert not timer(gpu, 3, 50_000, pool=pool).is_graph
    gpu.refuses_capture = None
    assert timer(gpu, 3, 50_000, pool=pool).is_graph


def test_a_graph_works_in_memory_of_its_own() -> None:
    """torch frees cuBLAS's space of a stream with any graph of it; the others keep its address."""
    gpu = FakeGpu()

    def launch(_: object) -> None:
        gpu.multiply()
        gpu.kernel(30_000)

    for _ in range(2):
        GpuTimer(fake_torch(gpu), launch, clock_ns=gpu.clock_ns).burst(0.0, 2, "hot")
    assert len(gpu.workspaces) > 6
    assert all(used is own for own, used in gpu.workspaces)
    assert gpu.workspace is None


@pytest.mark.parametrize("is_old", [False, True])
def test_a_refused_capture_gives_back_what_it_took(is_old: bool) -> None:
    """Else every workload that cannot be captured keeps its tensors' room for the worker's life."""
    gpu = FakeGpu(refuses_capture="operation not permitted when stream is capturing")
    torch = fake_torch(gpu)
    if is_old:
        native = torch._C
        native._cuda_endAllocateCurrentStreamToPool = native._cuda_endAllocateToPool
        del native._cuda_endAllocateToPool
    assert GpuTimer(torch, network(gpu, 3, 50_000), clock_ns=gpu.clock_ns).refusal
    assert gpu.stuck_in is None
    assert gpu.released == gpu.spoiled != []


def test_random_numbers_are_drawn_after_a_refused_capture() -> None:
    """Before 2.13 torch counts them for the capture until one has ended well."""
    gpu = FakeGpu(refuses_capture="operation not permitted when stream is capturing")
    kernel = network(gpu, 1, 50_000)

    def launch(stream: object) -> None:
        gpu.draw()
        kernel(stream)

    found = GpuTimer(fake_torch(gpu), launch, clock_ns=gpu.clock_ns)
    assert found.refusal == "operation not permitted when stream is capturing"
    assert found.burst(0.0, 3, "hot").n_samples >= 3


@pytest.mark.parametrize("capture", [True, False])
def test_cold_calls_are_flushed_and_their_launch_is_hidden(capture: bool) -> None:
    """Even where the host needs longer than the GPU: 40 launches of 5 µs, 40 kernels of 1 µs."""
    gpu = FakeGpu(cold_factor=9.0)
    found = timer(gpu, 40, 1_000, capture=capture)
    gpu.launched.clear()
    burst = found.burst(0.0, 4, "cold")
    assert burst.calls_per_sample == 1
    assert burst.duration_ns == pytest.approx(40 * 1_000 + 8 * 1_000, abs=EVENT_NS)
    assert found.unhidden_share == 0.0
    assert gpu.launched.count("flush") >= 8, "the call timed by the host is cold as well"


def test_what_cannot_be_hidden_is_counted() -> None:
    """A host so slow that no spin covers it: 100,000 launches a call."""
    gpu = FakeGpu(host_launch_ns=2_000_000)
    found = timer(gpu, 60, 1_000, capture=False)
    found.burst(0.0, 2, "cold")
    assert found.unhidden_share == 1.0


def test_the_probe_tells_the_clock() -> None:
    slow, fast = (timer(FakeGpu(ghz=ghz), 1, 9_000).clock_probe_ns() for ghz in (1.0, 2.0))
    assert slow == pytest.approx(2 * fast, rel=0.01)


def test_the_probe_goes_with_the_burst() -> None:
    assert timer(FakeGpu(ghz=2.0), 1, 9_000).burst(0.0, 2, "hot").probe_ns == 100_000


def test_no_work_between_the_events_is_no_number() -> None:
    """Though the events themselves lie apart."""
    gpu = FakeGpu()
    found = GpuTimer(fake_torch(gpu), lambda _: None, clock_ns=gpu.clock_ns)
    with pytest.raises(MeasurementError, match="runs no kernel"):
        found.burst(0.0, 2, "hot")


def test_a_full_gpu_is_out_of_memory() -> None:
    found = timer(FakeGpu(memory_bytes=2**20), 1, 9_000)
    with pytest.raises(MemoryError, match="Tried to allocate"):
        found.burst(0.0, 2, "cold")


@pytest.mark.parametrize(
    ("call_s", "expected"), [(1e-3, 1), (200e-6, 1), (199e-6, 2), (2e-6, 100), (0.0, 1000)]
)
def test_calls_between_events(call_s: float, expected: int) -> None:
    assert calls_between_events(call_s) == expected


class Clock:
    """A clock of the GPU that follows a list, one reading every 50 ms."""

    def __init__(self, *mhz: float) -> None:
        self._mhz, self.now_s = list(mhz), 0.0

    def read(self) -> float:
        return self._mhz.pop(0) if len(self._mhz) > 1 else self._mhz[0]

    def tick(self) -> None:
        self.now_s += 0.05


@pytest.mark.parametrize(
    ("mhz", "took_s"), [((1500.0,), 0.25), ((300.0, 900.0, 1500.0, 1980.0), 0.40)]
)
def test_the_clock_must_hold_for_200_ms(mhz: tuple[float, ...], took_s: float) -> None:
    clock = Clock(*mhz)
    assert hold_clock(clock.read, clock.tick, lambda: clock.now_s)
    assert clock.now_s == pytest.approx(took_s, abs=0.051)


def test_a_clock_that_never_holds_is_given_up() -> None:
    clock = Clock(*(1000.0 + 200 * (i % 2) for i in range(500)))
    assert not hold_clock(clock.read, clock.tick, lambda: clock.now_s)
    assert clock.now_s == pytest.approx(5.05, abs=0.06)


@pytest.mark.parametrize("capture", [True, False])
@pytest.mark.parametrize("cache", ["hot", "cold"])
def test_a_launch_that_gives_the_gpu_nothing_to_do_has_no_time(capture: bool, cache: Any) -> None:
    """Round no work at all events still lie 1.5 µs apart, which is nobody's latency."""
    with pytest.raises(MeasurementError, match="nothing to do"):
        timer(FakeGpu(), 0, 0, capture=capture).burst(0.0, 3, cache)
    assert timer(FakeGpu(), 1, 3_000, capture=capture).burst(0.0, 3, cache).n_samples >= 3


def test_a_capture_that_finds_no_memory_is_no_refusal() -> None:
    """Launched kernel by kernel it would give another number than asked for, with a remark only."""
    gpu = FakeGpu(refuses_capture="CUDA error: out of memory")
    with pytest.raises(MemoryError, match=r"\(CUDA error: out of memory\); use a smaller --batch"):
        GpuTimer(fake_torch(gpu), network(gpu, 3, 5_000))
    assert gpu.stuck_in is None


def test_a_runtime_that_finds_no_memory_in_a_capture_is_out_of_memory() -> None:
    """TensorRT's adapter types it itself, and torch's own end of the capture raises once more."""
    gpu = FakeGpu()

    def launch(_: object) -> None:
        if gpu.captured is not None:
            gpu.refuses_capture = "set, so that ending the capture fails too"
            raise MemoryError("tensorrt cannot run 'm': out of memory")
        gpu.kernel(1_000)

    with pytest.raises(MemoryError, match=r"cannot run 'm': out of memory; use a smaller --batch"):
        GpuTimer(fake_torch(gpu), launch)
    assert gpu.stuck_in is None


def test_an_unrolled_capture_that_fails_says_what_it_failed_of() -> None:
    """Also where the timer was given no pool: torch takes a pool out of a capture by its id."""
    gpu = FakeGpu()

    def launch(_: object) -> None:
        if gpu.captured is not None and gpu.captured.work:
            raise MemoryError("tensorrt cannot run 'm': out of memory")
        gpu.kernel(9_000)

    found = GpuTimer(fake_torch(gpu), launch, clock_ns=gpu.clock_ns)
    assert found.is_graph
    with pytest.raises(MemoryError, match="cannot run 'm'"):
        found.burst(0.0, 2, "hot")
