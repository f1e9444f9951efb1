"""Cooling down, and the load while a worker ran."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwprof.devices.agent.board_server import BoardExecutable
from hwprof.devices.agent.conditions import Conditions, Cooling, RunningLoad, SustainedLoad
from hwprof.devices.agent.sensors import Sensors
from hwprof.measure.load import Snapshot


class Machine:
    """Two CPUs; ``run`` lets time pass with so many cores of ours and of others."""

    def __init__(self) -> None:
        self.at_s = self.busy_s = self.own_s = self.steal_s = 0.0

    def run(self, elapsed_s: float, own: float, foreign: float, steal: float = 0.0) -> None:
        self.at_s += elapsed_s
        self.own_s += own * elapsed_s
        self.busy_s += (own + foreign) * elapsed_s
        self.steal_s += steal * elapsed_s

    def snapshot(self) -> Snapshot:
        return Snapshot(at_s=self.at_s, busy_s=self.busy_s, steal_s=self.steal_s, own_s=self.own_s)


def test_only_the_time_in_which_the_worker_ran_counts() -> None:
    machine = Machine()
    load = RunningLoad(machine.snapshot, n_cpus=2)
    found = None
    for _ in range(25):
        load.begin()
        machine.run(0.05, own=1.0, foreign=0.1, steal=0.04)
        found = load.end()
        machine.run(1.0, own=0.0, foreign=1.0)  # the campaign's other workers
    assert found is not None
    assert found.foreign_cores == pytest.approx(0.1)
    # Of all CPU time: 0.04 cores of 2.
    assert found.steal_share == pytest.approx(0.02)


def test_less_than_a_second_says_nothing_and_the_window_forgets() -> None:
    machine = Machine()
    load = RunningLoad(machine.snapshot, n_cpus=2)
    load.begin()
    machine.run(0.5, own=1.0, foreign=1.0)
    assert load.end() is None
    for _ in range(30):
        load.begin()
        machine.run(0.1, own=1.0, foreign=0.0)
        found = load.end()
    assert found is not None
    assert found.foreign_cores == pytest.approx(0.0)


def test_a_burst_waits_until_within_two_degrees_of_the_start() -> None:
    readings = iter([60.0, 55.0, 52.1, 52.0, 30.0])
    slept: list[float] = []
    waited_s = Cooling(start_c=50.0).wait(lambda: next(readings), slept.append)
    assert waited_s == sum(slept) == 3.0
    assert next(readings) == 30.0


@pytest.mark.parametrize(("start_c", "now_c"), [(None, 90.0), (50.0, None), (50.0, 52.0)])
def test_nothing_to_wait_for(start_c: float | None, now_c: float | None) -> None:
    slept: list[float] = []
    assert Cooling(start_c=start_c).wait(lambda: now_c, slept.append) == 0.0
    assert slept == []


def test_waiting_ends_at_the_limit() -> None:
    slept: list[float] = []
    assert Cooling(start_c=20.0, limit_s=5.0).wait(lambda: 80.0, slept.append) == 5.0


def test_load_of_several_workers_adds_up_until_a_pause_cools(tmp_path: Path) -> None:
    now = [100.0]
    first, second = (SustainedLoad(tmp_path / "load", lambda: now[0]) for _ in range(2))
    assert first.lasted_s() == 0.0

    def work(step_s: float) -> None:
        now[0] += step_s

    for load in (first, second, first):
        load.run(work)
        now[0] += 2.0  # parked, while another runs
    assert second.lasted_s() == pytest.approx(3.0 + 2 * 2.0)
    now[0] += 9.0
    assert second.lasted_s() == 0.0
    second.run(work)
    assert first.lasted_s() == pytest.approx(1.0)


def test_a_sustained_burst_begins_after_the_load_and_never_cools(tmp_path: Path) -> None:
    calls: list[tuple[float, int]] = []

    class Inner:
        def burst(self, duration_s: float, min_calls: int, cache: str) -> str:
            calls.append((duration_s, min_calls))
            return "timed"

    class Load:
        lasted = 0.0

        def lasted_s(self) -> float:
            return self.lasted

        def run(self, work: Callable[[float], object]) -> None:
            work(1.0)
            self.lasted += 1.0

        def add(self, began_s: float) -> None:
            pass

    class Watch:
        hot: bool | None = None

        def before(self, *, hot: bool = False) -> None:
            self.hot = hot

        def after(self) -> None:
            pass

    watch: Any = Watch()
    inner: Any = Inner()
    load: Any = Load()
    executable = BoardExecutable(inner, watch, load, sustained_s=3.0)
    assert executable.burst(0.05, 5, "hot") == "timed"  # type: ignore[comparison-overlap]
    assert calls == [(1.0, 1)] * 3 + [(0.05, 5)]
    assert watch.hot is True
    calls.clear()
    BoardExecutable(inner, watch, Load(), sustained_s=0.0).burst(0.05, 5, "hot")  # type: ignore[arg-type]
    assert calls == [(0.05, 5)]
    assert watch.hot is False


def test_a_burst_is_throttled_if_the_device_was_at_either_end(tmp_path: Path) -> None:
    cooling_device = tmp_path / "sys/class/thermal/cooling_device0"
    cooling_device.mkdir(parents=True)
    (cooling_device / "type").write_text("cpufreq-cpu0")
    state = cooling_device / "cur_state"
    machine = Machine()
    conditions = Conditions(
        Sensors(tmp_path),
        frozenset({0}),
        Cooling(start_c=None),
        RunningLoad(machine.snapshot, n_cpus=1),
    )
    for before, after, expected in (("0", "0", False), ("1", "0", True), ("0", "2", True)):
        state.write_text(before)
        conditions.before()
        state.write_text(after)
        conditions.after()
        assert conditions.last.throttled is expected
    assert conditions.last.readings == {"cooled_s": 0.0}
