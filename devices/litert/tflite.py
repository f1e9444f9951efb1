"""LiteRT (TensorFlow Lite) on this host's CPU, with XNNPACK: the device ``tflite``.

Networks and blocks are written as ``.tflite`` with the layout the runtime computes in (NHWC);
inputs and outputs are turned (and quantised) at the adapter's border, outside of what is timed.
A call is one ``invoke``: its inputs stay in the interpreter's own memory. A user's ``.tflite`` is
run as it is.

XNNPACK takes over what it can in one or more pieces; operators outside of them run in the
runtime's built-in kernels and cost a passage of tensors each time. So the number of pieces
stands in the provider that :meth:`TfliteExecutable.check` names, and what is outside in its
``outside_ops``: both go into the telemetry of every result, the latter into its evidence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.devices.binding import accepted_inputs, bind_inputs, drawn_switches
from hwprof.devices.host import Array, HostExecutable, host_fingerprint
from hwprof.devices.litert.tflite_int8 import from_levels, quantized, quantizer_facts, to_levels
from hwprof.devices.litert.tflite_interpreter import (
    INSTALL,
    PROVIDER,
    delegation,
    load_runtime,
    model_inputs,
)
from hwprof.devices.litert.tflite_writer import nchw, nhwc, to_tflite
from hwprof.devices.model_source import Source, callable_refusal, model_path, source_bytes
from hwprof.errors import CompileError, DeviceError, MeasurementError, ModelError
from hwprof.graph import workload_graph
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan, Precision
from hwprof.protocols import Check, OpTrace, Support
from hwprof.workload import InputSpec, Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

PRECISIONS = ("fp32", "int8", "int8-dynamic")

_UNSUPPORTED = ("Didn't find op", "builtin_code out of range")
"""What the runtime says of operators that came after it."""


def refuses(workload: Workload, options: DeviceOptions) -> str:
    """Return why a workload is not taken, wherever the runtime is."""
    precision = options.precision
    if reason := callable_refusal(workload, "cpu-torch", "convert it to .tflite"):
        return reason
    if workload.path is not None and not workload.path.endswith(".tflite"):
        name = Path(workload.path).name
        hint = ": use --device cpu" if name.endswith(".onnx") else ""
        return f"{name!r} is no .tflite file, which tflite reads{hint}"
    if workload.path is not None and precision != "fp32":
        return (
            f"{workload.label!r} is run as it is, not as {precision!r}: leave --precision out, and "
            "give a .tflite file that holds the precision itself"
        )
    return _not_written(precision)


class TfliteAdapter:
    """Opens LiteRT with its default delegate, XNNPACK.

    Raises:
        DeviceUnavailableError: neither ai-edge-litert nor tflite-runtime is installed.
    """

    def __init__(self, options: DeviceOptions) -> None:
        self._runtime = load_runtime()
        self._options = options
        self._written: tuple[str, bytes] | None = None

    def fingerprint(self) -> Fingerprint:
        """Return the facts about CPU, runtime and options."""
        return host_fingerprint(
            "tflite",
            self._options,
            runtime=self._runtime.name,
            runtime_version=self._runtime.version,
            settings={
                "provider": PROVIDER,
                "layout": "NHWC",
                **quantizer_facts(self._options.precision),
            },
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space and ``.tflite`` files.

        The model is loaded for it, which takes milliseconds: only the runtime knows which
        operators it lacks and how many pieces its delegate makes of the rest.
        """
        if reason := self._refusal(workload):
            return Support(ok=False, reason=reason)
        try:
            interpreter, _ = self._loaded(self._model(workload), workload)
        except CompileError as error:
            return Support(ok=False, reason=str(error))
        except ModelError:
            return Support(ok=True)  # a damaged file is not the device's fault: compiling says so
        found = delegation(interpreter)
        return Support(ok=True, n_pieces=found.n_pieces, outside_ops=found.outside)

    def compile(self, workload: Workload, plan: MeasurePlan) -> TfliteExecutable:
        """Load the workload into an interpreter and set its inputs.

        Raises:
            ModelError: the file is damaged, was edited, or its inputs cannot be bound.
            CompileError: the runtime refuses it.
        """
        if reason := self._refusal(workload):
            raise CompileError(reason)
        model = self._model(workload)
        if isinstance(model, bytes):
            # The interpreter works in these bytes. What `supports` wrote was there before the
            # workload's memory was metered: a copy of its own counts.
            model = bytes(memoryview(model))
        start_s = time.perf_counter()
        interpreter, specs = self._loaded(model, workload)
        load_s = time.perf_counter() - start_s
        return TfliteExecutable(
            interpreter,
            specs,
            workload,
            load_s=load_s,
            artifact_bytes=source_bytes(model),
        )

    def close(self) -> None:
        """Nothing to free: interpreters belong to executables."""

    def _refusal(self, workload: Workload) -> str:
        """Return why the workload is not taken here, as far as that shows without loading it."""
        if reason := refuses(workload, self._options):
            return reason
        if workload.path is None and util.find_spec("ai_edge_litert") is None:
            return (
                "tflite-runtime runs .tflite files but cannot write them: run "
                f"{INSTALL}, or write the file elsewhere with hwprof export --format tflite"
            )
        return ""

    def _model(self, workload: Workload) -> Source:
        """Return the model: a path, or bytes written from the graph (once for both questions)."""
        if workload.path is not None:
            return model_path(workload)
        if self._written is None or self._written[0] != workload.key:
            self._written = workload.key, write_model(workload, self._options)
        return self._written[1]

    def _loaded(self, model: Source, workload: Workload) -> tuple[Any, list[InputSpec]]:
        """Return an interpreter with its memory allocated, and the model's inputs.

        Raises:
            ModelError: the model is damaged, or its inputs cannot be bound.
            CompileError: it has operators that the runtime lacks, or is refused otherwise.
        """
        key = "model_path" if isinstance(model, str) else "model_content"
        try:
            interpreter = self._runtime.interpreter(
                **{key: model}, num_threads=self._options.threads
            )
        except ValueError as error:
            raise self._load_error(error, workload) from error
        specs = bind_inputs(model_inputs(interpreter), workload.inputs)
        try:
            for node, spec in zip(interpreter.get_input_details(), specs, strict=True):
                if tuple(node["shape"]) != spec.shape:
                    interpreter.resize_tensor_input(node["index"], list(spec.shape), strict=True)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise CompileError(f"{self._runtime.name} refuses the model: {_line(error)}") from error
        return interpreter, specs

    def _load_error(self, error: ValueError, workload: Workload) -> ModelError | CompileError:
        """Tell a damaged file from one that is sound but not for this runtime."""
        text = _line(error)
        if any(words in text for words in _UNSUPPORTED):
            return CompileError(f"{self._runtime.name} {self._runtime.version} lacks: {text}")
        return ModelError(
            f"{workload.label!r} is no model that {self._runtime.name} can read ({text}); "
            "expected a .tflite file, convert it again"
        )


