"""What NVML says, mapped on disturbances, facts and warnings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from hwprof.devices.nvidia import gpu_memory
from hwprof.devices.nvidia import nvml as nvml_module
from hwprof.devices.nvidia.cuda_presence import no_gpu
from hwprof.devices.nvidia.nvml import (
    COOL_LIMIT_S,
    REASONS,
    GpuConditions,
    GpuSensors,
    NvmlError,
)
from hwprof.protocols import ForeignProcess
from tests.devices.fake_nvml import FakeNvml

SOURCE = "".join(Path(str(m.__file__)).read_text() for m in (nvml_module, gpu_memory))
QUIET = {"sm": 1980, "memory": 2619, "power_mw": 351_500, "temperature": 61, "reasons": 0}


def test_every_call_exists_in_the_published_binding() -> None:
    """nvidia-ml-py itself: the names that are called, and the constants that are written down."""
    binding = pytest.importorskip("pynvml", exc_type=ImportError)
    names = set(re.findall(r"nvml(?:Device|System|Init)\w*", SOURCE))
    assert len(names) > 12
    old_name = "nvmlDeviceGetCurrentClocksThrottleReasons"
    assert [n for n in sorted(names - {old_name}) if not hasattr(binding, n)] == []
    assert issubclass(binding.NVMLLibraryMismatchError, Exception)
    assert nvml_module._CLOCK_SM == binding.NVML_CLOCK_SM
    assert nvml_module._CLOCK_MEMORY == binding.NVML_CLOCK_MEM
    assert nvml_module._TEMPERATURE_GPU == binding.NVML_TEMPERATURE_GPU


@pytest.mark.parametrize(
    ("bit", "constant"),
    [
        (0x4, "SwPowerCap"),
        (0x8, "HwSlowdown"),
        (0x20, "SwThermalSlowdown"),
        (0x40, "HwThermalSlowdown"),
        (0x80, "HwPowerBrakeSlowdown"),
    ],
)
def test_bits_are_those_of_the_binding(bit: int, constant: str) -> None:
    binding = pytest.importorskip("pynvml", exc_type=ImportError)
    assert getattr(binding, f"nvmlClocksEventReason{constant}") == bit


@pytest.mark.skipif(not no_gpu(), reason="a GPU's driver is here")
def test_the_real_binding_without_a_driver() -> None:
    pytest.importorskip("pynvml", exc_type=ImportError)
    with pytest.raises(NvmlError, match=r"NVML says: .*; see whether nvidia-smi works"):
        GpuSensors.open("1111")


def sensors(**answers: object) -> GpuSensors:
    return GpuSensors.open("1111", FakeNvml(**{**QUIET, **answers}))


def conditions(**answers: object) -> tuple[GpuConditions, list[float]]:
    slept: list[float] = []
    return GpuConditions(sensors(**answers), slept.append), slept


def test_readings_have_units() -> None:
    assert dict(sensors(pids=[os.getpid()]).state().readings) == pytest.approx(
        {
            "sm_mhz": 1980.0,
            "memory_mhz": 2619.0,
            "gpu_power_w": 351.5,
            "gpu_temperature_c": 61.0,
            "other_gpu_processes": 0.0,
            "power_capped": 0.0,
            "hardware_slowdown": 0.0,
            "software_thermal_slowdown": 0.0,
            "hardware_thermal_slowdown": 0.0,
            "power_brake": 0.0,
        }
    )


# Bits of nvmlClocksEventReasons in nvml.h.
@pytest.mark.parametrize(
    ("bits", "names", "excluded"),
    [
        (0x0, (), False),
        (0x1, (), False),
        (0x4, ("power_capped",), False),
        (0x8, ("hardware_slowdown",), True),
        (0x20, ("software_thermal_slowdown",), True),
        (0x40, ("hardware_thermal_slowdown",), True),
        (0x80, ("power_brake",), True),
        (0x44, ("power_capped", "hardware_thermal_slowdown"), True),
    ],
)
def test_heat_and_power_brake_exclude_and_the_power_cap_labels(
    bits: int, names: tuple[str, ...], excluded: bool
) -> None:
    watch, slept = conditions(reasons=bits)
    watch.before()
    watch.after({"unhidden_share": 0.0})
    told = tuple(name for name in REASONS.values() if watch.last.readings[name])
    assert told == names
    assert watch.last.throttled is excluded
    assert watch.last.readings["unhidden_share"] == 0.0
    assert sum(slept) == (COOL_LIMIT_S if excluded else 0.0)


def test_it_cools_down_before_the_burst() -> None:
    watch, slept = conditions(reasons=[0x40, 0x40, 0, 0])
    watch.before()
    watch.after({})
    assert len(slept) == 2
    assert not watch.last.throttled


def test_a_sustained_load_is_not_cooled() -> None:
    watch, slept = conditions(reasons=0x40)
    watch.before(hot=True)
    watch.after({})
    assert slept == []
    assert watch.last.throttled


def test_throttling_that_began_in_the_burst_is_seen() -> None:
    watch, _ = conditions(reasons=[0, 0x20])
    watch.before()
    watch.after({})
    assert watch.last.throttled


def test_what_a_gpu_does_not_tell_is_absent() -> None:
    bare = GpuSensors.open("1111", FakeNvml(MigMode=None))
    assert bare.state().readings == {}
    assert bare.state().reasons is None
    assert bare.stable_facts() == {
        "driver": "580.65.06",
        "max_sm_mhz": None,
        "power_limit_w": None,
        "mig": None,
        "mps": False,
    }
    (warning,) = bare.warnings()
    assert "whether other processes use the GPU is not known" in warning


def test_facts_of_the_set_up() -> None:
    facts = sensors(max_sm=1980, limit_mw=700_000, MigMode=[1, 1], mps_pids=[7]).stable_facts()
    assert facts == {
        "driver": "580.65.06",
        "max_sm_mhz": 1980,
        "power_limit_w": 700,
        "mig": True,
        "mps": True,
    }


def test_who_shares_the_gpu_is_said_with_what_would_help() -> None:
    found = sensors(MigMode=[1, 1], mps_pids=[7], pids=[os.getpid(), 2**22 + 1]).warnings()
    assert len(found) == 3
    for words in ("MIG", "nvidia-cuda-mps-control", "1 other process"):
        assert any(words in line for line in found)


def test_who_started_the_worker_is_no_other() -> None:
    """A search may hold its supernet on the GPU; it waits while its workers measure."""
    assert sensors(pids=[os.getpid(), os.getppid()]).other_processes() == ()


STRANGER = 2**22 + 1


def test_another_process_that_starts_in_a_burst_is_told_by_name_and_memory() -> None:
    seen = [{"pid": STRANGER, "usedGpuMemory": 512 * 2**20}]
    answers = iter([[os.getpid()], [os.getpid(), *seen], [os.getpid()]])
    watch, _ = conditions(pids=lambda: next(answers), names={STRANGER: "/usr/bin/python3"})
    watch.before()
    watch.after({})
    (found,) = watch.last.foreign_processes
    assert str(found) == f"/usr/bin/python3 (pid {STRANGER}, 512 MiB)"
    assert found == ForeignProcess(pid=STRANGER, name="/usr/bin/python3", memory_bytes=512 * 2**20)
    assert watch.last.readings["other_gpu_processes"] == 1.0


def test_what_is_not_known_of_another_process_is_left_out() -> None:
    for told in (STRANGER, {"pid": STRANGER, "usedGpuMemory": 0}):
        (found,) = sensors(pids=[os.getpid(), told]).other_processes() or ()
        assert str(found) == f"a process (pid {STRANGER})"


def test_workers_of_the_campaign_are_spared() -> None:
    """On a board each has a supervisor of its own, so that no parent tells."""
    found = sensors(pids=[os.getpid(), STRANGER, STRANGER + 1])
    found.spare(lambda: {STRANGER})
    assert [p.pid for p in found.other_processes() or ()] == [STRANGER + 1]


def test_who_is_in_another_slice_is_no_other() -> None:
    told = [
        {"pid": pid, "gpuInstanceId": part}
        for pid, part in ((os.getpid(), 1), (STRANGER, 2), (STRANGER + 1, 1))
    ]
    assert [p.pid for p in sensors(pids=told).other_processes() or ()] == [STRANGER + 1]


def test_an_old_driver_does_not_end_the_worker() -> None:
    """The binding's exception for a call that the driver lacks is none of its NVMLErrors."""
    assert sensors(is_old=True).other_processes() is None


