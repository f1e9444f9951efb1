"""How a scripted TensorRT parses and builds (:mod:`tests.devices.fake_tensorrt`)."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError

from tests.devices.fake_cuda import FakeGpu


@dataclass
class Script:
    """How a run goes, and what was asked."""

    gpu: FakeGpu = field(default_factory=FakeGpu)
    version: str = "10.16.1.11"
    starts: bool = True
    lacks: frozenset[str] = frozenset()
    build_error: str | None = None
    load_error: str | None = None
    context_error: str | None = None
    run_error: str | None = None
    sized_by_values: frozenset[str] = frozenset()
    tells_metadata: bool = True
    reports: bool = True
    layer_ns: int = 20_000
    profiler_ns: int = 1_500
    """What an event between layers adds to each."""
    io_key: str = "Bindings"
    """TensorRT 11 says ``I/O Tensors``."""
    configs: list[Any] = field(default_factory=list)
    n_timings_reused: int = 0


script = Script()


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.IntEnum):
    DEVICE, HOST = range(2)


class ErrorCode(enum.IntEnum):
    SUCCESS, INTERNAL_ERROR, MEM_ALLOC_FAILED, MODEL_DESERIALIZE_FAILED = range(4)
    UNSUPPORTED_NODE = 8


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class LayerInformationFormat(enum.IntEnum):
    ONELINE, JSON = range(2)


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.BOOL: DataType.BOOL,
    onnx.TensorProto.FLOAT8E4M3FN: DataType.FP8,
}
NUMPY = {
    DataType.FLOAT: np.dtype(np.float32),
    DataType.HALF: np.dtype(np.float16),
    DataType.BF16: np.dtype(ml_dtypes.bfloat16),
    DataType.INT64: np.dtype(np.int64),
    DataType.INT32: np.dtype(np.int32),
    DataType.BOOL: np.dtype(np.bool_),
}


class ITensor:
    def __init__(self, value: Any) -> None:
        self._dims = value.type.tensor_type.shape.dim
        self.name, self.dtype = value.name, TYPES[value.type.tensor_type.elem_type]
        self.shape = tuple(-1 if d.dim_param else d.dim_value for d in self._dims)

    def get_dimension_name(self, axis: int) -> str:
        return str(self._dims[axis].dim_param)


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self._model: Any = None

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index])


class ParserError:
    def __init__(self, code: ErrorCode, desc: str, node: Any = None) -> None:
        self._code, self._desc, self._node = code, desc, node

    def code(self) -> ErrorCode:
        return self._code

    def desc(self) -> str:
        return self._desc

    def node_operator(self) -> str:
        return "" if self._node is None else str(self._node.op_type)

    def node_name(self) -> str:
        return "" if self._node is None else str(self._node.name)


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        with open(model, "rb") as file:
            return self.parse(file.read())

    def parse(self, model: bytes) -> bool:
        try:
            found = onnx.load_from_string(model)
        except DecodeError:
            self._fail(ErrorCode.MODEL_DESERIALIZE_FAILED, "Failed to parse the ONNX model.")
            return False
        for node in found.graph.node:
            if node.domain not in ("", "ai.onnx") or node.op_type in script.lacks:
                self._fail(ErrorCode.UNSUPPORTED_NODE, "no importer registered for op", node)
        self._network._model = found
        return not self._errors

    def _fail(self, code: ErrorCode, desc: str, node: Any = None) -> None:
        self._errors.append(ParserError(code, desc, node))
        self._logger.log(ILogger.Severity.ERROR, f"onnxParser: {desc}")


class ITimingCache:
    def __init__(self, gpu: str, n_builds: int) -> None:
        self._gpu, self._n_builds = gpu, n_builds

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps(["timings", self._gpu, self._n_builds]).encode())


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, Sequence[int]] = {}

    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None:
        assert min == opt == max
        self._shapes[input] = opt


class IBuilderConfig:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags = {BuilderFlag.TF32}
        self._pools: dict[MemoryPoolType, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._timings: ITimingCache | None = None
        self.builder_optimization_level = 3
        self.avg_timing_iterations = 1
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self._pools[pool]

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if serialized_timing_cache == b"":
            return ITimingCache("scripted", 0)
        try:
            mark, gpu, n_builds = json.loads(serialized_timing_cache)
            assert mark == "timings"
        except (ValueError, AssertionError):
            self._logger.log(ILogger.Severity.ERROR, "the timing cache is corrupted")
            return None
        return ITimingCache(gpu, n_builds)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._gpu != "scripted" and not ignore_mismatch:
            self._logger.log(ILogger.Severity.ERROR, "the timing cache is of another device")
            return False
        self._timings = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timings


class Builder:
    def __init__(self, logger: ILogger) -> None:
        start(logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        script.configs.append(config)
        error = script.build_error
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        shaped = {name for profile in config._profiles for name in profile._shapes}
        if any(-1 in tensor.shape and tensor.name not in shaped for tensor in inputs):
            error = "Network has dynamic inputs, but no optimization profile has been defined."
        if error:
            self._logger.log(ILogger.Severity.WARNING, "a warning that is no reason")
            self._logger.log(ILogger.Severity.ERROR, error)
            return None
        if config._timings is not None:
            script.n_timings_reused += config._timings._n_builds > 0
            config._timings._n_builds += 1
        header = {"version": script.version, "detailed": int(config.profiling_verbosity)}
        model = network._model.SerializeToString()
        return IHostMemory(json.dumps(header).encode() + b"\n" + model)


def start(logger: ILogger) -> None:
    if not script.starts:
        logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")
