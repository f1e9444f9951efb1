"""OpenVINO on this host's CPU: the device ``openvino``.

Networks and blocks are fed as ONNX: from a ``.tflite`` some blocks end in a transposition of
their own. Users' ``.onnx`` and ``.tflite`` files are read as they are. One stream, tuned for
latency, float32 throughout: without the hint the plugin may choose bfloat16 by itself. Only where
a user's file holds weights in eight bits or fewer it multiplies them in eight bits, as it does
unless told otherwise. With one thread a call runs in the calling thread, so its run-queue wait is
known.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.devices.binding import (
    ModelInput,
    accepted_inputs,
    bind_inputs,
    drawn_switches,
)
from hwprof.devices.host import (
    Array,
    HostExecutable,
    host_fingerprint,
    only_fp32,
    strict_float32,
)
from hwprof.devices.model_source import Source, callable_refusal, onnx_source, source_bytes
from hwprof.errors import (
    CompileError,
    DeviceError,
    DeviceUnavailableError,
    MeasurementError,
    ModelError,
    PlanError,
)
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import OpTrace, Support
from hwprof.workload import InputSpec, Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

DEVICE = "CPU"
INSTALL = "pip install 'hwprof[openvino]'"
SUFFIXES = (".onnx", ".tflite")
SETTINGS: Mapping[str, str | int] = {
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",
}
_DTYPES: Mapping[str, str] = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u64": "uint64",
    "u32": "uint32",
    "u16": "uint16",
    "u8": "uint8",
    "boolean": "bool",
}
"""Not all that OpenVINO itself calls equal: it takes numpy's float16 for its bfloat16."""
_PASSING_ON = frozenset({"Convert", "Reshape", "Squeeze", "Unsqueeze"})
_MISSING = re.compile(r"No conversion rule found for operations: ([^\n]*)")
_UNCONVERTED = "OpConversionFailure"
"""What it says of operators that it has, but not in the way that a sound file uses them."""
_PLACE = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:")


def refuses(workload: Workload, options: DeviceOptions) -> str:
    """Return why a workload is not taken, as far as that shows without reading it."""
    if reason := callable_refusal(workload, "cpu-torch"):
        return reason
    if workload.path is not None and not workload.path.endswith(SUFFIXES):
        return (
            f"{Path(workload.path).name!r} is neither of the files that openvino reads here: "
            f"{', '.join(SUFFIXES)}"
        )
    return only_fp32(options, "openvino")


