"""An engine on the GPU: its context, its buffers, the timer of its calls, the times of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.devices.binding import bind_inputs, drawn_switches
from hwprof.devices.cpu import safe_inputs
from hwprof.devices.host import Array
from hwprof.devices.model_source import Source
from hwprof.devices.nvidia.cuda_device import GpuExecutable
from hwprof.devices.nvidia.cuda_timing import GpuTimer
from hwprof.devices.nvidia.tensorrt_layers import (
    NAMELESS,
    collecting_profiler,
    engine_layers,
    layer_times,
    middle_half,
)
from hwprof.devices.nvidia.tensorrt_types import engine_inputs, torch_name
from hwprof.devices.torch_module import array_of
from hwprof.errors import CompileError, MeasurementError, ModelError
from hwprof.measure.records import MeasurePlan
from hwprof.protocols import OpTrace
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.devices.nvidia.tensorrt import TensorrtAdapter
    from hwprof.protocols import Arrays

TRACE_ROUNDS = 30


class TensorrtExecutable(GpuExecutable):
    """An engine with a context, its buffers on the device, and the timer of its calls."""

    def __init__(
        self, adapter: TensorrtAdapter, source: Source, workload: Workload, plan: MeasurePlan
    ) -> None:
        self._trt, self._torch, self._place = adapter.trt, adapter.torch, adapter.place
        self._maker, self._source, self._label = adapter.maker, source, workload.label
        built = self._maker.make(source, workload.inputs, workload.label)
        self._engine = built.engine
        specs = bind_inputs(engine_inputs(self._trt, self._engine), workload.inputs)
        self._shapes = {spec.name: spec.shape for spec in specs}
        self._buffers: dict[str, Any] = {}
        self._context = self._new_context()
        self._seeded = safe_inputs(specs, workload, plan)
        self._fill(self._seeded)
        self.timer = GpuTimer(self._torch, self._launch)
        warnings = [*built.warnings, *drawn_switches(specs, self._seeded)]
        if self.timer.refusal is not None:
            warnings.append(
                f"no CUDA graph ({self.timer.refusal}): enqueued call by call, host's time included"
            )
        super().__init__(
            adapter,
            plan,
            load_s=built.build_s + built.load_s,
            artifact_bytes=built.n_bytes,
            peak_memory_bytes=self._memory_bytes(built.n_bytes),
            warnings=tuple(warnings),
        )

    @property
    def provider(self) -> str:  # type: ignore[override]
        """What really runs: an engine has no operators that could run elsewhere."""
        return "TensorRT" if self.timer.is_graph else "TensorRT, without a CUDA graph"

    def trace(self) -> OpTrace:
        """Time the layers with TensorRT's profiler, in a context of its own.

        Profiled calls, which are enqueued one by one, take turns with plain ones. The events that
        the profiler puts between layers keep them from overlapping; that is not taken off, and
        shows as the slowdown.

        Raises:
            MeasurementError: the profiler reports no layers, or TensorRT does not run it.
        """
        context = self._new_context()
        profiler = collecting_profiler(self._trt)
        context.profiler = profiler
        context.enqueue_emits_profile = False  # reported after the call, not while it is enqueued
        traced = GpuTimer(self._torch, lambda stream: self._enqueue(context, stream), capture=False)
        plain_s, traced_s = [], []
        calls: list[Mapping[str, float]] = []
        for _ in range(TRACE_ROUNDS):
            plain_s += self.timer.gpu_times_s(1)
            traced_s += traced.gpu_times_s(1)
            profiler.take_call()
            if not context.report_to_profiler():
                raise MeasurementError(
                    f"tensorrt reports no layer times of {self._label!r}: "
                    f"{self._maker.take_errors()}"
                )
            calls.append(profiler.take_call())
        traced.close()
        ops = layer_times(calls, engine_layers(self._information(context), self._written()))
        whole_s = np.array(traced_s)
        return OpTrace.adding_up(
            ops,
            traced_s=float(whole_s[middle_half(whole_s)].mean()),
            untraced_s=float(np.median(plain_s)),
        )

    def close(self) -> None:
        """Free context, engine and buffers."""
        super().close()
        self._context = self._engine = None
        self._buffers = {}

    def _new_context(self) -> Any:
        """Return a context on the buffers, which the first one makes.

        Raises:
            CompileError: there is none, or an output's size depends on values.
            MemoryError: it does not fit.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise self._maker.refusal(f"makes no context for {self._label!r}")
        # Ranges for a tracing tool would cost the host time in every call.
        context.nvtx_verbosity = self._trt.ProfilingVerbosity.NONE
        for name, shape in self._shapes.items():
            if not context.set_input_shape(name, shape):
                raise self._maker.refusal(f"does not take the shape {list(shape)} of {name!r}")
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            if name not in self._buffers:
                self._buffers[name] = self._buffer(context, name)
            if not context.set_tensor_address(name, self._buffers[name].data_ptr()):
                raise self._maker.refusal(f"does not take the memory of {name!r}")
        return context

    def _buffer(self, context: Any, name: str) -> Any:
        shape = tuple(context.get_tensor_shape(name))
        trt_dtype = self._engine.get_tensor_dtype(name)
        if any(size < 0 for size in shape):
            raise CompileError(
                f"the size of the output {name!r} of {self._label!r} depends on values, not on "
                "shapes alone, which hwprof does not run in TensorRT: use --device cuda-ort"
            )
        if (type_name := torch_name(self._trt, trt_dtype)) is None:
            raise CompileError(
                f"{name!r} of {self._label!r} is of type {trt_dtype.name}, which torch cannot hold: "
                "cast it inside the model"
            )
        is_host = self._engine.get_tensor_location(name) == self._trt.TensorLocation.HOST
        place = "cpu" if is_host else self._place
        return self._torch.zeros(shape, dtype=getattr(self._torch, type_name), device=place)

    def _launch(self, stream: Any) -> None:
        self._enqueue(self._context, stream)

    def _enqueue(self, context: Any, stream: Any) -> None:
        if not context.execute_async_v3(stream.cuda_stream):
            raise self._maker.refusal(f"cannot run {self._label!r}", MeasurementError)

    def _fill(self, inputs: Arrays) -> None:
        """Write values, rounded to the engine's types, where it reads its inputs."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            raise ModelError(
                f"{self._label!r} was built for inputs of the shapes {self._shapes}, not {shapes}"
            )
        for name, array in inputs.items():
            self._buffers[name].copy_(self._torch.from_numpy(np.asarray(array, order="C")))
        self._torch.cuda.synchronize()

    def _read(self) -> list[Array]:
        """Return the outputs, in the engine's order."""
        return [array_of(t) for name, t in self._buffers.items() if name not in self._shapes]

    def _memory_bytes(self, engine_bytes: int) -> int:
        """Return what the workload takes on the GPU, by TensorRT's own figures.

        Weights are the bulk of an engine; beside them lie what a context works in, inputs and
        outputs. What CUDA itself takes for the process is not in it.
        """
        buffers = sum(t.numel() * t.element_size() for t in self._buffers.values())
        return int(engine_bytes + self._engine.device_memory_size_v2 + buffers)

    def _information(self, context: Any) -> str:
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = context
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def _written(self) -> list[str]:
        """Return the names of the model's operators, in order."""
        import onnx

        source = self._source
        if isinstance(source, bytes):
            model = onnx.load_from_string(source)
        else:
            model = onnx.load(source, load_external_data=False)
        # What has no name is called so by TensorRT's parser.
        return [node.name or f"{NAMELESS}{node.output[0]}" for node in model.graph.node]
