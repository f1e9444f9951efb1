"""A module that plays ``tensorrt`` as its documentation and its bindings' docstrings describe it.

Calls that fail do so as there: they return ``None`` or ``False`` and tell the logger why. Engines
are ONNX models that the standard's own evaluator computes, on memory given by address, when a
scripted GPU (:mod:`tests.devices.fake_cuda`) gets to them. What ``__all__`` lists exists in the
published bindings of both major versions (``test_tensorrt_api.py``); :data:`script` says how the
run goes.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from tests.devices.fake_cuda import FakeStream
from tests.devices.fake_tensorrt_build import (
    NUMPY,
    Builder,
    BuilderFlag,
    DataType,
    ErrorCode,
    IBuilderConfig,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IProfiler,
    ITensor,
    ITimingCache,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ParserError,
    ProfilingVerbosity,
    TensorIOMode,
    TensorLocation,
    script,
    start,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "ErrorCode",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProfiler",
    "ITensor",
    "ITimingCache",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "ProfilingVerbosity",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
]
__version__ = script.version


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        start(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        line, _, model = serialized_engine.partition(b"\n")
        header = json.loads(line)
        error = script.load_error
        if header["version"] != script.version:
            error = "The engine plan file is not compatible with this version of TensorRT"
        if error:
            self._logger.log(ILogger.Severity.ERROR, error)
            return None
        is_detailed = header["detailed"] == ProfilingVerbosity.DETAILED
        return ICudaEngine(onnx.load_from_string(model), self._logger, is_detailed)


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, model: Any, logger: ILogger, is_detailed: bool) -> None:
        self._model, self._logger, self._is_detailed = model, logger, is_detailed
        self._inputs = {v.name: ITensor(v) for v in model.graph.input}
        self._outputs = {v.name: ITensor(v) for v in model.graph.output}
        self._tensors = {**self._inputs, **self._outputs}
        self._layers = list(_fuse(model.graph.node))

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        names: list[str] = list(self._tensors)
        return names[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name].dtype

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def create_execution_context(self) -> IExecutionContext | None:
        if script.context_error:
            self._logger.log(ILogger.Severity.ERROR, script.context_error)
            return None
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._evaluator = ReferenceEvaluator(engine._model)
        self._shapes = {name: tensor.shape for name, tensor in engine._inputs.items()}
        self._addresses: dict[str, int] = {}
        self._launched = False
        self.profiler: IProfiler | None = None
        self.enqueue_emits_profile = True
        self.nvtx_verbosity = ProfilingVerbosity.DETAILED

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        wanted = self._engine.get_tensor_shape(name)
        if any(size not in (-1, given) for size, given in zip(wanted, shape, strict=True)):
            self._engine._logger.log(ILogger.Severity.ERROR, "does not satisfy any profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        if name in script.sized_by_values:
            return (-1, 4)
        ones = {
            n: np.ones(s, NUMPY[self._engine._inputs[n].dtype]) for n, s in self._shapes.items()
        }
        if self._engine.get_tensor_dtype(name) not in NUMPY:
            return (1,)
        return tuple(np.shape(self._evaluate(ones)[name]))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory != 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == FakeStream.cuda_stream
        assert self._addresses.keys() == self._engine._tensors.keys()
        if script.run_error:
            self._engine._logger.log(ILogger.Severity.ERROR, script.run_error)
            return False
        gpu, extra_ns = script.gpu, script.profiler_ns if self.profiler else 0
        if gpu.captured is not None and gpu.refuses_capture:
            self._engine._logger.log(ILogger.Severity.ERROR, gpu.refuses_capture)
            return False
        for _ in self._engine._layers:
            gpu.kernel(script.layer_ns + extra_ns)
        if gpu.captured is not None:
            gpu.on_replay = self._compute
            return True
        self._compute()
        self._launched = True
        if self.profiler is not None and self.enqueue_emits_profile:
            self._report()
        return True

    def report_to_profiler(self) -> bool:
        if self.profiler is None or not self._launched or not script.reports:
            self._engine._logger.log(ILogger.Severity.ERROR, "there is nothing to report")
            return False
        self._report()
        return True

    def _report(self) -> None:
        assert self.profiler is not None
        for name, *_ in self._engine._layers:
            self.profiler.report_layer_time(name, (script.layer_ns + script.profiler_ns) * 1e-6)

    def _compute(self) -> None:
        engine = self._engine
        given = {n: self._memory(n, s, engine._inputs[n].dtype) for n, s in self._shapes.items()}
        for name, result in self._evaluate({n: a.copy() for n, a in given.items()}).items():
            array = np.asarray(result)
            self._memory(name, array.shape, engine._outputs[name].dtype)[...] = array

    def _evaluate(self, inputs: dict[str, Any]) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            found = self._evaluator.run(None, inputs)
        return dict(zip(self._engine._outputs, found, strict=True))

    def _memory(self, name: str, shape: Sequence[int], dtype: DataType) -> Any:
        kind = NUMPY[dtype]
        n_bytes = int(np.prod(shape)) * kind.itemsize
        raw = (ctypes.c_uint8 * n_bytes).from_address(self._addresses[name])
        return np.frombuffer(raw, dtype=kind).reshape(tuple(shape))


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format == LayerInformationFormat.JSON
        rows: list[Any] = []
        for name, kind, members in self._engine._layers:
            row: dict[str, Any] = {"Name": name, "LayerType": kind}
            if script.tells_metadata:
                row["Metadata"] = "\x1f".join(f"[ONNX Layer: {member}]" for member in members)
            rows.append(row if self._engine._is_detailed else name)
        return json.dumps({"Layers": rows, script.io_key: list(self._engine._tensors)})


def _fuse(nodes: Sequence[Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield layers (name, type, members) as TensorRT 10 fuses and names them.

    Behind a change of the input's layout: convolutions with what is elementwise behind them, and
    all between a global pool and the product that uses it as one compiled region.
    """
    names = [node.name for node in nodes]
    yield f"Reformatting CopyNode for Input Tensor 0 to {names[0]}", "Reformat", ()
    at = 0
    while at < len(nodes):
        end = at + 1
        if nodes[at].op_type == "Conv":
            while end < len(nodes) and nodes[end].op_type in ("Relu", "Clip", "HardSwish"):
                end += 1
            yield " + ".join(names[at:end]), "CaskConvolution", tuple(names[at:end])
        elif nodes[at].op_type == "GlobalAveragePool" and "Mul" in [n.op_type for n in nodes[at:]]:
            while nodes[end - 1].op_type != "Mul":
                end += 1
            region = f"{{ForeignNode[{names[at]}...{names[end - 1]}]}}"
            yield region, "Myelin", tuple(names[at:end])
        else:
            yield names[at], nodes[at].op_type, (names[at],)
        at = end
