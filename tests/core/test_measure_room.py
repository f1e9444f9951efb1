"""How many workloads share a group: by what host and device have free."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hwprof import testing
from hwprof.graph import workload_graph
from hwprof.measure import machine, room
from hwprof.measure.pool import HostLauncher, Launcher
from hwprof.measure.process import Worker
from hwprof.measure.records import plan_for
from hwprof.workload import InputSpec, Workload
from tests.core.scripted import PLAN, block, null

MIB = 2**20


def free_here() -> int:
    """Stand for what tells a device's free memory (named in :data:`HERE`)."""
    return 2 * 1000 * MIB


HERE = "tests.core.test_measure_room:free_here"


@dataclass
class Told:
    """A launcher that tells how much is free."""

    host: int | None
    device: int | None

    def start(self, number: int) -> Worker:
        raise NotImplementedError

    def free_memory_bytes(self) -> int | None:
        return self.host

    def free_device_bytes(self) -> int | None:
        return self.device


def test_groups_keep_the_order_and_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    workloads = [block(f"n{i}", i + 1) for i in range(40)]
    sizes = [len(g) for g in room.groups(workloads, null(), PLAN)]
    assert sizes == [31, 9]
    assert [len(g) for g in room.groups(workloads[:3], null(threads=2), PLAN)] == [1, 1, 1]
    monkeypatch.setattr(room, "weight_bytes", lambda w: 10)
    # A quarter of 600 bytes, over 2 workers with 3 bytes a weight byte, holds 25: two each.
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 600)
    assert [len(g) for g in room.groups(workloads[:5], null(), PLAN)] == [2, 2, 1]


def test_a_device_with_memory_of_its_own_limits_groups_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three quarters of 2000 MiB over 2 workers, less a context of 512 MiB each: 238 MiB."""
    workloads = [block(f"n{i}", i + 1) for i in range(7)]
    on_device = replace(null(), memory=HERE)
    # The least that a workload counts is 64 MiB: three of them.
    assert [len(g) for g in room.groups(workloads, on_device, PLAN)] == [3, 3, 1]
    monkeypatch.setattr(room, "device_bytes", lambda w, batch: 500.0 * MIB)
    assert [len(g) for g in room.groups(workloads[:2], on_device, PLAN)] == [1, 1]
    assert [len(g) for g in room.groups(workloads, null(), PLAN)] == [7]


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        (Told(600, None), (25.0, math.inf)),
        (Told(None, 2000 * MIB), (math.inf, 238.0 * MIB)),
        (Told(None, 400 * MIB), (math.inf, -362.0 * MIB)),
    ],
)
def test_limits_of_a_worker(launcher: Launcher, expected: tuple[float, float]) -> None:
    assert room.limits(launcher, workers=2) == expected


def test_what_is_full_already_still_takes_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it fits shows when it is loaded; the failure then says what helps."""
    monkeypatch.setattr(room, "launcher_for", lambda ref: Told(None, 0))
    assert [len(g) for g in room.groups([block("a"), block("b", 9)], null(), PLAN)] == [1, 1]


def test_a_batch_takes_what_its_tensors_take() -> None:
    """The largest is the expanded one, 48 channels of 9 by 9; the input has 8."""
    strided = testing.block("mbconv strided")
    tensors = 4 * (8 * 81 + room.TENSORS_AT_ONCE * 48 * 81)
    weights = room.BYTES_PER_WEIGHT_BYTE * 4 * workload_graph(strided).params
    assert room.device_bytes(strided, 10_000) == weights + 10_000 * tensors
    assert room.device_bytes(strided, 1) == weights + room.LEAST_WORK_BYTES


def test_of_a_users_model_only_the_file_is_known(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(bytes(1000))
    assert room.device_bytes(Workload.from_file(file), 8) == 3000 + room.LEAST_WORK_BYTES
    called = Workload.from_callable("pkg:net", (InputSpec(name="x", shape=(1, 3)),))
    assert room.device_bytes(called, 8) == room.LEAST_WORK_BYTES


def test_the_host_asks_what_the_device_names() -> None:
    assert HostLauncher(memory=HERE).free_device_bytes() == 2000 * MIB
    assert HostLauncher().free_device_bytes() is None


def test_more_workers_leave_less_for_each() -> None:
    free = Told(None, 80_000 * MIB)
    quick, standard = (room.limits(free, plan_for(p).workers)[1] for p in ("quick", "standard"))
    assert quick > standard > 0
