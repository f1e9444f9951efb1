"""How work on an NVIDIA GPU is timed: by events in the stream it runs in, through torch.

Three times of one inference, never mixed up:

    GPU          between two events in the stream; this is the sample
    enqueue      until the host has handed the call over
    end to end   until the host knows that it is done

*Hot*: a CUDA graph of k unrolled calls between the events, at least 200 µs of them, so that the
events' resolution (about 0.5 µs) is lost in it; where no graph can be captured, k calls one after
another, which the GPU may have to wait for. *Cold*: one call, with twice the L2 cache zeroed in
the stream right before. A graph's launch, and every cold one, is hidden behind a kernel that
spins: all is handed over while the GPU is still busy, and the start event is asked whether it was.

Whatever runs is given as a *launch*: it enqueues one inference on a stream and returns.

Sources: NVIDIA/nvbench (blocking kernel, cache flush), triton's ``do_bench_cudagraph`` (unrolled
calls), torch's notes on CUDA graphs (warm-up on a side stream, whole-network capture).
"""

from __future__ import annotations

import math
import resource
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from hwprof.devices.nvidia.cuda_memory import (
    device_memory,
    is_memory_full,
    leave_capture,
    one_line,
    own_workspace,
)
from hwprof.errors import MeasurementError
from hwprof.measure.records import Burst, Cache
from hwprof.measure.timing import no_garbage_collection

INTERVAL_S = 200e-6
"""Shortest interval between two events (methods: measurement protocol, GPU)."""
MOST_UNROLLED = 1000
SETTLING_CALLS = 3
"""Before a capture: libraries allocate their work space and choose kernels in their first calls."""
FIRST_SPIN_CYCLES = 100_000
LONGEST_SPIN_CYCLES = 50_000_000
"""Some 30 ms: what the host cannot enqueue meanwhile does not fit into the launch queue."""
PROBE_CYCLES = 200_000
PROBE_REPEATS = 3
UNKNOWN_L2_BYTES = 128 * 2**20
HOLD_S = 0.2
HOLD_WITHIN = 0.01
HOLD_LIMIT_S = 5.0

_AFTERMATH = "previous error during capture"
"""In what CUDA says at the end of a capture that failed earlier, of whatever it failed."""
_EMPTY = "The CUDA Graph is empty"
"""How torch begins its warning about a graph without a kernel."""
_NO_WORK = (
    "the workload runs no kernel (an identity), or its launch must be made to use the stream that "
    "it is given"
)

EVENT_RESOLUTION_NS = 500
"""Of cudaEventElapsedTime (CUDA runtime API: around half a microsecond)."""

Launch = Callable[[Any], object]
"""Enqueues one inference on the ``torch.cuda.Stream`` it is given; never waits for it."""
Work = Callable[[], object]


def calls_between_events(call_s: float) -> int:
    """Return how many calls of ``call_s`` make an interval that events resolve well."""
    return max(1, min(math.ceil(INTERVAL_S / max(call_s, 1e-9) - 1e-9), MOST_UNROLLED))


def hold_clock(
    read_mhz: Callable[[], float],
    work: Work,
    clock_s: Callable[[], float] = time.monotonic,
) -> bool:
    """Keep the GPU at work until its clock holds within 1 % over 200 ms.

    Returns:
        Whether it does; False where it still moves after 5 s.
    """
    began_s = clock_s()
    seen: deque[tuple[float, float]] = deque()
    while True:
        work()
        mhz, now_s = read_mhz(), clock_s()
        seen.append((now_s, mhz))
        while len(seen) > 1 and now_s - seen[1][0] >= HOLD_S:
            seen.popleft()
        clocks = [value for _, value in seen]
        if now_s - seen[0][0] >= HOLD_S and max(clocks) <= (1 + HOLD_WITHIN) * min(clocks):
            return True
        if now_s - began_s > HOLD_LIMIT_S:
            return False


def _nothing() -> None:
    """Enqueue nothing: what is timed then is the events themselves."""


