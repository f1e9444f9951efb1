"""TensorRT on an NVIDIA GPU: the device ``tensorrt``.

Networks and blocks become strongly typed engines from ONNX; a user's ``.onnx`` is built as it is,
quantised models with explicit quantize and dequantize operators included. Calls are replays of a
CUDA graph of ``execute_async_v3`` where one can be captured, timed as every GPU device is
(:mod:`hwprof.devices.nvidia.cuda_timing`); torch holds the memory of inputs and outputs, and the stream.

Written to the documented interface of TensorRT 10 and 11, whose names are checked against the
published bindings of both, and tested on a module that plays that interface: it has not yet run
on TensorRT itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.devices.model_source import callable_refusal, onnx_source
from hwprof.devices.nvidia.cuda_device import GpuAdapter
from hwprof.devices.nvidia.tensorrt_cache import DiskCache, default_folder
from hwprof.devices.nvidia.tensorrt_engine import EngineMaker, settings_from
from hwprof.devices.nvidia.tensorrt_run import TensorrtExecutable
from hwprof.errors import CompileError, DeviceUnavailableError, ModelError
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import Support
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.graph.onnx_writer import FloatType

INSTALL = "pip install 'hwprof[tensorrt]'"
PLACE = "cuda"
FLOAT_TYPES: Mapping[str, FloatType] = {
    "fp32": "fp32",
    "tf32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
}
"""Precisions, and the type of the tensors in the ONNX model of a network or block."""
OWN_TYPES = ("fp32", "tf32")
"""What may be asked of a user's file, whose own types hold: only how float32 is multiplied."""


class TensorrtAdapter(GpuAdapter):
    """Opens TensorRT on the current GPU.

    Args:
        options: the axes of every adapter.
        torch: stands in for torch in tests.
        nvml: stands in for pynvml in tests.
        place: where tensors go; tests compute on the CPU.

    Raises:
        DeviceUnavailableError: tensorrt, torch or the GPU is not there.
        PlanError: an environment variable of its settings holds no number.
    """

    device = "tensorrt"

    def __init__(
        self, options: DeviceOptions, torch: Any = None, nvml: Any = None, place: str = PLACE
    ) -> None:
        try:
            import tensorrt
        except ImportError as error:
            raise DeviceUnavailableError(
                f"the device 'tensorrt' needs tensorrt ({error}): run {INSTALL}"
            ) from error
        super().__init__(self.device, options, torch, nvml)
        self.trt: Any = tensorrt
        self.place = place
        self._settings = settings_from(os.environ, is_tf32=options.precision == "tf32")
        cache = DiskCache(default_folder(os.environ))
        self.maker = EngineMaker(tensorrt, self._gpu_facts(), self._settings, cache)

    def fingerprint(self) -> Fingerprint:
        """Return the facts about GPU, host, runtime, builder settings and options."""
        return self.gpu_fingerprint(
            runtime="tensorrt",
            runtime_version=str(self.trt.__version__),
            settings={"provider": "TensorRT", "typing": "strong", **asdict(self._settings)},
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space in any float type, and ``.onnx`` files.

        A file is parsed for it: only TensorRT's parser knows which operators it lacks.
        """
        if refusal := self._refusal(workload):
            return Support(ok=False, reason=refusal)
        if workload.path is not None:
            try:
                self.maker.parse(workload.path, workload.label)
            except CompileError as error:
                return Support(ok=False, reason=str(error))
            except ModelError:  # a damaged file is not the device's fault: compiling says so
                pass
        return Support(ok=True)

    def compile(self, workload: Workload, plan: MeasurePlan) -> TensorrtExecutable:
        """Build the engine, or take the one that is kept, and run it once on seeded inputs.

        ``load_s`` is the time that building took, whenever that was, and the time to load it now.

        Raises:
            ModelError: the file is damaged, was edited, or its inputs cannot be bound.
            CompileError: TensorRT refuses it, in its own words.
            MemoryError: the GPU's memory does not hold it.
        """
        if refusal := self._refusal(workload):
            raise CompileError(refusal)
        with self.room_for(workload):
            source = onnx_source(workload, self.options.batch, FLOAT_TYPES[self.options.precision])
            return TensorrtExecutable(self, source, workload, plan)

    def _refusal(self, workload: Workload) -> str:
        """Return why the workload is not taken, as far as that shows without parsing it."""
        precision = self.options.precision
        if reason := callable_refusal(workload, "cuda"):
            return reason
        if workload.path is not None:
            name = Path(workload.path).name
            if not name.endswith(".onnx"):
                return f"{name!r} is no .onnx file, which tensorrt reads: export it to .onnx"
            if precision not in OWN_TYPES:
                return (
                    f"{name!r} is built with the types it holds, not as {precision!r}: leave "
                    "--precision out, and give a file that holds the precision itself (int8 by "
                    "explicit quantize and dequantize operators)"
                )
        elif precision not in FLOAT_TYPES:
            return (
                f"tensorrt takes {', '.join(FLOAT_TYPES)}, not {precision!r}: it computes in 8 "
                "bits where the ONNX model holds quantize and dequantize operators, which hwprof "
                "does not write; give such an .onnx file, without --precision"
            )
        return ""

    def _gpu_facts(self) -> dict[str, str]:
        """Return what an engine is tied to: it runs on no other GPU, and is tuned for the driver."""
        found = self._properties
        driver = self.sensors.stable_facts()["driver"] if self.sensors is not None else None
        return {
            "gpu": str(found.name),
            "compute_capability": f"{found.major}.{found.minor}",
            "driver": str(driver),
        }
