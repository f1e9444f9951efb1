"""The burst loop: what it counts and how waits are put into samples. No wall-clock limits."""

from __future__ import annotations

import gc
import resource
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from hwprof.measure import timing


def test_counts_calls_and_keeps_order() -> None:
    calls: list[int] = []
    burst = timing.timed_burst(lambda: calls.append(1), 0.0, 6)
    assert len(calls) == burst.n_samples == 6
    assert burst.duration_ns.dtype == np.int64
    assert np.all(burst.duration_ns > 0)
    assert np.all(burst.start_ns[1:] >= burst.start_ns[:-1] + burst.duration_ns[:-1])
    assert burst.probe_ns is not None
    assert burst.probe_ns > 0


def test_batches_several_calls_a_sample() -> None:
    calls: list[int] = []
    burst = timing.timed_burst(lambda: calls.append(1), 0.0, 5, per_sample=4)
    assert burst.calls_per_sample == 4
    assert len(calls) == 4 * burst.n_samples


def test_lasts_as_long_as_asked() -> None:
    burst = timing.timed_burst(lambda: None, 0.005, 1)
    assert burst.start_ns[-1] + burst.duration_ns[-1] - burst.start_ns[0] >= 4_000_000


def test_flushes_before_every_call_outside_its_time() -> None:
    events: list[str] = []
    burst = timing.timed_burst(
        lambda: events.append("call"), 0.0, 3, flush=lambda: events.append("flush")
    )
    assert events == ["flush", "call"] * burst.n_samples


def test_no_garbage_collection_inside_and_as_before_outside() -> None:
    inside: list[bool] = []
    assert gc.isenabled()
    timing.timed_burst(lambda: inside.append(gc.isenabled()), 0.0, 3)
    assert inside == [False] * 3
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("call_s", "expected"),
    [(1e-3, 1), (50e-6, 1), (49e-6, 3), (10e-6, 10), (0.3e-6, 334), (0.0, 100_000)],
)
def test_batch_size(call_s: float, expected: int) -> None:
    assert timing.calls_per_sample(call_s) == expected
    if call_s:
        assert expected * call_s <= timing.LONGEST_BATCH_S


def test_waits_of_a_gap_are_not_the_samples() -> None:
    start = np.array([0, 110, 1220, 1330])
    duration = np.array([100, 100, 100, 100])  # gaps: 10, 1010, 10
    readings = np.array([500, 500, 1500, 1530, 1530])
    # Sample 1's reading holds 1000 of wait, as much as its gap is longer than usual; whether
    # sample 2's 30 belong to that gap too cannot be told, so they are not taken off its time.
    waits = timing.waits_inside(start, duration, readings)
    np.testing.assert_array_equal(waits, [0, 0, 0, 0])


def test_waits_inside_samples_stay() -> None:
    start, duration = np.array([0, 110, 220]), np.full(3, 100)
    readings = np.array([7, 7, 37, 37])
    np.testing.assert_array_equal(timing.waits_inside(start, duration, readings), [0, 30, 0])


def test_wait_behind_the_reading_is_not_the_next_samples() -> None:
    start, duration = np.array([0, 110, 520, 630]), np.full(4, 100)
    # The gap before the third sample is 300 too long, and its reading came before that wait.
    readings = np.array([0, 0, 0, 300, 300])
    waits = timing.waits_inside(start, duration, readings)
    np.testing.assert_array_equal(waits, [0, 0, 0, 0])


def test_waits_of_cold_calls_come_in_pairs() -> None:
    start, duration = np.array([0, 1000]), np.array([100, 50])
    readings = np.array([5, 25, 700, 900])
    np.testing.assert_array_equal(timing.waits_inside(start, duration, readings), [20, 50])


def test_schedstat_lines() -> None:
    lines = [b"35238429 37946 28\n", b"535144366 145355 30\n"]
    np.testing.assert_array_equal(timing.parse_waits(lines), [37946, 145355])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the run-queue wait")
def test_wait_is_there_on_linux_and_none_without_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait = timing.timed_burst(lambda: None, 0.0, 3).wait_ns
    assert wait is not None
    assert wait.shape == (3,)
    monkeypatch.setattr(timing, "_SCHEDSTAT", "/proc/no/such/file")
    assert timing.timed_burst(lambda: None, 0.0, 3).wait_ns is None


def test_the_shortest_of_a_few_calls_chooses_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    readings_ns = iter([0, 900, 1000, 1500, 2000, 2700])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings_ns))
    assert timing.estimate_call_s(lambda: None, 3) == pytest.approx(500e-9)


def test_the_clock_probe_does_its_work() -> None:
    # No core hashes 64 KiB in 10 µs, which were 6.5 GB/s.
    assert timing.clock_probe_ns() > 10_000


def test_counters_are_of_the_burst_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    usages = iter(
        SimpleNamespace(ru_nivcsw=a, ru_minflt=b, ru_majflt=c)
        for a, b, c in ((100, 1000, 10), (103, 1004, 11))
    )
    cpu_ns = iter([5_000, 8_000])
    monkeypatch.setattr(resource, "getrusage", lambda who: next(usages))
    monkeypatch.setattr(time, "process_time_ns", lambda: next(cpu_ns))
    burst = timing.timed_burst(lambda: None, 0.0, 3)
    assert (burst.involuntary_switches, burst.page_faults, burst.cpu_ns) == (3, 5, 3_000)


@pytest.mark.parametrize(
    ("last_level", "n_bytes"), [(2**12, 2**13), (None, 64 * 2**20), (2**30, 128 * 2**20)]
)
def test_a_flush_writes_over_twice_the_last_level_cache(
    monkeypatch: pytest.MonkeyPatch, last_level: int | None, n_bytes: int
) -> None:
    monkeypatch.setattr(timing, "last_level_cache_bytes", lambda: last_level)
    flush = timing.CacheFlusher()
    assert flush.n_bytes == flush._buffer.nbytes == n_bytes
    if n_bytes == 2**13:
        flush()
        assert flush._buffer.all()
