"""Host facts and load, read from made-up files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure import load, machine
from hwprof.measure.load import Load, LoadMonitor, Snapshot


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_load_is_busy_less_own() -> None:
    before = Snapshot(at_s=0, busy_s=10, steal_s=1, own_s=5)
    after = Snapshot(at_s=2, busy_s=13, steal_s=1.2, own_s=6)
    found = load.load_between(before, after, 2)
    assert found.steal_share == pytest.approx(0.05)
    assert found.foreign_cores == pytest.approx(1.0)
    assert found.n_cpus == 2


def test_counters_that_lag_give_no_negative_load() -> None:
    before = Snapshot(at_s=0, busy_s=10, steal_s=1, own_s=5)
    after = Snapshot(at_s=1, busy_s=10.5, steal_s=1, own_s=5.6)
    assert load.load_between(before, after, 2).foreign_cores == 0.0


def test_monitor_reads_its_cpus_and_subtracts_its_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "usable_cpus", lambda: frozenset({1}))
    monkeypatch.setattr("os.times", lambda: (0.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    clock = iter([0.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    worker = "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 {user} {system} 0 0 20 0"

    def at(busy: int, steal: int, user: int) -> None:
        write(
            tmp_path / "stat",
            f"cpu 0 0\ncpu0 999 9 9 9 9 9 9 9 0 0\ncpu1 {busy} 0 0 50 0 0 0 {steal} 0 0\nintr 5\n",
        )
        write(tmp_path / "7/stat", worker.format(user=user, system=10))

    at(100, 0, 0)
    monitor = LoadMonitor(lambda: [7], proc=tmp_path)
    assert monitor.n_cpus == 1
    at(200, 10, 40)  # one second later: 1.00 s busy, of which 0.40 s own; 0.10 s stolen
    first = monitor.mark()
    assert first is not None
    assert first.foreign_cores == pytest.approx(0.6)
    assert first.steal_share == pytest.approx(0.1)
    at(240, 10, 80)  # the window has moved on: 0.40 s busy, all of it own
    second = monitor.mark()
    assert second is not None
    assert second.foreign_cores == pytest.approx(0.0)
    assert second.steal_share == 0.0


def test_monitor_knows_nothing_without_proc(tmp_path: Path) -> None:
    assert LoadMonitor(proc=tmp_path / "none").mark() is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "cg/a/cpu.max": "150000 100000"}, 1.5),
        ({"proc/self/cgroup": "0::/a\n", "cg/a/cpu.max": "max 100000"}, None),
        (
            {
                "proc/self/cgroup": "0::/a\n",
                "cg/a/cpu.max": "400000 100000",
                "cg/cpu.max": "50000 100000",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n2:cpu:/x\n",
                "cg/cpu/x/cpu.cfs_quota_us": "200000",
                "cg/cpu/x/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "2:cpu:/\n", "cg/cpu/cpu.cfs_quota_us": "-1"}, None),
        ({}, None),
    ],
)
def test_quota_of_both_control_group_versions(
    tmp_path: Path, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert machine.cpu_quota(tmp_path / "cg", tmp_path / "proc") == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # What the innermost limit leaves, with the cache that can be dropped.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "cg/a/b/memory.max": "1000000",
                "cg/a/b/memory.current": "700000",
                "cg/a/b/memory.stat": "anon 500000\ninactive_file 50000\n",
                "cg/a/memory.max": "max",
                "cg/a/memory.current": "700000",
            },
            350_000,
        ),
        # Of a parent; a soft limit counts, for beyond it a process hardly goes on.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "cg/a/b/memory.max": "900000",
                "cg/a/b/memory.current": "100000",
                "cg/a/memory.high": "800000",
                "cg/a/memory.current": "700000",
            },
            100_000,
        ),
        (
            {
                "proc/self/cgroup": "3:memory:/x\n",
                "cg/memory/x/memory.limit_in_bytes": "600000",
                "cg/memory/x/memory.usage_in_bytes": "700000",
                "cg/memory/memory.limit_in_bytes": "9223372036854771712",
                "cg/memory/memory.usage_in_bytes": "1",
            },
            0,
        ),
        ({"proc/self/cgroup": "0::/\n"}, 1_024_000),
        ({}, 1_024_000),
    ],
)
def test_free_memory_is_what_control_groups_leave_of_it(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal: 9999 kB\nMemAvailable: 1000 kB\n")
    for name, text in files.items():
        write(tmp_path / name, text)
    assert machine.available_memory_bytes(tmp_path / "cg", tmp_path / "proc") == expected


def test_stops_for_a_spent_quota_are_counted_where_there_is_one(tmp_path: Path) -> None:
    for name, text in {
        "proc/self/cgroup": "0::/pod/me\n4:cpu:/pod/me\n",
        "cg/pod/me/cpu.max": "max 100000",
        "cg/pod/me/cpu.stat": "usage_usec 5\nnr_throttled 9\n",
    }.items():
        write(tmp_path / name, text)
    assert machine.quota_stops(tmp_path / "cg", tmp_path / "proc") is None
    write(tmp_path / "cg/pod/cpu.max", "50000 100000")
    write(tmp_path / "cg/pod/cpu.stat", "nr_periods 8\nnr_throttled 3\nthrottled_usec 70000\n")
    assert machine.quota_stops(tmp_path / "cg", tmp_path / "proc") == 3


def test_refuses_more_threads_than_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "usable_cpus", lambda: frozenset(range(4)))
    monkeypatch.setattr(load, "cpu_quota", lambda: 1.5)
    load.check_threads(1)
    with pytest.raises(PlanError, match=r"grants 1\.5 cores.* or use fewer threads"):
        load.check_threads(2)
    monkeypatch.setattr(load, "cpu_quota", lambda: 0.5)
    with pytest.raises(PlanError, match=r"raise the quota to 1 or more \(docker.*limits\.cpu\)$"):
        load.check_threads(1)
    with pytest.raises(PlanError, match="this process may use 4 CPUs"):
        load.check_threads(5)
    with pytest.raises(PlanError, match="expected 1 or more"):
        load.check_threads(0)


def test_refuses_several_threads_beside_other_work() -> None:
    busy = Load(steal_share=0.0, foreign_cores=0.9, n_cpus=2)
    load.check_quiet(1, busy)
    load.check_quiet(2, None)
    load.check_quiet(2, Load(steal_share=0.0, foreign_cores=0.2, n_cpus=2))
    with pytest.raises(DeviceUnavailableError, match=r"keep 0\.9 of 2 cores busy"):
        load.check_quiet(2, busy)


def test_facts_are_plain_data() -> None:
    facts = {**machine.stable_facts(), **machine.volatile_facts()}
    assert facts["hardware"]
    assert facts["cores"]
    assert all(v is None or isinstance(v, str | int | float | bool) for v in facts.values())


def test_the_power_mode_of_a_jetson_and_of_a_pc(tmp_path: Path) -> None:
    assert machine.power_mode(tmp_path) is None
    profile = tmp_path / "sys/firmware/acpi/platform_profile"
    profile.parent.mkdir(parents=True)
    profile.write_text("balanced\n")
    assert machine.power_mode(tmp_path) == "balanced"
    status = tmp_path / "var/lib/nvpmodel/status"
    status.parent.mkdir(parents=True)
    status.write_text("pmode:0002 fmode:quiet\n")
    assert machine.power_mode(tmp_path) == "pmode:0002"


def test_stable_facts_hold_the_power_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machine.stable_facts.__wrapped__
    monkeypatch.setattr(machine, "power_mode", lambda: None)
    assert "power_mode" not in facts()  # keys of machines without one stay what they were
    monkeypatch.setattr(machine, "power_mode", lambda: "pmode:0000")
    assert facts()["power_mode"] == "pmode:0000"


def test_warns_of_a_governor_that_moves_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "fast_cpus", lambda cpus: ())
    monkeypatch.setattr(machine, "stable_facts", lambda: {"governor": "powersave", "boost": True})
    governor, boost = machine.warnings()
    assert "'powersave'" in governor
    assert "boost" in boost
    monkeypatch.setattr(machine, "stable_facts", lambda: {"governor": None, "boost": None})
    assert machine.warnings() == ()


def test_warns_where_the_load_of_others_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "stable_facts", lambda: {"governor": None, "boost": None})
    monkeypatch.setattr(machine, "read_text", lambda path: None)  # a system without /proc
    (line,) = machine.warnings()
    assert "does not tell what other programs do" in line


@pytest.mark.parametrize("file", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_cores_of_unequal_speed(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, speed in enumerate((1000, 980, 620, 620)):
        write(tmp_path / f"cpu{cpu}" / file, str(speed))
    assert machine.fast_cpus(frozenset(range(4)), tmp_path) == (0, 1)
    assert machine.fast_cpus(frozenset({0, 1}), tmp_path) == ()
    assert machine.fast_cpus(frozenset({2, 3}), tmp_path) == ()
    assert machine.fast_cpus(frozenset({7, 8}), tmp_path) == ()
    monkeypatch.setattr(machine, "stable_facts", lambda: {"governor": None, "boost": None})
    monkeypatch.setattr(machine, "fast_cpus", lambda cpus: (0, 1))
    assert "taskset -c 0,1 hwprof" in machine.warnings()[0]


def test_two_chips_of_apple_are_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    told = subprocess.CompletedProcess([], 0, stdout=b"Apple M4 Pro\n")
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    monkeypatch.setattr(machine, "_cpuinfo", dict)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: told)
    assert machine.cpu_model.__wrapped__() == "Apple M4 Pro"


def test_pressure_of_the_last_ten_seconds(tmp_path: Path) -> None:
    path = tmp_path / "cpu"
    path.write_text("some avg10=46.97 avg60=42.99 avg300=27.38 total=1\nfull avg10=1.00 total=0\n")
    assert machine._cpu_pressure_pct(path) == 46.97
    assert machine._cpu_pressure_pct(tmp_path / "none") is None


def test_kills_for_want_of_memory(tmp_path: Path) -> None:
    write(tmp_path / "vmstat", "oom_kill_disable 7\npgmajfault 5\noom_kill 3\n")
    assert machine.oom_kills(tmp_path) == 3
    assert machine.oom_kills(tmp_path / "none") is None
