"""How much memory an NVIDIA GPU has free, told by NVML: no runtime, and no context of one's own.

CUDA counts its devices in another order than NVML does, the fastest first, unless
``CUDA_DEVICE_ORDER`` says otherwise. Where it cannot be told which GPU workers will open, it is the
fullest of those that it may be.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hwprof.devices.nvidia.nvml import NvmlError, opened

_ALL = "0"


def free_bytes(nvml: Any = None, environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the free memory of the GPU that workers will open; None where nothing tells it.

    Args:
        nvml: stands in for pynvml in tests.
        environment: what CUDA reads its settings from.
    """
    try:
        binding = opened(nvml)
    except NvmlError:  # no GPU, no driver, no binding: who opens the device is told
        return None
    try:
        handles = _candidates(binding, environment)
        return min((int(binding.nvmlDeviceGetMemoryInfo(h).free) for h in handles), default=None)
    except binding.NVMLError:  # a GPU that shares the host's memory tells none of its own
        return None


def _candidates(nvml: Any, environment: Mapping[str, str]) -> list[Any]:
    """Return the GPUs, or slices of them, of which CUDA's first device is one."""
    first = environment.get("CUDA_VISIBLE_DEVICES", _ALL).partition(",")[0].strip()
    if first.startswith("MIG-"):
        return [nvml.nvmlDeviceGetHandleByUUID(first)]
    gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    if first.isdecimal():
        if environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            gpus = gpus[int(first) : int(first) + 1]
    else:  # the beginning of a UUID is enough for CUDA
        gpus = [g for g in gpus if first and nvml.nvmlDeviceGetUUID(g).startswith(first)]
    return [part for gpu in gpus for part in _slices(nvml, gpu)]


def _slices(nvml: Any, gpu: Any) -> list[Any]:
    """Return the slices of a GPU that is partitioned (MIG), for CUDA opens one; else the GPU."""
    try:
        if not nvml.nvmlDeviceGetMigMode(gpu)[0]:
            return [gpu]
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except nvml.NVMLError:  # a GPU that knows no slices
        return [gpu]
    found = []
    for index in range(count):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
        except nvml.NVMLError:  # an empty place
            continue
    return found
