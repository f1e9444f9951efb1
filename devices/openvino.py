"""OpenVINO on this host's CPU: the device ``openvino``.

Networks and blocks are fed as ONNX: from a ``.tflite`` some blocks end in a transposition of
their own. Users' ``.onnx`` and ``.tflite`` files are read as they are. One stream, tuned for
latency, float32 throughout: without the hint the plugin may choose bfloat16 by itself. With one
thread a call runs in the calling thread, so its run-queue wait is known.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.devices.binding import ModelInput, accepted_inputs, bind_inputs
from hwprof.devices.host import Array, HostExecutable, host_fingerprint, only_fp32
from hwprof.devices.model_source import Source, callable_refusal, onnx_source, source_bytes
from hwprof.errors import (
    CompileError,
    DeviceError,
    DeviceUnavailableError,
    MeasurementError,
    ModelError,
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
_MISSING = re.compile(r"No conversion rule found for operations: ([^\n]*)")
_PLACE = re.compile(r"(Exception from|Check '.*' failed at) \S+:\d+:")


class OpenvinoAdapter:
    """Opens OpenVINO's CPU plugin.

    Raises:
        DeviceUnavailableError: openvino is not installed, or has no plugin for this CPU.
    """

    def __init__(self, options: DeviceOptions) -> None:
        try:
            import openvino
        except ImportError as error:
            raise DeviceUnavailableError(
                f"the device 'openvino' needs openvino ({error}): run {INSTALL}"
            ) from error
        self._openvino = openvino
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
        if reason := callable_refusal(workload, "cpu-torch"):
            return Support(ok=False, reason=reason)
        if workload.path is not None and not workload.path.endswith(SUFFIXES):
            return Support(
                ok=False,
                reason=f"{Path(workload.path).name!r} is neither of the files that openvino "
                f"reads here: {', '.join(SUFFIXES)}",
            )
        if refusal := only_fp32(self._options, "openvino"):
            return refusal
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
        return OpenvinoExecutable(
            self._openvino,
            compiled,
            specs,
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
            shape=tuple(
                d.get_length() if d.is_static else f"d{i}" for i, d in enumerate(node.partial_shape)
            ),
            type_name=node.element_type.get_type_name(),
            dtype=_dtype(node.element_type),
        )
        for node in model.inputs
    ]


def _dtype(element_type: Any) -> str | None:
    try:
        dtype = element_type.to_dtype()
    except RuntimeError:  # types that numpy lacks
        return None
    return str(dtype.name) if dtype.kind in "fiub" else None


class OpenvinoExecutable(HostExecutable):
    """A compiled model with its inputs set in a request."""

    provider = f"{DEVICE} plugin, f32"

    def __init__(
        self,
        openvino: Any,
        compiled: Any,
        specs: Sequence[InputSpec],
        workload: Workload,
        *,
        load_s: float,
        artifact_bytes: int,
    ) -> None:
        super().__init__(load_s=load_s, artifact_bytes=artifact_bytes)
        self._openvino = openvino
        self._request = compiled.create_infer_request()
        self._n_outputs = len(compiled.outputs)
        self._inputs = accepted_inputs(specs, workload.seed, self._run)
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
            self._request.set_tensor(name, self._openvino.Tensor(np.ascontiguousarray(array)))

    def _run(self, inputs: Arrays) -> list[Array]:
        self._set(inputs)
        try:
            self._request.infer(share_outputs=True)
        except RuntimeError as error:
            raise MeasurementError(f"openvino cannot run the model: {_line(error)}") from error
        return [self._request.get_output_tensor(i).data.copy() for i in range(self._n_outputs)]
