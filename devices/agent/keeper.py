"""The process that holds a device's lease for a campaign, takes in models, and tells its state."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from hwprof.devices import installed_version
from hwprof.devices.agent.board_server import hardware_name
from hwprof.devices.agent.leases import end_leftover_workers, take_lease
from hwprof.devices.agent.models import ModelFolder
from hwprof.devices.agent.sensors import Sensors, is_emulated
from hwprof.devices.nvidia import gpu_memory
from hwprof.measure import machine, wire
from hwprof.measure.load import LoadMonitor
from hwprof.measure.worker import Server, run

QUIET_WINDOW_S = 0.5
RUNTIMES = (
    "numpy",
    "onnxruntime",
    "ai-edge-litert",
    "tflite-runtime",
    "openvino",
    "tensorrt",
    "torch",
)


def run_keeper(folder: Path) -> NoReturn:
    """Serve until the link ends."""
    run(Keeper(folder), os.getppid())


class Keeper(Server):
    """Answers requests about the device as a whole.

    Args:
        folder: the agent's folder on the device.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models = ModelFolder(folder / "models")
        self._lease: int | None = None
        self.operations = {
            "lease": self._take,
            "ping": self._ping,
            "has": self._has,
            "put": self._put,
            "close": self._close,
        }

    def _take(self, request: wire.Frame) -> wire.Frame:
        header = request.header
        self._lease = take_lease(self._folder / "lease", header["token"], header["holder"])
        ended = end_leftover_workers(self._folder / "workers")
        return wire.Frame(header={"ended_workers": ended, **device_state(self._folder)})

    def _ping(self, request: wire.Frame) -> wire.Frame:
        return wire.Frame(header={})

    def _has(self, request: wire.Frame) -> wire.Frame:
        return wire.Frame(header={"has": self._models.has(request.header["name"])})

    def _put(self, request: wire.Frame) -> wire.Frame:
        content = request.arrays["words"].tobytes()[: request.header["size_bytes"]]
        self._models.put(request.header["name"], content)
        return wire.Frame(header={})

    def _close(self, request: wire.Frame) -> wire.Frame:
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None
        return wire.Frame(header={"closed": True})


def device_state(folder: Path) -> dict[str, Any]:
    """Return what there is on the device and what it does at this moment, as plain data."""
    sensors, monitor = Sensors(), LoadMonitor()
    time.sleep(QUIET_WINDOW_S)
    load = monitor.mark()
    cpus = machine.usable_cpus()
    return {
        "hardware": hardware_name(sensors) or machine.cpu_model(),
        "machine": platform.machine(),
        "os": machine.stable_facts()["os"],
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "runtimes": {name: v for name in RUNTIMES if (v := installed_version(name))},
        "clusters": [str(c) for c in sensors.clusters()],
        "governors": sorted({c.governor for c in sensors.clusters() if c.governor}),
        "frequencies_mhz": {str(c): f / 1000.0 for c, f in sensors.frequencies_khz().items()},
        "usable_cpus": len(cpus),
        "temperature_c": sensors.temperature_c(),
        "throttled": sensors.is_throttled(),
        "battery": sensors.battery(),
        "foreign_cores": load.foreign_cores if load else None,
        "free_memory_bytes": machine.available_memory_bytes(),
        "free_gpu_memory_bytes": gpu_memory.free_bytes(),
        "free_space_bytes": shutil.disk_usage(folder).free,
        "boot_id": sensors.boot_id(),
        "emulated": is_emulated(),
    }
