"""A scripted pynvml: what it answers is set, what is not set is not supported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    pass


class NVMLLibraryMismatchError(Exception):
    """As in the binding: no NVMLError."""


class FakeNvml:
    """Answers ``nvmlDevice…`` calls from ``answers``; of callables, what they return.

    The list ``reasons`` is answered one entry a call; ``uuids`` are all that can be found.
    """

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"MigMode": [0, 0], **answers}
        self.asked_uuid: str | None = None
        self.driver: Any = "580.65.06"

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own name
        if "init" in self.answers:
            raise NVMLError(self.answers["init"])

    def nvmlSystemGetDriverVersion(self) -> Any:  # noqa: N802
        return self.driver

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self.answers.get("count", 1))

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.asked_uuid = uuid
        if uuid not in self.answers.get("uuids", (uuid,)):
            raise NVMLError("Not Found")
        return f"handle of {uuid}"

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        return f"whole of {handle}"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return f"GPU-{handle.removeprefix('handle ')}a7c"

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        slices: list[str] = self.answers.get("slices", [])
        if index >= len(slices):
            raise NVMLError("Not Found")
        return slices[index]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        free = self._answer("free")
        return SimpleNamespace(free=free[handle] if isinstance(free, dict) else free)

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> Any:  # noqa: N802
        return self._answer({1: "sm", 2: "memory"}[kind])

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> Any:  # noqa: N802
        return self._answer("max_sm")

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> Any:  # noqa: N802
        return self._answer("temperature")

    def nvmlDeviceGetPowerUsage(self, handle: str) -> Any:  # noqa: N802
        return self._answer("power_mw")

    def nvmlDeviceGetPowerManagementLimit(self, handle: str) -> Any:  # noqa: N802
        return self._answer("limit_mw")

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> Any:  # noqa: N802
        return self._answer("reasons")

    def nvmlDeviceGetMigMode(self, handle: str) -> Any:  # noqa: N802
        if self.answers["MigMode"] is None:
            raise NVMLError("Not Supported")
        return self.answers["MigMode"]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> Any:  # noqa: N802
        if self.answers.get("is_old"):
            raise NVMLLibraryMismatchError("Unversioned function called")
        found = self._answer("pids")  # of each its id, or what NVML tells of it
        told = [{"pid": p} if isinstance(p, int) else p for p in found]
        return [SimpleNamespace(**{"usedGpuMemory": None, **t}) for t in told]

    def nvmlSystemGetProcessName(self, pid: int) -> str:  # noqa: N802
        names: dict[int, str] = self.answers.get("names", {})
        if pid not in names:
            raise NVMLError("Not Found")
        return names[pid]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: str) -> Any:  # noqa: N802
        return self._answer("mps_pids")

    def _answer(self, name: str) -> Any:
        if name not in self.answers:
            raise NVMLError("Not Supported")
        value = self.answers[name]
        if callable(value):
            return value()
        if name == "reasons" and isinstance(value, list):
            return value.pop(0) if len(value) > 1 else value[0]
        return value
