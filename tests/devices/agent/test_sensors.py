"""What devices say of themselves, read from trees in the form that kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprof.devices.agent.board_server import pin
from hwprof.devices.agent.sensors import Cluster, Sensors, cpu_list, is_emulated, parse_cpu_list
from hwprof.errors import PlanError
from hwprof.measure import machine

PI4_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

processor\t: 1
BogoMIPS\t: 108.00
CPU implementer\t: 0x41
CPU part\t: 0xd08
"""
BIG_LITTLE_CPUINFO = "\n".join(
    f"processor\t: {n}\nCPU implementer\t: 0x41\nCPU part\t: {'0xd05' if n < 4 else '0xd0b'}\n"
    for n in range(6)
)


def tree(root: Path, files: dict[str, str]) -> Sensors:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Sensors(root)


def policy(number: int, cpus: str, khz: int) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
    return {
        f"{folder}/related_cpus": cpus,
        f"{folder}/cpuinfo_max_freq": str(khz),
        f"{folder}/scaling_governor": "schedutil",
    }


def test_clusters_of_a_big_little_chip_the_fastest_last(tmp_path: Path) -> None:
    sensors = tree(
        tmp_path,
        {
            **policy(4, "4 5", 2_208_000),
            **policy(0, "0 1 2 3", 1_804_800),
            "proc/cpuinfo": BIG_LITTLE_CPUINFO,
        },
    )
    little, big = sensors.clusters()
    assert little == Cluster(
        cpus=(0, 1, 2, 3), max_khz=1_804_800, governor="schedutil", core="Cortex-A55"
    )
    assert str(big) == "4-5: 2 x Cortex-A76 up to 2208 MHz"


def test_cores_with_a_policy_each_are_one_cluster(tmp_path: Path) -> None:
    sensors = tree(tmp_path, {**policy(0, "0", 3_000_000), **policy(1, "1", 3_000_000)})
    assert [c.cpus for c in sensors.clusters()] == [(0, 1)]


def test_a_board_without_clocks_is_one_cluster(tmp_path: Path) -> None:
    sensors = tree(tmp_path, {"sys/devices/system/cpu/online": "0-1", "proc/cpuinfo": PI4_CPUINFO})
    assert sensors.clusters() == (Cluster(cpus=(0, 1), core="Cortex-A72"),)


@pytest.mark.parametrize("soc", ["soc", "soc@107c000000"])
def test_a_raspberry_pi(tmp_path: Path, soc: str) -> None:
    cpufreq = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    throttled = f"sys/devices/platform/{soc}/{soc}:firmware/get_throttled"
    sensors = tree(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/sys/kernel/random/boot_id": "8e2c-1",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "48686",
            cpufreq: "1500000",
            throttled: "50000",
        },
    )
    assert sensors.model() == "Raspberry Pi 4 Model B Rev 1.4"
    assert sensors.boot_id() == "8e2c-1"
    assert sensors.temperature_c() == pytest.approx(48.686)
    assert sensors.frequencies_khz() == {0: 1_500_000}
    # 0x50000: under-voltage and throttling happened since boot, and are over.
    assert not sensors.is_throttled()
    (tmp_path / throttled).write_text("50004\n")  # bit 2: throttled now
    assert sensors.is_throttled()
    assert sensors.readings(frozenset({0})) == {
        "temperature_c": pytest.approx(48.686),
        "cpu_mhz": 1500.0,
    }
    assert sensors.readings(frozenset({3})) == {"temperature_c": pytest.approx(48.686)}


def test_a_phone_has_many_sensors_a_battery_and_cooling_devices(tmp_path: Path) -> None:
    zones = "sys/class/thermal/thermal_zone"
    sensors = tree(
        tmp_path,
        {
            f"{zones}0/type": "battery",
            f"{zones}0/temp": "90000",
            f"{zones}1/type": "cpu-0-0-usr",
            f"{zones}1/temp": "41000",
            f"{zones}2/type": "cpu-1-0-usr",
            f"{zones}2/temp": "43500",
            f"{zones}3/type": "cpu-off",
            f"{zones}3/temp": "-274000",
            "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0",
            "sys/class/thermal/cooling_device0/cur_state": "0",
            "sys/class/power_supply/usb/type": "USB",
            "sys/class/power_supply/battery/type": "Battery",
            "sys/class/power_supply/battery/capacity": "81",
            "sys/class/power_supply/battery/status": "Discharging",
        },
    )
    assert sensors.temperature_c() == 43.5
    assert sensors.battery() == {"battery_pct": 81.0, "battery_charging": 0.0}
    assert not sensors.is_throttled()
    (tmp_path / "sys/class/thermal/cooling_device0/cur_state").write_text("3\n")
    assert sensors.is_throttled()


def test_what_is_not_told_is_absent(tmp_path: Path) -> None:
    sensors = Sensors(tmp_path)
    assert sensors.temperature_c() is None
    assert sensors.model() is None
    assert sensors.battery() == {}
    assert sensors.readings(frozenset({0})) == {}
    assert not sensors.is_throttled()


def test_broken_files_are_absent_too(tmp_path: Path) -> None:
    sensors = tree(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/type": "cpu",
            "sys/class/thermal/thermal_zone0/temp": "warm",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "",
        },
    )
    assert sensors.readings(frozenset({0})) == {}


@given(st.sets(st.integers(0, 40), min_size=1))
def test_cpu_lists_survive_being_written(cpus: set[int]) -> None:
    assert parse_cpu_list(cpu_list(tuple(sorted(cpus)))) == tuple(sorted(cpus))


def test_this_interpreter_is_not_emulated() -> None:
    assert not is_emulated()


@pytest.mark.parametrize("pipe", ["goldfish_pipe", "qemu_pipe"])
def test_android_s_emulator_shows_a_pipe_to_its_host(tmp_path: Path, pipe: str) -> None:
    assert not is_emulated(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / pipe).touch()
    assert is_emulated(tmp_path)


@pytest.mark.parametrize(
    ("asked", "named"), [("7-4", "no CPU"), ("2-9", "4-9, which is not there"), ("8", "8, which")]
)
def test_cpus_that_are_not_there_are_named_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, named: str
) -> None:
    monkeypatch.setattr(machine, "usable_cpus", lambda: frozenset(range(4)))
    with pytest.raises(PlanError, match=rf"cpus={asked} names {named}.*expected some of 0-3 \("):
        pin(Sensors(tmp_path), asked)
