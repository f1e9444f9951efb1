"""A GPU that plays what CUDA's and torch's documentation say, on a virtual clock.

The host's clock moves by what every call costs it; the GPU takes work in order, not before it was
enqueued. Events are reached when the work before them is done, and resolve half a microsecond.
Between the begin and the end of a capture nothing runs; a replay costs the host one launch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

EVENT_NS = 500
"""Resolution of cudaEventElapsedTime (CUDA runtime API: around 0.5 microseconds)."""
EVENT_GAP_NS = 1_500
"""Two events with nothing between them: recording one takes the GPU time as well."""


class OutOfMemoryError(RuntimeError):
    pass


@dataclass
class FakeGpu:
    """What happens on host and GPU, in virtual nanoseconds."""

    host_launch_ns: int = 5_000
    """The host's cost of one kernel launch, one event, one graph launch."""
    ghz: float = 1.5
    l2_bytes: int = 50 * 2**20
    bytes_per_ns: float = 2_000.0
    refuses_capture: str | None = None
    cold_factor: float = 1.0
    """How much longer a kernel takes where the L2 cache was overwritten."""
    memory_bytes: int = 80 * 2**30
    now_ns: int = 0
    free_ns: int = 0
    is_cold: bool = False
    captured: FakeGraph | None = None
    event_gap_ns: int = EVENT_GAP_NS
    stuck_in: object = None
    """The pool of a capture that failed, which torch's allocator has not left."""
    spoiled: list[object] = field(default_factory=list)
    """Such pools, which the allocator of host memory never leaves."""
    released: list[object] = field(default_factory=list)
    """Such pools, of which torch's allocator has given the memory back."""
    workspace: object = None
    """The pool in which cuBLAS works in the stream; torch takes it from whoever needs it first."""
    workspaces: list[tuple[object, object]] = field(default_factory=list)
    """For every captured product: the graph's pool, and the one that it works in."""
    counts_draws: bool = False
    """Whether random numbers belong to a capture: a failed one leaves it so (torch before 2.13)."""
    has_context: bool = False
    """Whether the process has work of its own on the GPU yet, as NVML sees it."""
    launched: list[str] = field(default_factory=list)
    allocated_bytes: int = 0
    peak_bytes: int = 0
    on_replay: Callable[[], object] | None = None
    """Computes what a replay computes, where a test looks at the outputs."""

    def clock_ns(self) -> int:
        self.now_ns += 20
        return self.now_ns

    def kernel(self, work_ns: int, name: str = "kernel") -> None:
        self.now_ns += self.host_launch_ns
        if self.captured is not None:
            if self.refuses_capture:
                raise RuntimeError(self.refuses_capture)
            self.captured.work.append(work_ns)
            return
        self.launched.append(name)
        if name == "kernel" and self.is_cold:
            work_ns, self.is_cold = round(work_ns * self.cold_factor), False
        self.free_ns = max(self.free_ns, self.now_ns) + work_ns

    def multiply(self) -> None:
        """A product of matrices: cuBLAS works in the stream's space, a graph keeps where that is."""
        place = self.captured.place[0] if self.captured is not None else "eager"
        self.workspace = place if self.workspace is None else self.workspace
        if self.captured is not None:
            self.workspaces.append((place, self.workspace))

    def draw(self) -> None:
        if self.counts_draws and self.captured is None:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    def sleep(self, cycles: int) -> None:
        self.kernel(round(cycles / self.ghz), "sleep")

    def flush(self, n_bytes: int) -> None:
        self.kernel(round(n_bytes / self.bytes_per_ns), "flush")
        self.is_cold = n_bytes >= self.l2_bytes

    def synchronize(self) -> None:
        self.now_ns = max(self.now_ns, self.free_ns) + 1_000


class FakeStream:
    cuda_stream = 0x5EED

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def synchronize(self) -> None:
        self._gpu.synchronize()

    def wait_stream(self, other: object) -> None:
        pass


class FakeEvent:
    def __init__(self, gpu: FakeGpu, **options: bool) -> None:
        self._gpu, self.options = gpu, options
        self.reached_ns = 0

    def record(self, stream: object = None) -> None:
        if self._gpu.captured is not None:
            if not self.options.get("external"):
                raise RuntimeError("an internal event cannot be timed in a graph")
            done_ns = sum(self._gpu.captured.work)
            self._gpu.captured.events.append((self, done_ns))
            return
        self._gpu.now_ns += self._gpu.host_launch_ns // 5
        self.reached_ns = max(self._gpu.now_ns, self._gpu.free_ns)

    def query(self) -> bool:
        return self._gpu.now_ns >= self.reached_ns

    def synchronize(self) -> None:
        self._gpu.now_ns = max(self._gpu.now_ns, self.reached_ns)

    def elapsed_time(self, end: FakeEvent) -> float:
        apart_ns = round((end.reached_ns - self.reached_ns) / EVENT_NS) * EVENT_NS
        least_ns = 0 if self.options.get("external") else self._gpu.event_gap_ns
        return max(apart_ns, least_ns) * 1e-6


class FakeGraph:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.work: list[int] = []
        self.events: list[tuple[FakeEvent, int]] = []
        self.place: tuple[object, object] = (None, None)

    def replay(self) -> None:
        gpu = self._gpu
        gpu.now_ns += gpu.host_launch_ns
        total = sum(self.work)
        if gpu.is_cold and self.work:
            total += round(self.work[0] * (gpu.cold_factor - 1.0))
            gpu.is_cold = False
        gpu.free_ns = max(gpu.free_ns, gpu.now_ns) + total
        for event, offset_ns in self.events:
            event.reached_ns = gpu.free_ns - total + offset_ns
        if gpu.on_replay is not None:
            gpu.on_replay()


