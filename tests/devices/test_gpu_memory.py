"""Free memory of the GPU that workers will open, as NVML tells it to a process that opens none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hwprof.devices import BUILTIN, NVIDIA_GPU, device_ref
from hwprof.devices.nvidia.gpu_memory import free_bytes
from hwprof.measure.loading import load_factory
from hwprof.measure.records import DeviceOptions
from tests.devices.fake_nvml import FakeNvml

FREE = {"handle 0": 70, "handle 1": 30, "handle of MIG-5": 9, "slice a": 8, "slice b": 6}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 30),  # the first is the fastest of them, whichever that is
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 70),
        ({"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 30),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 30),
        ({"CUDA_VISIBLE_DEVICES": "GPU-0a7"}, 70),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a7c,GPU-0a7c"}, 30),
        ({"CUDA_VISIBLE_DEVICES": "MIG-5"}, 9),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "7", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, None),
    ],
)
def test_of_the_gpu_that_is_opened(environment: Mapping[str, str], expected: int | None) -> None:
    assert free_bytes(FakeNvml(count=2, free=FREE), environment) == expected


def test_of_a_partitioned_gpu_the_fullest_slice() -> None:
    nvml = FakeNvml(free=FREE, MigMode=[1, 1], slices=["slice a", "slice b"])
    assert free_bytes(nvml, {}) == 6


@pytest.mark.parametrize(
    "answers", [{"init": "Driver Not Loaded"}, {}, {"MigMode": None}], ids=["driver", "own", "mig"]
)
def test_what_is_not_told_is_not_guessed(answers: Mapping[str, Any]) -> None:
    """No driver; a GPU that shares the host's memory."""
    assert free_bytes(FakeNvml(**answers), {}) is None


def test_a_gpu_without_slices() -> None:
    assert free_bytes(FakeNvml(free=50, MigMode=None), {}) == 50


def test_every_gpu_device_tells_its_memory() -> None:
    for name, found in BUILTIN.items():
        assert (found.memory is not None) is (found.hardware == NVIDIA_GPU)
        for device in (name, f"{name}@ssh://user@host"):
            assert device_ref(device, DeviceOptions()).memory == found.memory
    assert load_factory("cuda", str(BUILTIN["cuda"].memory)) is free_bytes