class GpuTimer:
    """Times one workload on the current GPU.

    Args:
        torch: the module (a parameter, so that a scripted one can stand in).
        launch: enqueues one inference on a stream.
        capture: try to capture it into a CUDA graph; where that fails, :attr:`refusal` says why
            and calls are timed as they are launched.
        replays: the launch itself replays a CUDA graph, a runtime's own. Whether it also waits for
            the GPU is found out: then nothing can be hidden, and the host's part is in every sample.
        stream: where it runs; a new one by default.
        pool: memory that graphs of one stream share, for they never run at once: what one works
            in, the next may overwrite, except its results. The timer's own by default.
        clock_ns: the host's clock.

    Raises:
        MemoryError: the GPU's memory does not hold the workload.
    """

    def __init__(
        self,
        torch: Any,
        launch: Launch,
        *,
        capture: bool = True,
        replays: bool = False,
        stream: Any = None,
        pool: Any = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._torch, self._cuda = torch, torch.cuda
        self._launch, self._replays, self._clock_ns = launch, replays, clock_ns
        self._waits = False
        self.stream = self._cuda.Stream() if stream is None else stream
        # A pool of its own must be known by name too: a capture that fails is taken out of it.
        self.pool = self._cuda.graph_pool_handle() if pool is None else pool
        self._start = self._cuda.Event(enable_timing=True)
        self._end = self._cuda.Event(enable_timing=True)
        self._spin_cycles = FIRST_SPIN_CYCLES
        self._cache_filler: Any = None
        self._hot: tuple[Work, int] | None = None
        self._graph: Any = None
        self._is_empty: bool | None = None
        """Whether the launch gives the GPU nothing to do; None until a capture or a burst tells."""
        self.refusal: str | None = None
        """Why there is no CUDA graph, in CUDA's words; None where there is one or none was asked."""
        self.unhidden_share = 0.0
        """Of the last burst's samples that should have been hidden: those whose launch was not."""
        self._once: Work = partial(launch, self.stream)
        with device_memory(torch, "the workload"):
            self._settle()
            if capture:
                self._capture_once()
            if replays and self._launch_waits():
                self._waits, self._is_empty = True, False

    @property
    def is_graph(self) -> bool:
        """Whether a CUDA graph is replayed."""
        return self._graph is not None

    def run(self) -> None:
        """Run once and wait for it: the call that is timed end to end."""
        with self._cuda.stream(self.stream):
            self._once()
        self.stream.synchronize()

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Time samples for ``duration_s``, at least ``min_calls``.

        Beside every sample one call is timed by the host, so the three times are of one moment.

        Raises:
            MemoryError: the GPU's memory does not hold the calls, or their unrolled graph.
            MeasurementError: nothing runs between the events.
        """
        with device_memory(self._torch, "the calls"):
            return self._burst(duration_s, min_calls, cache)

    def gpu_times_s(self, n_samples: int, *, hide: bool = True) -> list[float]:
        """Return the GPU time of single calls; not hidden each of them runs exactly once."""
        return [1e-9 * self._sample(self._once, None, hide)[1] for _ in range(n_samples)]

    def clock_probe_ns(self) -> int:
        """Time a kernel of a fixed number of SM cycles, best of three: it tells the SM clock."""
        spin = partial(self._cuda._sleep, PROBE_CYCLES)
        return min(self._sample(spin, None, hide=True)[1] for _ in range(PROBE_REPEATS))

    def clock_mhz(self) -> float:
        """Return the SM clock that the probe tells."""
        return 1e3 * PROBE_CYCLES / self.clock_probe_ns()

    def close(self) -> None:
        """Free the graphs and the buffer that fills the cache."""
        self._hot = self._graph = self._cache_filler = None
        self._once = partial(self._launch, self.stream)

    def _burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        # Events with nothing between them still lie a microsecond or two apart.
        if self._is_empty is None:
            self._is_empty = self._runs_nothing()
        if self._is_empty:
            raise MeasurementError(f"it gives the GPU nothing to do: {_NO_WORK}")
        work, per_sample = (self._once, 1) if cache == "cold" else self._hot_work()
        flush = self._flusher() if cache == "cold" else None
        should_hide = self._is_replayed or cache == "cold"
        hide = should_hide and not self._waits
        probe_ns = self.clock_probe_ns()
        rows: list[tuple[int, int, int, int]] = []
        n_unhidden = 0
        with no_garbage_collection():
            before, cpu_before = resource.getrusage(resource.RUSAGE_SELF), time.process_time_ns()
            stop_ns = self._clock_ns() + int(duration_s * 1e9)
            while len(rows) < min_calls or self._clock_ns() < stop_ns:
                host = self._host_times_ns(flush)
                start_ns, gpu_ns, hidden = self._sample(work, flush, hide)
                rows.append((start_ns, gpu_ns, *host))
                n_unhidden += should_hide and not (hide and hidden)
            cpu_ns = time.process_time_ns() - cpu_before
            after = resource.getrusage(resource.RUSAGE_SELF)
        self.unhidden_share = n_unhidden / len(rows)
        start, duration, enqueue, end_to_end = np.array(rows, dtype=np.int64).T.copy()
        return Burst(
            start_ns=start,
            duration_ns=duration,
            wait_ns=None,
            calls_per_sample=per_sample,
            involuntary_switches=after.ru_nivcsw - before.ru_nivcsw,
            page_faults=after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt,
            cpu_ns=cpu_ns,
            probe_ns=probe_ns,
            enqueue_ns=enqueue,
            end_to_end_ns=end_to_end,
        )

    def _settle(self) -> None:
        self.stream.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(self.stream):
            for _ in range(SETTLING_CALLS):
                self._launch(self.stream)
        self.stream.synchronize()

    @property
    def _is_replayed(self) -> bool:
        """Whether a call is one launch of a graph, torch's or a runtime's own."""
        return self.is_graph or self._replays

    def _launch_waits(self) -> bool:
        """Return whether the launch comes back no sooner than the GPU is done.

        It is enqueued behind a spin so long that no launch takes as much.
        """
        with self._cuda.stream(self.stream):
            self._cuda._sleep(LONGEST_SPIN_CYCLES)
            self._start.record(self.stream)
            self._once()
            waited: bool = self._start.query()
        self.stream.synchronize()
        return waited

    def _capture_once(self) -> None:
        # First in memory of its own: a capture that fails spoils its pool for all others.
        try:
            self._captured(1, self._cuda.graph_pool_handle())
            self._graph = self._captured(1, self.pool)
        except (RuntimeError, MemoryError) as error:  # what CUDA says of what cannot be captured
            # Ending such a capture raises once more: what it failed of was said first.
            first = error.__context__
            full = [e for e in (error, first) if e and is_memory_full(self._torch, e)]
            if full:
                raise full[0] from None
            self.refusal = one_line(first if first and _AFTERMATH in str(error) else error)
            # Before 2.13 torch draws no random number until a capture has ended well.
            with suppress(RuntimeError):
                self._captured(0, self._cuda.graph_pool_handle())
            self._is_empty = None
            return
        self._once = self._graph.replay

    def _captured(self, n_calls: int, pool: Any) -> Any:
        graph = self._cuda.CUDAGraph()
        capture = self._cuda.graph(graph, pool=pool, stream=self.stream)
        # A capture that fails leaves its stream the current one. What else may be warned of was
        # told when the calls settled.
        present = self._cuda.stream(self._cuda.current_stream())
        try:
            with (
                own_workspace(self._torch),
                warnings.catch_warnings(record=True) as told,
                present,
                capture,
            ):
                warnings.filterwarnings("always", message=_EMPTY)
                for _ in range(n_calls):
                    self._launch(self.stream)
        except (RuntimeError, MemoryError):
            leave_capture(self._torch, pool)
            self._cuda.synchronize()
            raise
        self._is_empty = any(str(entry.message).startswith(_EMPTY) for entry in told)
        return graph

    def _runs_nothing(self) -> bool:
        """Return whether events round a hidden call lie no further apart than round no call."""
        apart_ns = [
            min(self._sample(work, None, hide=True)[1] for _ in range(PROBE_REPEATS))
            for work in (_nothing, self._once)
        ]
        return apart_ns[1] - apart_ns[0] < EVENT_RESOLUTION_NS

    def _hot_work(self) -> tuple[Work, int]:
        """Return what fills an interval between events, and how many calls it is."""
        if self._hot is None:
            hide = self._is_replayed and not self._waits
            times_s = [1e-9 * self._sample(self._once, None, hide)[1] for _ in range(5)]
            n_calls = calls_between_events(min(times_s))
            if n_calls == 1:
                self._hot = (self._once, 1)
            elif self.is_graph:
                self._hot = (self._captured(n_calls, self.pool).replay, n_calls)
            else:
                self._hot = (partial(self._repeat, n_calls), n_calls)
        return self._hot

    def _repeat(self, n_calls: int) -> None:
        for _ in range(n_calls):
            self._once()

    def _flusher(self) -> Work:
        """Return what zeroes twice the L2 cache in the current stream."""
        if self._cache_filler is None:
            properties = self._cuda.get_device_properties(self._cuda.current_device())
            size = 2 * (getattr(properties, "L2_cache_size", 0) or UNKNOWN_L2_BYTES)
            self._cache_filler = self._torch.empty(size, dtype=self._torch.int8, device="cuda")
        flush: Work = self._cache_filler.zero_
        return flush

    def _host_times_ns(self, flush: Work | None) -> tuple[int, int]:
        """Return enqueue and end-to-end time of one call on an idle GPU."""
        clock_ns, once, wait = self._clock_ns, self._once, self.stream.synchronize
        with self._cuda.stream(self.stream):
            if flush is not None:
                flush()
            wait()
            begun = clock_ns()
            once()
            enqueued = clock_ns()
            wait()
            done = clock_ns()
        return enqueued - begun, done - begun

    def _sample(self, work: Work, flush: Work | None, hide: bool) -> tuple[int, int, bool]:
        """Return the host's clock before it, the GPU's nanoseconds, and whether it was hidden.

        A launch that was not hidden is timed again behind a longer spin, up to the longest.
        """
        while True:
            start_ns, gpu_ns, hidden = self._between_events(work, flush, hide)
            if hidden or not hide or self._spin_cycles >= LONGEST_SPIN_CYCLES:
                return start_ns, gpu_ns, hidden
            self._spin_cycles *= 2

    def _between_events(self, work: Work, flush: Work | None, hide: bool) -> tuple[int, int, bool]:
        start, end = self._start, self._end
        with self._cuda.stream(self.stream):
            start_ns = self._clock_ns()
            if hide:
                self._cuda._sleep(self._spin_cycles)
            if flush is not None:
                flush()
            start.record(self.stream)
            work()
            end.record(self.stream)
            hidden = not start.query()
        end.synchronize()
        gpu_ns = round(1e6 * start.elapsed_time(end))
        # Round no work two events may lie closer than they resolve.
        if gpu_ns <= 0 and work is not _nothing:
            raise MeasurementError(f"the events round the work are {gpu_ns} ns apart: {_NO_WORK}")
        return start_ns, gpu_ns, hidden
