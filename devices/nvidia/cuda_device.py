"""What adapters of an NVIDIA GPU share: opening it, its facts, its state round every burst."""

from __future__ import annotations

import gc
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hwprof.devices.host import Array, HostExecutable
from hwprof.devices.nvidia.cuda_memory import device_memory
from hwprof.devices.nvidia.cuda_presence import torch_lacks
from hwprof.devices.nvidia.cuda_timing import GpuTimer, hold_clock
from hwprof.devices.nvidia.nvml import GpuConditions, GpuSensors, NvmlError
from hwprof.errors import DeviceUnavailableError
from hwprof.measure import machine
from hwprof.measure.records import Burst, Cache, DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import Disturbance
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

BUSY_S = 0.01
"""Work between two looks at the clock while the GPU warms up."""
_HOST_FACTS = ("machine", "os", "kernel", "hypervisor", "power_mode")


def open_cuda(device: str) -> Any:
    """Return torch, with a GPU behind it.

    Raises:
        DeviceUnavailableError: torch or the GPU is not there.
    """
    try:
        import torch
    except ImportError as error:
        raise DeviceUnavailableError(
            f"the device {device!r} needs torch ({error}): run pip install 'hwprof[search,cuda]'"
        ) from error
    if not torch.cuda.is_available():
        reason = torch_lacks() or (
            f"torch {torch.__version__} finds no GPU: see whether nvidia-smi lists one, and whether "
            "CUDA_VISIBLE_DEVICES hides it"
        )
        raise DeviceUnavailableError(f"the device {device!r} cannot be opened: {reason}")
    return torch


class GpuAdapter:
    """The current GPU (``CUDA_VISIBLE_DEVICES`` chooses it), with its sensors.

    Args:
        device: the adapter's registered name.
        options: the axes of every adapter.
        torch: stands in for torch in tests.
        nvml: stands in for pynvml in tests.

    Raises:
        DeviceUnavailableError: torch or the GPU is not there.
        MemoryError: its memory does not hold another process.
    """

    def __init__(
        self, device: str, options: DeviceOptions, torch: Any = None, nvml: Any = None
    ) -> None:
        self.torch = open_cuda(device) if torch is None else torch
        self.options = options
        self._device = device
        self._was_full = False
        cuda = self.torch.cuda
        self._properties = cuda.get_device_properties(cuda.current_device())
        uuid = getattr(self._properties, "uuid", None)
        self._uuid = None if uuid is None else str(uuid)
        # Before NVML is asked who uses the GPU: a process is among those from its first stream on,
        # and where it is not, others cannot be told from it.
        with device_memory(self.torch, "another process (CUDA takes 300 to 500 MiB for one)"):
            self.stream, self.pool = cuda.Stream(), cuda.graph_pool_handle()
        """All workloads of the process run here, one at a time, and their graphs share memory:
        else a group of networks at a large batch would not fit."""
        self.sensors: GpuSensors | None = None
        self._unknown = ""
        try:
            self.sensors = GpuSensors.open(self._uuid, nvml)
        except NvmlError as error:
            self._unknown = (
                f"clocks, power, heat and other processes of the GPU are not known: {error}"
            )
        self.conditions = GpuConditions(self.sensors)
        self._clock_held: bool | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be said beside every result."""
        return (self._unknown,) if self.sensors is None else tuple(self.sensors.warnings())

    def spare(self, pids: Callable[[], Collection[int]]) -> None:
        """Take the processes that ``pids`` returns for the campaign's own."""
        if self.sensors is not None:
            self.sensors.spare(pids)

    def disturbance(self) -> Disturbance:
        """Return what disturbed the last burst, as the GPU knows it."""
        return self.conditions.last

    @contextmanager
    def room_for(self, workload: Workload) -> Iterator[None]:
        """Compile a workload inside: where the GPU is full that is a failure of its own.

        Raises:
            MemoryError: the GPU's memory does not hold it; the text says what helps.
        """
        if self._was_full:
            # What the failed one held hangs on its error until that is forgotten; by now it is, and
            # the next one must not fail of it.
            gc.collect()
            self.torch.cuda.empty_cache()
            self._was_full = False
        try:
            with device_memory(self.torch, repr(workload.label)):
                yield
        except MemoryError:
            self._was_full = True
            raise

    def warm_up(self, timer: GpuTimer) -> bool:
        """Work until the GPU's clock holds, once a process; return whether it did."""

        def clock_mhz() -> float:
            told_mhz = None if self.sensors is None else self.sensors.sm_mhz()
            return told_mhz or timer.clock_mhz()

        if self._clock_held is None:
            self._clock_held = hold_clock(clock_mhz, lambda: _work_for(timer, BUSY_S))
        return self._clock_held

    def gpu_fingerprint(
        self, *, runtime: str, runtime_version: str, settings: Mapping[str, machine.Fact]
    ) -> Fingerprint:
        """Return the facts about GPU, host, driver, runtime and options."""
        found, host = self._properties, machine.stable_facts()
        options, torch = self.options, self.torch
        return Fingerprint(
            stable={
                "device": self._device,
                "hardware": str(found.name),
                "host": host["hardware"],
                **{name: host[name] for name in _HOST_FACTS if name in host},
                "compute_capability": f"{found.major}.{found.minor}",
                "multiprocessors": int(found.multi_processor_count),
                "gpu_memory_gib": round(found.total_memory / 2**30),
                **(self.sensors.stable_facts() if self.sensors is not None else {}),
                "cuda": torch.version.cuda,
                "runtime": runtime,
                "runtime_version": runtime_version,
                "timer": f"torch {torch.__version__} events",
                "threads": options.threads,
                "batch": options.batch,
                "precision": options.precision,
                **settings,
            },
            volatile={
                **machine.volatile_facts(),
                "gpu_uuid": self._uuid,
                "python": sys.version.split()[0],
            },
        )

    def is_lost(self) -> bool:
        """Return whether CUDA has given this process up.

        It does after an error of a kernel's own (an assertion, an illegal address): every later
        call fails of it, until the process ends.
        """
        try:
            self.torch.cuda.synchronize()
        except RuntimeError:
            return True
        return False

    def close(self) -> None:
        """Nothing to free: what is on the GPU belongs to executables."""