def write_model(workload: Workload, options: DeviceOptions) -> bytes:
    """Return the ``.tflite`` file of a network or block, in the precision that is asked for.

    Raises:
        ModelError: something in it has no equal in TFLite.
        MissingExtraError: what writes or quantizes it is not installed.
        CompileError: there is no such file in that precision, or the quantizer refuses it.
    """
    # Here too: for another machine the file is written without asking an adapter.
    if reason := _not_written(options.precision):
        raise CompileError(reason)
    graph = workload_graph(workload)
    model = to_tflite(graph, seed=workload.seed, batch=options.batch)
    if options.precision == "fp32":
        return model
    channels, *size = graph.inputs[0].shape
    return quantized(model, options.precision, (options.batch, *size, channels), workload.seed)


def _not_written(precision: Precision) -> str:
    """Return why networks and blocks are not written in a precision; empty where they are."""
    if precision in PRECISIONS:
        return ""
    return (
        f"tflite takes the precisions {', '.join(PRECISIONS)}, not {precision!r}: XNNPACK "
        "computes in half precision only where a file asks for it"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class TfliteExecutable(HostExecutable):
    """An interpreter with its inputs set."""

    def __init__(
        self,
        interpreter: Any,
        specs: Sequence[InputSpec],
        workload: Workload,
        *,
        load_s: float,
        artifact_bytes: int,
    ) -> None:
        super().__init__(load_s=load_s, artifact_bytes=artifact_bytes)
        self._interpreter = interpreter
        self._ours = workload.path is None
        self._delegation = delegation(interpreter)
        self.provider = self._delegation.provider
        if self._ours:
            specs = [replace(s, shape=_nchw_shape(s.shape), dtype="float32") for s in specs]
        self._inputs = accepted_inputs(specs, workload.seed, self._run)
        self.warnings = drawn_switches(specs, self._inputs)
        self._run(self._inputs)

    def call(self) -> object:
        """Run once on the inputs that are set."""
        return self._interpreter.invoke()

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Run once and return the outputs, those of networks and blocks as NCHW."""
        if inputs is None:
            return self._run(self._inputs)
        found = self._run(inputs)
        self._set(self._inputs)
        return found

    def check(self, reference: Sequence[Array] | None = None) -> Check:
        """Run once; say what is wrong with the outputs and what ran outside of XNNPACK."""
        return replace(super().check(reference), outside_ops=self._delegation.outside)

    def trace(self) -> OpTrace:
        """Refuse: LiteRT has no operator trace in Python.

        Raises:
            DeviceError: always.
        """
        raise DeviceError("LiteRT tells no operator's time in Python")

    def close(self) -> None:
        """Free the interpreter and its memory."""
        super().close()
        self._interpreter = None

    def _set(self, inputs: Arrays) -> None:
        for node in self._interpreter.get_input_details():
            array = np.asarray(inputs[node["name"]])
            if self._ours:
                array = nhwc(array)
                if node["dtype"] is np.int8:
                    array = to_levels(array, *node["quantization"])
            self._interpreter.set_tensor(node["index"], array)

    def _run(self, inputs: Arrays) -> list[Array]:
        self._set(inputs)
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise MeasurementError(f"LiteRT cannot run the model: {_line(error)}") from error
        return [self._output(node) for node in self._interpreter.get_output_details()]

    def _output(self, node: Mapping[str, Any]) -> Array:
        array: Array = self._interpreter.get_tensor(node["index"])
        if not self._ours:
            return array
        if array.dtype == np.int8:
            array = from_levels(array, *node["quantization"])
        return nchw(array)


def _nchw_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1])
