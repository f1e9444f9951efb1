"""Cooling down, and the load of others around a burst."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwprof.devices.agent import board_server
from hwprof.devices.agent.board_server import (
    UNTOLD_LOAD,
    BoardAdapter,
    BoardExecutable,
    BoardServer,
)
from hwprof.devices.agent.conditions import CampaignLoad, Conditions, Cooling, SustainedLoad
from hwprof.devices.agent.sensors import Sensors
from hwprof.devices.agent.supervisor import IDLE_LIMIT_S
from hwprof.devices.null import NullAdapter
from hwprof.measure.load import LoadMonitor
from hwprof.measure.records import PRESETS
from hwprof.measure.room import GROUP_SIZE

TICKS = 100
"""Of the system's clock, in a second."""


class Machine:
    """One CPU in a /proc of its own; ``run`` lets time pass with work of ours and of others."""

    def __init__(self, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc = proc
        self.at_s = 0.0
        self.busy = self.stolen = 0
        self.own: dict[int, int] = {}
        monkeypatch.setattr("hwprof.measure.load.usable_cpus", lambda: frozenset({0}))
        monkeypatch.setattr("os.times", lambda: (0.0, 0.0, 0.0, 0.0, 0.0))
        monkeypatch.setattr("os.sysconf", lambda name: TICKS)
        monkeypatch.setattr("time.monotonic", lambda: self.at_s)
        self.run(0.0)

    def run(
        self, elapsed_s: float, *, foreign: float = 0.0, stolen: float = 0.0, **own: float
    ) -> None:
        """Let time pass; ``own`` are shares of the campaign's processes, named ``p7``."""
        ticks = TICKS * elapsed_s
        self.at_s += elapsed_s
        self.busy += round(ticks * (foreign + sum(own.values())))
        self.stolen += round(ticks * stolen)
        self.proc.joinpath("stat").write_text(f"cpu0 {self.busy} 0 0 9 9 0 0 {self.stolen} 0 0\n")
        for name, share in own.items():
            pid = int(name.removeprefix("p"))
            self.own[pid] = self.own.get(pid, 0) + round(ticks * share)
            folder = self.proc / str(pid)
            folder.mkdir(exist_ok=True)
            times = f"{self.own[pid]} 0"
            (folder / "stat").write_text(f"{pid} (a b) S 1 7 7 0 -1 0 0 0 0 0 {times} 0 0 20 0\n")

    def end(self, pid: int) -> None:
        """Let a process of the campaign end."""
        del self.own[pid]
        (self.proc / str(pid) / "stat").unlink()

    def pids(self) -> frozenset[int]:
        """Return the campaign's living processes."""
        return frozenset(self.own)


def nobody() -> frozenset[int]:
    return frozenset()


def test_what_the_campaign_itself_runs_is_no_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    watch = CampaignLoad(machine.pids, tmp_path)
    # Parked, while the campaign's other worker runs: that is no second of this one's own.
    machine.run(2.0, foreign=0.25, stolen=0.05, p7=0.5)
    found = watch.mark()
    assert found is not None
    assert found.foreign_cores == pytest.approx(0.25)
    assert found.steal_share == pytest.approx(0.05)
    machine.run(2.0, p7=1.0)
    found = watch.mark()
    assert found is not None
    assert found.foreign_cores == pytest.approx(0.0)


def test_less_than_a_second_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    watch = CampaignLoad(machine.pids, tmp_path)
    machine.run(0.5, foreign=1.0)
    assert watch.mark() is None
    machine.run(0.5, foreign=0.5)
    found = watch.mark()
    assert found is not None
    assert found.foreign_cores == pytest.approx(0.75)


def test_what_a_process_did_before_it_ended_is_not_put_down_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.run(1.0, p7=1.0, p8=0.0)
    watch = CampaignLoad(machine.pids, tmp_path)
    machine.run(5.0, p7=1.0)
    machine.end(7)
    assert watch.mark() is None
    machine.run(1.0, foreign=0.25, p8=0.5)
    found = watch.mark()
    assert found is not None
    assert found.foreign_cores == pytest.approx(0.25)


def test_a_device_that_does_not_tell_its_load_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = BoardServer(tmp_path)
    assert UNTOLD_LOAD not in server.warnings()
    monkeypatch.setattr(board_server, "LoadMonitor", lambda: LoadMonitor(proc=tmp_path / "none"))
    assert UNTOLD_LOAD in server.warnings()


class CountingAdapter(NullAdapter):
    """Tells who is spared when others on its device are counted."""

    spared: Callable[[], Collection[int]] = tuple

    def spare(self, pids: Callable[[], Collection[int]]) -> None:
        type(self).spared = staticmethod(pids)


def test_the_campaigns_workers_on_a_board_are_not_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No parent tells: each has a supervisor of its own, which announces the two."""
    monkeypatch.setattr(board_server, "campaign_pids", lambda folder: {7, 8})
    device = {"name": "gpu", "factory": f"{__name__}:CountingAdapter", "options": {}}
    facts = {"precision": "int8", "quantizer": "of the host"}
    board = {"emulated": False, "cpus": None, "start_c": None, "link": "ssh", "facts": facts}
    adapter = BoardServer(tmp_path).open_device({"device": device, "board": board})
    assert CountingAdapter.spared() == {7, 8}
    assert facts.items() <= adapter.fingerprint().stable.items()


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


def test_load_from_before_a_restart_of_the_device_heated_nothing(tmp_path: Path) -> None:
    now = [5000.0]
    load = SustainedLoad(tmp_path / "load", lambda: now[0])

    def work(step_s: float) -> None:
        now[0] += 400.0

    load.run(work)
    assert load.lasted_s() == pytest.approx(400.0)
    now[0] = 60.0  # the clock begins anew with the system
    assert load.lasted_s() == 0.0


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
    conditions = Conditions(
        Sensors(tmp_path),
        frozenset({0}),
        Cooling(start_c=None),
        CampaignLoad(nobody, tmp_path),
    )
    for before, after, expected in (("0", "0", False), ("1", "0", True), ("0", "2", True)):
        state.write_text(before)
        conditions.before()
        state.write_text(after)
        conditions.after()
        assert conditions.last.throttled is expected
    assert conditions.last.readings == {"cooled_s": 0.0}


def test_a_burst_is_throttled_if_a_server_counted_one_meanwhile(tmp_path: Path) -> None:
    count = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    count.parent.mkdir(parents=True)
    count.write_text("7")
    conditions = Conditions(
        Sensors(tmp_path), frozenset({0}), Cooling(start_c=None), CampaignLoad(nobody, tmp_path)
    )
    for after, expected in (("7", False), ("8", True), ("8", False)):
        conditions.before()
        count.write_text(after)
        conditions.after()
        assert conditions.last.throttled is expected


def test_a_board_tells_that_its_adapter_has_lost_the_device() -> None:
    """Only then is its worker replaced; most adapters cannot lose theirs."""
    nothing: Any = None
    for inner, is_lost in (
        (SimpleNamespace(is_lost=lambda: True), True),
        (SimpleNamespace(is_lost=lambda: False), False),
        (SimpleNamespace(), False),
    ):
        adapter: Any = inner
        assert BoardAdapter(adapter, nothing, nothing, nothing, {}).is_lost() is is_lost


def test_a_worker_that_waits_for_a_slow_group_is_not_taken_for_left_over() -> None:
    longest_s = max(GROUP_SIZE * p.workers * p.timeout_s for p in PRESETS.values())
    assert longest_s < IDLE_LIMIT_S
