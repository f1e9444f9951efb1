"""The loop that times calls on a host CPU, next to the device it times.

Every sample is one clock pair round one call (or a few, where a call is shorter than a clock
pair can resolve) with the time its thread stood in the run queue. What costs time is parsed
after the loop; the loop itself only calls, reads two clocks and one small file.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from hwprof.measure.machine import last_level_cache_bytes
from hwprof.measure.records import Burst

SHORT_CALL_S = 50e-6
"""Shorter calls are batched: a clock pair (0.15 µs) would weigh too much."""
BATCH_S = 100e-6
LONGEST_BATCH_S = 1e-3
"""The chance of an undisturbed sample falls exponentially with its length."""

_PROBE_WORK = bytes(64 * 1024)
_PROBE_REPEATS = 3
_MAX_FLUSH_BYTES = 128 * 2**20
_SCHEDSTAT = "/proc/thread-self/schedstat"

Call = Callable[[], object]


def calls_per_sample(call_s: float) -> int:
    """Return how many calls make one sample: 1, or ⌈100 µs / t⌉ where t < 50 µs."""
    if call_s >= SHORT_CALL_S:
        return 1
    call_s = max(call_s, 1e-9)
    return max(1, min(math.ceil(BATCH_S / call_s), int(LONGEST_BATCH_S / call_s)))


def estimate_call_s(call: Call, n_calls: int = 5) -> float:
    """Return the shortest of a few calls, in seconds: enough to choose the batch."""
    best = math.inf
    for _ in range(n_calls):
        start = time.perf_counter_ns()
        call()
        best = min(best, time.perf_counter_ns() - start)
    return best * 1e-9


def clock_probe_ns() -> int:
    """Time a fixed amount of work (SHA-256 of 64 KiB, best of three), in nanoseconds.

    It depends on nothing but the core's speed, so a slow reading labels the burst behind it.
    """
    best = sys.maxsize
    for _ in range(_PROBE_REPEATS):
        start = time.perf_counter_ns()
        hashlib.sha256(_PROBE_WORK).digest()
        best = min(best, time.perf_counter_ns() - start)
    return best


class CacheFlusher:
    """Evicts a workload's data by writing through a buffer larger than the last-level cache."""

    def __init__(self) -> None:
        # A virtual machine may report the cache of a whole socket: 128 MiB is beyond what any
        # core keeps for itself, and a larger buffer would take longer than what is measured.
        wanted = 2 * (last_level_cache_bytes() or 32 * 2**20)
        self.n_bytes = min(wanted, _MAX_FLUSH_BYTES)
        self._buffer = np.zeros(self.n_bytes // 8, dtype=np.int64)

    def __call__(self) -> None:
        """Write through the whole buffer."""
        self._buffer += 1


def timed_burst(
    call: Call,
    duration_s: float,
    min_calls: int,
    *,
    per_sample: int = 1,
    flush: Callable[[], None] | None = None,
) -> Burst:
    """Call back to back for ``duration_s`` and at least ``min_calls`` times.

    Args:
        call: a synchronous call; its result is dropped.
        duration_s: shortest time the burst lasts, flushes included.
        min_calls: fewest samples, the first one included.
        per_sample: calls a sample (:func:`calls_per_sample`).
        flush: run before each sample, outside its time (cold cache; give ``per_sample=1``).

    Returns:
        The samples with the run-queue wait that falls into each, and the burst's counters.
    """
    probe_ns = clock_probe_ns()
    with _schedstat() as wait_fd, no_garbage_collection():
        before = resource.getrusage(resource.RUSAGE_SELF)
        cpu_before = time.process_time_ns()
        starts, ends, stats = _loop(call, duration_s, min_calls, per_sample, flush, wait_fd)
        cpu_ns = time.process_time_ns() - cpu_before
        after = resource.getrusage(resource.RUSAGE_SELF)
    start_ns = np.array(starts, dtype=np.int64)
    duration_ns = np.array(ends, dtype=np.int64) - start_ns
    return Burst(
        start_ns=start_ns,
        duration_ns=duration_ns,
        wait_ns=waits_inside(start_ns, duration_ns, parse_waits(stats)) if stats else None,
        calls_per_sample=per_sample,
        involuntary_switches=after.ru_nivcsw - before.ru_nivcsw,
        page_faults=after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt,
        cpu_ns=cpu_ns,
        probe_ns=probe_ns,
    )


def _loop(
    call: Call,
    duration_s: float,
    min_calls: int,
    per_sample: int,
    flush: Callable[[], None] | None,
    wait_fd: int | None,
) -> tuple[list[int], list[int], list[bytes]]:
    """Return start and end of every sample and, where the system has it, raw schedstat lines."""
    clock, pread = time.perf_counter_ns, os.pread
    starts: list[int] = []
    ends: list[int] = []
    stats: list[bytes] = []
    if flush is None and wait_fd is not None:
        stats.append(pread(wait_fd, 64, 0))
    stop_ns = clock() + int(duration_s * 1e9)
    while True:
        if flush is not None:
            flush()
            if wait_fd is not None:
                stats.append(pread(wait_fd, 64, 0))
        start = clock()
        if per_sample == 1:
            call()
        else:
            for _ in repeat(None, per_sample):
                call()
        end = clock()
        if wait_fd is not None:
            stats.append(pread(wait_fd, 64, 0))
        starts.append(start)
        ends.append(end)
        if end >= stop_ns and len(starts) >= min_calls:
            return starts, ends, stats


def parse_waits(stats: list[bytes]) -> NDArray[np.int64]:
    """Return the run-queue wait in nanoseconds (second field) of raw schedstat lines."""
    return np.array([int(line.split()[1]) for line in stats], dtype=np.int64)


def waits_inside(
    start_ns: NDArray[np.int64], duration_ns: NDArray[np.int64], readings_ns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the wait inside each sample, ``int64[n]``, from cumulated readings.

    ``readings_ns`` holds n + 1 readings, one in each gap between samples, or 2n, one right
    before and one right after each sample (cold cache). A reading is taken inside the gap, so a
    wait in the gap is counted to the sample before it or to the one behind it: what makes a gap
    longer than the usual one is taken off both, lest a sample seem faster than it was.
    """
    n = start_ns.size
    if readings_ns.size == 2 * n:
        waits = readings_ns[1::2] - readings_ns[0::2]
    else:
        waits = np.diff(readings_ns)
        gaps = start_ns[1:] - (start_ns[:-1] + duration_ns[:-1])
        excess = np.maximum(0, gaps - int(np.median(gaps)))
        waits[:-1] -= excess
        waits[1:] -= excess
    inside: NDArray[np.int64] = np.clip(waits, 0, duration_ns)
    return inside


@contextmanager
def _schedstat() -> Iterator[int | None]:
    """Open the calling thread's scheduler statistics; None where the system has none."""
    fd = None
    with suppress(OSError):
        fd = os.open(_SCHEDSTAT, os.O_RDONLY)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep the collector from running inside what is timed."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
