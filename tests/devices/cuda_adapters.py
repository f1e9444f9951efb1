"""The torch adapters on a scripted GPU, as several tests want them."""

from __future__ import annotations

from typing import Any

from hwprof.devices.nvidia.cuda import CudaAdapter, CudaExecutable
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.testing import block
from hwprof.workload import Workload
from tests.devices.fake_cuda import FakeGpu, TorchOnFakeGpu
from tests.devices.fake_nvml import FakeNvml

PLAN = plan_for("quick")
READINGS = {"sm": 1980, "memory": 2619, "power_mw": 350_000, "temperature": 60, "reasons": 0}


def adapter(
    gpu: FakeGpu | None = None,
    kind: type[CudaAdapter] = CudaAdapter,
    nvml: FakeNvml | None = None,
    replaced: dict[str, Any] | None = None,
    **options: Any,
) -> CudaAdapter:
    stand_in = TorchOnFakeGpu(gpu or FakeGpu(), **(replaced or {}))
    return kind(DeviceOptions(**options), stand_in, nvml or FakeNvml(**READINGS), place="cpu")


def compiled(gpu: FakeGpu, workload: Workload | None = None, **how: Any) -> CudaExecutable:
    """Return an executable whose replays compute, as a GPU's do."""
    import torch

    executable = adapter(gpu, **how).compile(workload or block("mbconv"), PLAN)
    if executable.timer.is_graph:

        def replay() -> None:
            written: Any = executable._replayed
            with torch.inference_mode():
                written.copy_(executable._module(*executable._inputs))

        gpu.on_replay = replay
    return executable