def _work_for(timer: GpuTimer, seconds: float) -> None:
    stop_s = time.monotonic() + seconds
    while time.monotonic() < stop_s:
        timer.run()


class GpuExecutable(HostExecutable):
    """A workload on the GPU.

    Subclasses give a timer, seeded inputs, how values are written where calls read and read where
    they write, and :meth:`trace`.
    """

    timer: GpuTimer
    _seeded: Arrays

    def __init__(
        self,
        adapter: GpuAdapter,
        plan: MeasurePlan,
        *,
        load_s: float,
        artifact_bytes: int,
        peak_memory_bytes: int | None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            load_s=load_s, artifact_bytes=artifact_bytes, peak_memory_bytes=peak_memory_bytes
        )
        self._adapter, self._is_sustained = adapter, plan.sustained_s > 0.0
        self.warnings = warnings

    def call(self) -> object:
        """Run once on the seeded inputs, and wait."""
        self.timer.run()
        return None

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Run once as it is timed and return the outputs, in order.

        Raises:
            ModelError: the inputs are not of the shapes that it was compiled for.
            MeasurementError: the runtime does not run it.
        """
        if inputs is not None:
            self._fill(inputs)
        self.timer.run()
        found = self._read()
        if inputs is not None:
            self._fill(self._seeded)
        return found

    @abstractmethod
    def _fill(self, inputs: Arrays) -> None:
        """Write values where calls read their inputs; a ModelError where the shapes are others."""

    @abstractmethod
    def _read(self) -> list[Array]:
        """Return what the last call wrote."""

    def burst(self, duration_s: float, min_calls: int, cache: Cache) -> Burst:
        """Time a burst on the GPU, its state noted before and after."""
        conditions = self._adapter.conditions
        held = self._adapter.warm_up(self.timer)
        conditions.before(hot=self._is_sustained)
        burst = self.timer.burst(duration_s, min_calls, cache)
        share = {"unhidden_share": self.timer.unhidden_share, "clock_held": float(held)}
        conditions.after(share)
        return burst

    def close(self) -> None:
        """Free what the workload holds on the GPU."""
        super().close()
        self.timer.close()
