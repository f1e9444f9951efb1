"""What an NVIDIA GPU says of itself between bursts, through NVML (package nvidia-ml-py).

Bits of the clock event reasons and all units are those of NVIDIA's NVML API reference (nvml.h):
megahertz, milliwatts, degrees Celsius. What a GPU does not tell is absent, never a guess.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwprof.measure.machine import Fact, parent_pid
from hwprof.protocols import Disturbance, ForeignProcess

INSTALL = "pip install 'hwprof[cuda]'"
REASONS: Mapping[int, str] = {
    0x4: "power_capped",
    0x8: "hardware_slowdown",
    0x20: "software_thermal_slowdown",
    0x40: "hardware_thermal_slowdown",
    0x80: "power_brake",
}
"""Bits for a clock that something holds down, and the readings that tell them (0 or 1)."""
EXCLUDING = 0x8 | 0x20 | 0x40 | 0x80
"""Heat and the power brake: such a burst says nothing about the device at its clock. The software
power cap is how the device is sold: it only labels (methods: measurement protocol, GPU)."""
COOL_LIMIT_S = 10.0
COOL_STEP_S = 0.5
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0
"""NVML_CLOCK_SM, NVML_CLOCK_MEM and NVML_TEMPERATURE_GPU of nvml.h."""


class NvmlError(Exception):
    """NVML, or the GPU in it, cannot be had; the text says what would help."""


def opened(nvml: Any = None) -> Any:
    """Return NVML's binding, initialised; ``nvml`` stands in for it in tests.

    Raises:
        NvmlError: the package or the driver's library is not there.
    """
    if nvml is None:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlError(f"{error}: run {INSTALL}") from error
        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NvmlError(f"NVML says: {error}; see whether nvidia-smi works") from error
    return nvml


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """One reading."""

    reasons: int | None
    readings: Mapping[str, float]
    others: tuple[ForeignProcess, ...] = ()
    """Processes on the GPU that are not of this campaign, as far as they can be told."""

    @property
    def is_throttled(self) -> bool:
        """Whether heat or the power brake holds the clock down."""
        return bool((self.reasons or 0) & EXCLUDING)


class GpuSensors:
    """Reads one GPU.

    Args:
        nvml: the module ``pynvml``, initialised.
        handle: of the GPU.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self._own_pids: Callable[[], Collection[int]] = tuple
        # What the binding raises where an old driver lacks a call is no NVMLError.
        mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
        self._refusals: tuple[type[Exception], ...] = (nvml.NVMLError, mismatch)

    def spare(self, pids: Callable[[], Collection[int]]) -> None:
        """Take the processes that ``pids`` returns for our own, beside those told by their parent."""
        self._own_pids = pids

    @classmethod
    def open(cls, uuid: str | None, nvml: Any = None) -> GpuSensors:
        """Open NVML and find the GPU that torch calls by ``uuid``.

        Raises:
            NvmlError: the package, the driver's library or the GPU is not there.
        """
        nvml = opened(nvml)
        try:
            if uuid is not None:
                return cls(nvml, _handle_of(nvml, uuid.removeprefix("GPU-").removeprefix("MIG-")))
            if (count := nvml.nvmlDeviceGetCount()) != 1:
                raise NvmlError(f"torch tells no UUID and there are {count} GPUs: update torch")
            return cls(nvml, nvml.nvmlDeviceGetHandleByIndex(0))
        except nvml.NVMLError as error:
            raise NvmlError(f"NVML says: {error}; see whether nvidia-smi works") from error

    def state(self) -> GpuState:
        """Return the present clocks, power, temperature, reasons and other processes."""
        found: dict[str, float | None] = {
            "sm_mhz": self.sm_mhz(),
            "memory_mhz": self._ask("nvmlDeviceGetClockInfo", _CLOCK_MEMORY),
            "gpu_power_w": self._scaled("nvmlDeviceGetPowerUsage", 1e-3),
            "gpu_temperature_c": self._ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
        }
        others = self.other_processes()
        if others is not None:
            found["other_gpu_processes"] = len(others)
        if (reasons := self._reasons()) is not None:
            found.update({name: bool(reasons & bit) for bit, name in REASONS.items()})
        readings = {name: float(value) for name, value in found.items() if value is not None}
        return GpuState(reasons=reasons, readings=readings, others=others or ())

    def sm_mhz(self) -> float | None:
        """Return the clock of the multiprocessors."""
        value = self._ask("nvmlDeviceGetClockInfo", _CLOCK_SM)
        return None if value is None else float(value)

    def other_processes(self) -> tuple[ForeignProcess, ...] | None:
        """Return the processes on the GPU that are not of this campaign, by process id.

        None where the GPU tells none, or tells them in another namespace of process ids (a
        container): where this process itself is not among them, none can be told from another.
        """
        running = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if running is None:
            return None
        found = {int(process.pid): process for process in running}
        if (own := found.get(os.getpid())) is None:
            return None
        # Of a partitioned GPU the whole is asked: who is in another slice has units of its own.
        here = [pid for pid, process in found.items() if _slice_of(process) == _slice_of(own)]
        others = sorted(pid for pid in here if not _is_of_this_campaign(pid))
        if others:
            spared = frozenset(self._own_pids())
            others = [pid for pid in others if pid not in spared]
        return tuple(
            ForeignProcess(
                pid=pid,
                name=self._name_of(pid),
                # None where the driver leaves memory to the system (WSL), 0 in some containers.
                memory_bytes=getattr(found[pid], "usedGpuMemory", None) or None,
            )
            for pid in others
        )

    def _name_of(self, pid: int) -> str | None:
        try:
            return _text(self._nvml.nvmlSystemGetProcessName(pid)) or None
        except self._nvml.NVMLError:  # ended meanwhile, or another user's
            return None

    def stable_facts(self) -> dict[str, Fact]:
        """Return what identifies the GPU's set-up and changes only with a deliberate act."""
        mig = self._ask("nvmlDeviceGetMigMode")
        limit_w = self._scaled("nvmlDeviceGetPowerManagementLimit", 1e-3)
        try:
            driver: Fact = _text(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            driver = None
        return {
            "driver": driver,
            "max_sm_mhz": self._ask("nvmlDeviceGetMaxClockInfo", _CLOCK_SM),
            "power_limit_w": None if limit_w is None else round(limit_w),
            "mig": None if mig is None else bool(mig[0]),
            "mps": self.is_shared_by_mps(),
        }

    def is_shared_by_mps(self) -> bool:
        """Return whether a Multi-Process Service stands between processes and the GPU."""
        served = self._ask("nvmlDeviceGetMPSComputeRunningProcesses")
        return bool(served) or "CUDA_MPS_PIPE_DIRECTORY" in os.environ

    def warnings(self) -> list[str]:
        """Return what about the GPU makes numbers less repeatable, with what would mend it."""
        facts, others = self.stable_facts(), self.other_processes()
        out = []
        if facts["mig"]:
            out.append(
                "the GPU is partitioned (MIG): the numbers are of this slice, and the others share "
                "its memory bandwidth and power: keep those idle, or measure on a whole GPU"
            )
        if facts["mps"]:
            out.append(
                "a Multi-Process Service (MPS) shares the GPU: stop it for clean numbers (echo "
                "quit | nvidia-cuda-mps-control)"
            )
        if others is None:
            out.append(
                "whether other processes use the GPU is not known (NVML does not list this one, as "
                "in a container of its own process ids): see to it that none does"
            )
        elif others:
            out.append(
                f"{len(others)} other process(es) use the GPU: {', '.join(map(str, others[:4]))}: "
                "end them for clean numbers"
            )
        return out

    def _reasons(self) -> int | None:
        # The name of the call changed with driver 535; older bindings know only the second.
        for name in (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ):
            if (value := self._ask(name)) is not None:
                return int(value)
        return None

    def _scaled(self, name: str, factor: float) -> float | None:
        value = self._ask(name)
        return None if value is None else float(value) * factor

    def _ask(self, name: str, *arguments: int) -> Any:
        """Return what NVML answers; None where GPU, driver or binding do not know the question."""
        question = getattr(self._nvml, name, None)
        if question is None:
            return None
        try:
            return question(self._handle, *arguments)
        except self._refusals:
            return None


def _handle_of(nvml: Any, uuid: str) -> Any:
    """Return the GPU of a UUID; for a slice of one (MIG) the whole, which alone has a clock.

    CUDA tells a slice's own UUID, and torch leaves out the prefix that tells the two apart.
    """
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        part = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _slice_of(process: Any) -> int | None:
    """Return the slice (MIG) that a process runs in; the same for all where there are none."""
    found: int | None = getattr(process, "gpuInstanceId", None)
    return found


def _is_of_this_campaign(pid: int) -> bool:
    """Return whether a process is this one, what started it and waits, or a worker beside it."""
    # Not by psutil, which a board need not have.
    return pid in (os.getpid(), os.getppid()) or parent_pid(pid) == os.getppid()


class GpuConditions:
    """Watches one burst after another, as :class:`hwprof.protocols.ReportsDisturbance` tells them.

    Args:
        sensors: of the GPU; None where NVML is not there, and nothing is known.
        sleep: waits so many seconds.
    """

    def __init__(
        self, sensors: GpuSensors | None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._sensors, self._sleep = sensors, sleep
        self._states: Sequence[GpuState] = ()
        self.last = Disturbance()

    def before(self, *, hot: bool = False) -> None:
        """Note the state a burst begins in; unless ``hot``, let a throttled GPU cool first."""
        if self._sensors is None:
            return
        state, waited_s = self._sensors.state(), 0.0
        while not hot and state.is_throttled and waited_s < COOL_LIMIT_S:
            self._sleep(COOL_STEP_S)
            waited_s += COOL_STEP_S
            state = self._sensors.state()
        self._states = (state,)

    def after(self, more: Mapping[str, float]) -> None:
        """Note in :attr:`last` what disturbed the burst; ``more`` joins its readings."""
        states = self._states
        if self._sensors is not None:
            states = (*states, self._sensors.state())
        readings = dict(states[-1].readings) if states else {}
        for name in REASONS.values():
            if told := [s.readings[name] for s in states if name in s.readings]:
                readings[name] = max(told)
        others = {process.pid: process for s in states for process in s.others}
        self.last = Disturbance(
            throttled=any(s.is_throttled for s in states),
            foreign_processes=tuple(others.values()),
            readings={**readings, **more},
        )