class OpenvinoAdapter:
    """Opens OpenVINO's CPU plugin.

    Raises:
        DeviceUnavailableError: openvino is not installed, or has no plugin for this CPU.
    """

    def __init__(self, options: DeviceOptions) -> None:
        # Its import reports to Intel over the network, from a process beside what is timed; from
        # Python 3.14 on that process first runs the user's script again. Without the reporter's
        # package it reports nothing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
        except ImportError as error:
            raise DeviceUnavailableError(
                f"the device 'openvino' needs openvino ({error}): run {INSTALL}"
            ) from error
        self._openvino = openvino
        self.warnings = strict_float32()
        self._core = openvino.Core()
        if DEVICE not in self._core.available_devices:
            raise DeviceUnavailableError(
                f"openvino {openvino.__version__} has no CPU plugin here, only "
                f"{self._core.available_devices}: use --device cpu"
            )
        self._options = options

    def fingerprint(self) -> Fingerprint:
        """Return the facts about CPU, runtime and options."""
        return host_fingerprint(
            "openvino",
            self._options,
            runtime="openvino",
            runtime_version=str(self._openvino.__version__),
            settings={"provider": DEVICE, "streams": 1, "hint": "LATENCY"},
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space, ``.onnx`` and ``.tflite`` files, in fp32."""
        if reason := refuses(workload, self._options):
            return Support(ok=False, reason=reason)
        if workload.path is not None:
            try:
                self._read(workload.path, workload)
            except CompileError as error:
                return Support(ok=False, reason=str(error))
            except ModelError:  # a damaged file is not the device's fault: compiling says so
                pass
        return Support(ok=True)

    def compile(self, workload: Workload, plan: MeasurePlan) -> OpenvinoExecutable:
        """Compile the workload and set its inputs.

        Raises:
            ModelError: the file is damaged, was edited, or its inputs cannot be bound.
            CompileError: the runtime refuses it.
            PlanError: it takes fewer threads than are asked for.
        """
        source = onnx_source(workload, self._options.batch)
        start_s = time.perf_counter()
        model = self._read(source, workload)
        specs = bind_inputs(_model_inputs(model), workload.inputs)
        settings = {**SETTINGS, "INFERENCE_NUM_THREADS": self._options.threads}
        try:
            model.reshape({spec.name: list(spec.shape) for spec in specs})
            compiled = self._core.compile_model(model, DEVICE, settings)
        except RuntimeError as error:
            raise CompileError(f"openvino refuses the model: {_line(error)}") from error
        load_s = time.perf_counter() - start_s
        used = compiled.get_property("INFERENCE_NUM_THREADS")
        if used != self._options.threads:
            raise PlanError(
                f"openvino takes {used} threads here, not the {self._options.threads} asked for "
                f"(tuned for latency it keeps to one a core): use --threads {used}"
            )
        return OpenvinoExecutable(
            self._openvino,
            compiled,
            specs,
            _table_rows(model),
            workload,
            load_s=load_s,
            artifact_bytes=source_bytes(source),
        )

    def close(self) -> None:
        """Nothing to free: compiled models belong to executables."""

    def _read(self, source: Source, workload: Workload) -> Any:
        """Read a model.

        Raises:
            ModelError: it is damaged.
            CompileError: it has operators that the runtime lacks.
        """
        try:
            return self._core.read_model(source)
        except RuntimeError as error:
            if missing := _MISSING.search(str(error)):
                raise CompileError(
                    f"openvino {self._openvino.__version__} lacks the operators {missing[1]}"
                ) from error
            if _UNCONVERTED in str(error):
                raise CompileError(
                    f"openvino {self._openvino.__version__} cannot convert the model: {_line(error)}"
                ) from error
            raise ModelError(
                f"{workload.label!r} is no model that openvino can read ({_line(error)}); "
                "expected an .onnx or .tflite file, export it again"
            ) from error


def _line(error: Exception) -> str:
    """Return an exception's text in one line, without the places in OpenVINO's sources."""
    return " ".join(_PLACE.sub("", str(error)).split())


def _model_inputs(model: Any) -> list[ModelInput]:
    """Return what a model says about its inputs, open dimensions included."""
    return [
        ModelInput(
            name=node.get_any_name(),
            shape=None
            if node.partial_shape.rank.is_dynamic
            else tuple(
                d.get_length() if d.is_static else f"d{i}" for i, d in enumerate(node.partial_shape)
            ),
            type_name=node.element_type.get_type_name(),
            dtype=_DTYPES.get(node.element_type.get_type_name()),
        )
        for node in model.inputs
    ]


def _table_rows(model: Any) -> dict[str, int]:
    """Return by input how many rows the smallest table has that its values are indices of.

    Behind the last row OpenVINO reads zeros, without an error.
    """
    rows: dict[str, int] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Gather":
            continue
        table = node.input_value(0)
        indices, axis = (node.input_value(i).get_node() for i in (1, 2))
        while indices.get_type_name() in _PASSING_ON:
            indices = indices.input_value(0).get_node()
        if indices.get_type_name() == "Parameter" and axis.get_type_name() == "Constant":
            name, size = indices.output(0).get_any_name(), table.partial_shape[int(axis.data)]
            if size.is_static:
                rows[name] = min(size.get_length(), rows.get(name, size.get_length()))
    return rows


def _values(tensor: Any) -> Array:
    """Return a copy of a tensor's values, bfloat16 as float32."""
    values: Array = tensor.data
    if tensor.element_type.get_type_name() == "bf16":
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.copy()


class OpenvinoExecutable(HostExecutable):
    """A compiled model with its inputs set in a request."""

    provider = f"{DEVICE} plugin, f32"

    def __init__(
        self,
        openvino: Any,
        compiled: Any,
        specs: Sequence[InputSpec],
        table_rows: Mapping[str, int],
        workload: Workload,
        *,
        load_s: float,
        artifact_bytes: int,
    ) -> None:
        super().__init__(load_s=load_s, artifact_bytes=artifact_bytes)
        self._openvino = openvino
        self._request = compiled.create_infer_request()
        self._n_outputs = len(compiled.outputs)
        self._table_rows = table_rows
        self._inputs = accepted_inputs(specs, workload.seed, self._run)
        self.warnings = drawn_switches(specs, self._inputs)
        self._run(self._inputs)

    def call(self) -> object:
        """Run once on the inputs that are set; outputs stay where they are."""
        return self._request.infer(share_outputs=True)

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Run once and return the outputs."""
        if inputs is None:
            return self._run(self._inputs)
        found = self._run(inputs)
        self._set(self._inputs)
        return found

    def trace(self) -> OpTrace:
        """Refuse: OpenVINO tells no operator's time by call.

        Its counters are averages over all calls since loading, the first one included, in
        whole microseconds: neither a disturbed call nor the warm-up can be taken out of them.

        Raises:
            DeviceError: always.
        """
        raise DeviceError(
            "OpenVINO keeps only averages over all calls since loading, in whole microseconds"
        )

    def close(self) -> None:
        """Free the request and with it the compiled model."""
        super().close()
        self._request = None

    def _set(self, inputs: Arrays) -> None:
        for name, array in inputs.items():
            # A tensor of its own: the request would else keep pointing into the caller's array.
            self._request.set_tensor(name, self._openvino.Tensor(np.asarray(array, order="C")))

    def _run(self, inputs: Arrays) -> list[Array]:
        for name, n_rows in self._table_rows.items():
            if (largest := int(inputs[name].max(initial=0))) >= n_rows:
                raise MeasurementError(
                    f"input {name!r} holds {largest}, an index into a table of {n_rows} rows"
                )
        self._set(inputs)
        try:
            self._request.infer(share_outputs=True)
        except RuntimeError as error:
            raise MeasurementError(f"openvino cannot run the model: {_line(error)}") from error
        return [_values(self._request.get_output_tensor(i)) for i in range(self._n_outputs)]