def test_a_worker_beside_this_one_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine started both; a process with another parent is told from them."""
    parents = {STRANGER: os.getppid(), STRANGER + 1: 1}
    monkeypatch.setattr(nvml_module, "parent_pid", parents.get)
    found = sensors(pids=[os.getpid(), *parents]).other_processes() or ()
    assert [p.pid for p in found] == [STRANGER + 1]


def test_processes_of_another_namespace_say_nothing() -> None:
    """In a container NVML gives the host's ids: ours is not among them."""
    assert sensors(pids=[2**22 + 1]).other_processes() is None


def test_the_gpu_is_found_by_torchs_uuid() -> None:
    nvml = FakeNvml()
    GpuSensors.open("4a5b", nvml)
    assert nvml.asked_uuid == "GPU-4a5b"
    with pytest.raises(NvmlError, match="2 GPUs"):
        GpuSensors.open(None, FakeNvml(count=2))


def test_of_a_slice_the_whole_gpu_is_read() -> None:
    """CUDA tells a slice's own UUID, which NVML knows by another prefix; clocks are the GPU's."""
    nvml = FakeNvml(uuids=["MIG-4a5b"], MigMode=[1, 1])
    found = GpuSensors.open("4a5b", nvml)
    assert found._handle == "whole of handle of MIG-4a5b"
    assert any("this slice" in line for line in found.warnings())
    with pytest.raises(NvmlError, match="Not Found"):
        GpuSensors.open("6c7d", nvml)


def test_without_nvml_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NvmlError, match="Driver Not Loaded; see whether nvidia-smi works"):
        GpuSensors.open("1", FakeNvml(init="Driver Not Loaded"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NvmlError, match=r"pip install 'hwprof\[cuda\]'"):
        GpuSensors.open("1")


def test_nothing_is_known_without_sensors() -> None:
    watch = GpuConditions(None)
    watch.before()
    watch.after({"unhidden_share": 0.5})
    assert not watch.last.throttled
    assert dict(watch.last.readings) == {"unhidden_share": 0.5}
