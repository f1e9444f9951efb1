"""Enqueue and end-to-end times beside a GPU's own: over the wire, in the store, in the result."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwprof.measure import wire
from hwprof.measure.framing import WireError
from hwprof.measure.host_times import host_times
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.store.blobs import burst_from_row
from hwprof.store.rows import insert_burst, insert_workload
from hwprof.store.schema import DATABASE, open_for_reading, open_for_writing
from hwprof.testing import block


def gpu_burst() -> Burst:
    """Samples of four calls, 100 µs each: the first one is no part of any median."""
    return Burst(
        start_ns=np.arange(4) * 1_000_000,
        duration_ns=np.array([900_000, 400_000, 404_000, 408_000]),
        wait_ns=None,
        calls_per_sample=4,
        enqueue_ns=np.array([99_000, 7_000, 8_000, 9_000]),
        end_to_end_ns=np.array([990_000, 110_000, 120_000, 130_000]),
    )


def host_burst() -> Burst:
    times = np.array([10, 20, 30])
    return Burst(start_ns=times, duration_ns=times, wait_ns=None)


def labelled(burst: Burst) -> LabelledBurst:
    return LabelledBurst(burst=burst, worker="w0", round_index=0)


def reader(data: bytes) -> Callable[[int], bytes]:
    left = bytearray(data)

    def read(size: int) -> bytes:
        part = bytes(left[:size])
        del left[:size]
        return part

    return read


def test_medians_of_the_three_times() -> None:
    assert host_times([labelled(gpu_burst())]) == pytest.approx(
        {"gpu_median_s": 101e-6, "enqueue_median_s": 8e-6, "end_to_end_median_s": 120e-6}
    )
    assert host_times([labelled(host_burst())]) == {}


@pytest.mark.parametrize("burst", [gpu_burst(), host_burst()])
def test_over_the_wire(burst: Burst) -> None:
    frame = wire.decode(reader(wire.encode(wire.burst_frame(burst, {}))))
    got = wire.burst_from(frame)
    for name in ("enqueue_ns", "end_to_end_ns"):
        np.testing.assert_array_equal(getattr(got, name), getattr(burst, name))


@pytest.mark.parametrize("values", [np.array([1]), np.array([1, 2, 3, -4])])
def test_times_that_cannot_be(values: np.ndarray) -> None:
    frame = wire.burst_frame(gpu_burst(), {})
    broken = wire.Frame(header=frame.header, arrays={**frame.arrays, "enqueue_ns": values})
    with pytest.raises(WireError, match="enqueue_ns"):
        wire.burst_from(broken)


def test_in_the_store(tmp_path: Path) -> None:
    db = open_for_writing(tmp_path)
    workload = block("mbconv")
    insert_workload(db, workload)
    for burst in (gpu_burst(), host_burst()):
        insert_burst(db, workload.key, "s", labelled(burst))
    gpu, host = (burst_from_row(row).burst for row in db.execute("SELECT * FROM bursts"))
    np.testing.assert_array_equal(gpu.enqueue_ns, gpu_burst().enqueue_ns)
    np.testing.assert_array_equal(gpu.end_to_end_ns, gpu_burst().end_to_end_ns)
    assert host.enqueue_ns is None
    db.close()


def test_a_run_from_before_they_existed(tmp_path: Path) -> None:
    """It is read as it is, and gets the columns when it goes on."""
    db = open_for_writing(tmp_path)
    workload = block("mbconv")
    insert_workload(db, workload)
    insert_burst(db, workload.key, "s", labelled(host_burst()))
    db.close()
    with sqlite3.connect(tmp_path / DATABASE) as old:
        for name in ("enqueue_ns", "end_to_end_ns"):
            old.execute(f"ALTER TABLE bursts DROP COLUMN {name}")
    old.close()
    read = open_for_reading(tmp_path)
    (row,) = read.db.execute("SELECT * FROM bursts").fetchall()
    assert burst_from_row(row).burst.end_to_end_ns is None
    read.close()
    db = open_for_writing(tmp_path)
    insert_burst(db, workload.key, "s", labelled(gpu_burst()))
    old_one, new_one = (burst_from_row(r).burst for r in db.execute("SELECT * FROM bursts"))
    assert old_one.enqueue_ns is None
    np.testing.assert_array_equal(new_one.enqueue_ns, gpu_burst().enqueue_ns)
    db.close()