class FakeBuffer:
    def __init__(self, gpu: FakeGpu, n_bytes: int) -> None:
        self._gpu, self.n_bytes = gpu, n_bytes

    def zero_(self) -> None:
        self._gpu.flush(self.n_bytes)


def fake_torch(gpu: FakeGpu) -> Any:
    """Return the parts of torch that the GPU's timing and facts are made of."""

    @contextmanager
    def graph(captured: FakeGraph, pool: object = None, stream: object = None) -> Iterator[None]:
        # torch.cuda.graph frees the cache first, which asserts that no capture is under way.
        if gpu.stuck_in is not None:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")
        if pool in gpu.spoiled:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        captured.place = (pool, stream)
        gpu.captured = captured
        gpu.counts_draws = True
        try:
            yield
        except Exception as error:
            if not gpu.refuses_capture:
                raise
            gpu.stuck_in = pool
            gpu.spoiled.append(pool)
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture\nmore"
            ) from error
        finally:
            gpu.captured = None
        gpu.counts_draws = False
        if not captured.work:
            warnings.warn("The CUDA Graph is empty. This usually means ...", stacklevel=1)

    def end_allocate_to_pool(device: int, pool: object) -> None:
        if pool is None:  # the binding takes a pool's id and nothing else
            raise TypeError("_cuda_endAllocateToPool(): incompatible function arguments")
        if gpu.stuck_in is not pool:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        gpu.stuck_in = None

    def release_pool(device: int, pool: object) -> None:
        if pool not in gpu.spoiled or pool in gpu.released:
            raise RuntimeError("uc >= 0 INTERNAL ASSERT FAILED")
        gpu.released.append(pool)

    def clear_workspaces() -> None:
        gpu.workspace = None

    def new_stream() -> FakeStream:
        gpu.has_context = True
        return FakeStream(gpu)

    @contextmanager
    def stream(_: object) -> Iterator[None]:
        yield

    def empty(size: int, **_: object) -> FakeBuffer:
        if size > gpu.memory_bytes:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore than there is")
        return FakeBuffer(gpu, size)

    properties = SimpleNamespace(
        name="NVIDIA Scripted GPU",
        major=9,
        minor=0,
        total_memory=gpu.memory_bytes,
        multi_processor_count=132,
        L2_cache_size=gpu.l2_bytes,
        uuid="11111111-2222-3333-4444-555555555555",
    )
    cuda = SimpleNamespace(
        Stream=new_stream,
        Event=lambda **options: FakeEvent(gpu, **options),
        CUDAGraph=lambda: FakeGraph(gpu),
        graph=graph,
        stream=stream,
        current_stream=lambda: FakeStream(gpu),
        current_device=lambda: 0,
        graph_pool_handle=object,
        synchronize=gpu.synchronize,
        get_device_properties=lambda _: properties,
        is_available=lambda: True,
        device_count=lambda: 1,
        _sleep=gpu.sleep,
        mem_get_info=lambda: (gpu.memory_bytes - gpu.allocated_bytes, gpu.memory_bytes),
        memory_allocated=lambda: gpu.allocated_bytes,
        max_memory_allocated=lambda: gpu.peak_bytes,
        reset_peak_memory_stats=lambda: None,
    )
    return SimpleNamespace(
        __version__="2.13.0+cu130",
        version=SimpleNamespace(cuda="13.0"),
        backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91000)),
        cuda=cuda,
        _C=SimpleNamespace(
            _cuda_endAllocateToPool=end_allocate_to_pool,
            _cuda_releasePool=release_pool,
            _cuda_clearCublasWorkspaces=clear_workspaces,
        ),
        int8=np.int8,
        empty=empty,
        OutOfMemoryError=OutOfMemoryError,
    )


def network(gpu: FakeGpu, n_kernels: int, kernel_ns: int) -> Callable[[object], None]:
    """Return a launch of so many kernels, one behind the other."""

    def launch(_: object) -> None:
        for _ in range(n_kernels):
            gpu.kernel(kernel_ns)

    return launch


CALL_NS = 30_000


class TorchOnFakeGpu:
    """The real torch, computing on the CPU, with the scripted GPU for ``torch.cuda``.

    Every inference (entered by ``inference_mode``) enqueues one kernel of 30 µs. ``calls`` adds to
    or replaces what torch has.
    """

    def __init__(self, gpu: FakeGpu, **replaced: Any) -> None:
        import torch

        fake = fake_torch(gpu)
        self._torch, self._gpu = torch, gpu
        self.cuda, self.OutOfMemoryError = fake.cuda, OutOfMemoryError
        self.version, self._C = fake.version, fake._C
        self._dynamo = SimpleNamespace(config=SimpleNamespace())
        self.backends = SimpleNamespace(
            cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=None)),
            cudnn=SimpleNamespace(allow_tf32=None, benchmark=None, version=lambda: 91000),
        )
        self.empty = fake.empty
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    @contextmanager
    def inference_mode(self) -> Iterator[None]:
        self._gpu.kernel(CALL_NS)
        with self._torch.inference_mode():
            yield

    def set_num_threads(self, count: int) -> None:
        """Leave the process of the tests as it is."""
