"""TensorRT's adapter opened on a module that plays TensorRT, and models for it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper, numpy_helper

from hwprof.devices.nvidia.cuda_timing import GpuTimer
from hwprof.devices.nvidia.tensorrt import TensorrtAdapter
from hwprof.devices.nvidia.tensorrt_run import TensorrtExecutable
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.testing import block
from hwprof.workload import Workload
from tests.devices import fake_tensorrt
from tests.devices.fake_cuda import FakeGpu, TorchOnFakeGpu
from tests.devices.fake_tensorrt_build import Script, script

PLAN = plan_for("quick")


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Script:
    """Put the fake in TensorRT's place, with a cache of its own; return how it will go."""
    gpu = FakeGpu()
    vars(script).update(vars(Script(gpu=gpu)))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setenv("HWPROF_TENSORRT_CACHE", str(folder / "engines"))
    timer = partial(GpuTimer, clock_ns=gpu.clock_ns)
    monkeypatch.setattr("hwprof.devices.nvidia.tensorrt_run.GpuTimer", timer)
    return script


def opened(options: DeviceOptions | None = None, nvml: Any = None) -> TensorrtAdapter:
    torch = TorchOnFakeGpu(script.gpu)
    return TensorrtAdapter(options or DeviceOptions(), torch, nvml, place="cpu")


def compiled(workload: Workload | None = None, **options: Any) -> TensorrtExecutable:
    adapter = opened(DeviceOptions(**options))
    return adapter.compile(workload or block("mbconv"), PLAN)


def save(path: Path, nodes: list[Any], inputs: list[Any], **arrays: Any) -> Path:
    """Write a model whose output is y, a float matrix."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", inputs, [output], weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("star.trek", 1)]
    path.write_bytes(
        helper.make_model(graph, ir_version=9, opset_imports=opsets).SerializeToString()
    )
    return path


def matrix(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def open_model(path: Path) -> Path:
    return save(path, [helper.make_node("Relu", ["x"], ["y"], name="r")], [matrix("x", "batch", 4)])
