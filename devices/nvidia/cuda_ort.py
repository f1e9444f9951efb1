"""ONNX Runtime on an NVIDIA GPU: the device ``cuda-ort``.

Inputs and outputs are bound on the GPU, on a stream that torch's events time; torch also brings
the CUDA libraries. The runtime replays a CUDA graph of its own where it can (every operator on the
GPU, fixed shapes) and else launches kernel by kernel. What it silently runs on the CPU is found in
its own profile, operator by operator, and is a failure: the number would be of two devices.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprof.devices.binding import bind_inputs, drawn_switches
from hwprof.devices.cpu import (
    QUIET,
    model_inputs,
    output_names,
    refusal,
    run_failure,
    safe_inputs,
)
from hwprof.devices.host import Array
from hwprof.devices.model_source import Source, callable_refusal, onnx_source, source_bytes
from hwprof.devices.nvidia.cuda_device import GpuAdapter, GpuExecutable
from hwprof.devices.nvidia.cuda_timing import GpuTimer
from hwprof.errors import (
    CompileError,
    DeviceError,
    DeviceUnavailableError,
    MeasurementError,
    ModelError,
)
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import Check, OpTrace, Support
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays

PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"
PRECISIONS = ("fp32", "tf32")
CONV_SEARCH = "EXHAUSTIVE"
"""The runtime's default: it tries every algorithm of cuDNN in the first calls."""
NO_WAIT = "disable_synchronize_execution_providers"
_CLOSED: Any = None
_NO_GRAPH = re.compile(r"cannot use the (CUDA Graph|graph capture) feature", re.IGNORECASE)
"""In what the runtime says where it cannot capture."""
_NOT_LOADED = "CUDA_PATH is set but CUDA was"
"""In what it says where the provider's libraries are missing and CUDA_PATH is set; else it only logs."""


class CudaOrtAdapter(GpuAdapter):
    """Opens ONNX Runtime with its CUDA provider.

    Args:
        options: the axes of every adapter.
        torch: stands in for torch in tests.
        nvml: stands in for pynvml in tests.
        ort: stands in for onnxruntime in tests.

    Raises:
        DeviceUnavailableError: the GPU, torch, or the CUDA build of onnxruntime is not there.
    """

    def __init__(
        self, options: DeviceOptions, torch: Any = None, nvml: Any = None, ort: Any = None
    ) -> None:
        # torch first: it loads the CUDA libraries that onnxruntime then finds.
        super().__init__("cuda-ort", options, torch, nvml)
        if ort is None:
            try:
                import onnxruntime
            except ImportError as error:
                raise DeviceUnavailableError(
                    f"the device 'cuda-ort' needs onnxruntime-gpu ({error}): run pip install "
                    "onnxruntime-gpu"
                ) from error
            ort = onnxruntime
        if PROVIDER not in ort.get_available_providers():
            raise DeviceUnavailableError(
                f"onnxruntime {ort.__version__} is built without CUDA: run pip uninstall -y "
                "onnxruntime && pip install onnxruntime-gpu"
            )
        self.ort = ort

    def fingerprint(self) -> Fingerprint:
        """Return the facts about GPU, host, runtime and options."""
        return self.gpu_fingerprint(
            runtime="onnxruntime",
            runtime_version=str(self.ort.__version__),
            settings={
                "provider": PROVIDER,
                "cudnn": self.torch.backends.cudnn.version(),
                "cudnn_conv_algo_search": CONV_SEARCH,
                "cuda_graph": "where allowed",
            },
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space and ``.onnx`` files, in fp32 or tf32."""
        if reason := callable_refusal(workload, "cuda"):
            return Support(ok=False, reason=reason)
        if workload.path is not None and not workload.path.endswith(".onnx"):
            name = Path(workload.path).name
            return Support(ok=False, reason=f"{name!r} is no .onnx file, which cuda-ort reads")
        if self.options.precision not in PRECISIONS:
            return Support(
                ok=False,
                reason=f"cuda-ort runs {' and '.join(PRECISIONS)}, not {self.options.precision!r}: "
                "leave --precision out and give a model file that holds the precision itself, or "
                "use --device cuda",
            )
        return Support(ok=True)

    def compile(self, workload: Workload, plan: MeasurePlan) -> CudaOrtExecutable:
        """Load the workload into a session on the GPU and bind its inputs and outputs there.

        Raises:
            ModelError: the file is damaged, was edited, or its inputs cannot be bound.
            CompileError: the runtime refuses it.
            DeviceUnavailableError: the runtime cannot load its CUDA provider.
            MemoryError: the GPU's memory does not hold it.
        """
        source = onnx_source(workload, self.options.batch)
        with self.room_for(workload):
            return CudaOrtExecutable(self, workload, plan, source)

    def open_session(
        self, source: Source, stream: Any, *, graph: bool, profile_prefix: str | None = None
    ) -> Any:
        """Return a session of a model on a stream.

        Raises:
            ModelError: the model is damaged.
            CompileError: the runtime refuses it; the text says so where it is only the graph.
            DeviceUnavailableError: the runtime cannot load its CUDA provider.
        """
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.options.threads
        options.log_severity_level = QUIET
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        provider = {
            "device_id": str(self.torch.cuda.current_device()),
            "user_compute_stream": str(stream.cuda_stream),
            "enable_cuda_graph": str(int(graph)),
            "use_tf32": str(int(self.options.precision == "tf32")),
            "cudnn_conv_algo_search": CONV_SEARCH,
            # By default an arena doubles: a group would take, and the result tell, up to twice
            # the memory that its workloads need.
            "arena_extend_strategy": "kSameAsRequested",
        }
        # Else a session that cannot be made on the GPU, or a run that fails on it, is done again on
        # the CPU, with a line on the standard output.
        placed = {"providers": [(PROVIDER, provider), CPU_PROVIDER], "enable_fallback": False}
        try:
            session = self.ort.InferenceSession(source, options, **placed)
        except Exception as error:  # the runtime's exceptions share no base class of their own
            if _NOT_LOADED in str(error):
                raise self._unloaded(str(error)) from error
            raise refusal(error, source) from error
        if session.get_providers()[0] != PROVIDER:
            raise self._unloaded(f"it took {session.get_providers()[0]}")
        return session

    def _unloaded(self, what: str) -> DeviceUnavailableError:
        return DeviceUnavailableError(
            f"onnxruntime {self.ort.__version__} cannot load its CUDA provider ({what}): it needs the "
            "CUDA and cuDNN major versions of its release; torch here brings CUDA "
            f"{self.torch.version.cuda}"
        )


class CudaOrtExecutable(GpuExecutable):
    """A session with inputs and outputs on the GPU."""

    provider = PROVIDER

    def __init__(
        self,
        adapter: CudaOrtAdapter,
        workload: Workload,
        plan: MeasurePlan,
        source: Source,
    ) -> None:
        start_s = time.perf_counter()
        self._ort, self._source, self._opener = adapter.ort, source, adapter
        cuda = adapter.torch.cuda
        free_bytes = cuda.mem_get_info()[0]
        self._stream = adapter.stream
        self._session: Any
        self._inputs: dict[str, Any] = {}
        self._results: list[Any] = []
        self._binding: Any = None
        refused = self._open()
        load_s = time.perf_counter() - start_s
        self._device_id = cuda.current_device()
        specs = bind_inputs(model_inputs(self._session, workload.inputs, source), workload.inputs)
        self._names = output_names(self._session)
        self._seeded = safe_inputs(specs, workload, plan)
        self._plain_outputs, self._on_cpu = self._probed()
        self._bind()
        self._run_options = self._ort.RunOptions()
        self._run_options.add_run_config_entry(NO_WAIT, "1")
        if refused is None:
            refused = self._capture()
        # The runtime's own graph is replayed by its run: there is nothing for torch to capture.
        # Releases up to the middle of 2026 wait for every replay, whatever the run's options say
        # (microsoft/onnxruntime pull request 28686).
        self.timer = GpuTimer(
            adapter.torch, self._launch, capture=False, replays=refused is None, stream=self._stream
        )
        super().__init__(
            adapter,
            plan,
            load_s=load_s,
            artifact_bytes=source_bytes(source),
            peak_memory_bytes=max(free_bytes - cuda.mem_get_info()[0], 0),
            warnings=(
                *drawn_switches(specs, self._seeded),
                *(() if refused is None else (f"no CUDA graph: {refused}",)),
            ),
        )

    def check(self, reference: Sequence[Array] | None = None) -> Check:
        """Run once; also name the operators that the runtime put on the CPU."""
        fallback_ops, outside_ops = self._on_cpu
        found = super().check(reference)
        return replace(found, fallback_ops=fallback_ops, outside_ops=outside_ops)

    def trace(self) -> OpTrace:
        """Refuse: the runtime's profiler times how the host launches operators on the GPU.

        Raises:
            DeviceError: always.
        """
        raise DeviceError(
            "ONNX Runtime's profiler times launches on the host, not the GPU's work: use "
            "--device cuda, or bench --prefixes"
        )

    def close(self) -> None:
        """Free the session and its buffers."""
        super().close()
        self._binding = self._session = _CLOSED
        self._inputs, self._results = {}, []

    def _open(self) -> str | None:
        """Open the session, with a CUDA graph if it may have one; else return why not."""
        try:
            self._session = self._opener.open_session(self._source, self._stream, graph=True)
        except CompileError as error:
            if not _NO_GRAPH.search(str(error)):
                raise
            self._session = self._opener.open_session(self._source, self._stream, graph=False)
            return str(error)
        return None

    def _launch(self, stream: object) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise run_failure(error) from error

    def _capture(self) -> str | None:
        """Run once, which captures the graph; where that fails go on without, and return why.

        An operator that waits for the GPU, say, cannot be captured, which shows no sooner.
        """
        try:
            self._launch(self._stream)
        except MeasurementError as error:
            self._session = self._opener.open_session(self._source, self._stream, graph=False)
            self._bind()
            return str(error)
        return None

    def _probed(self) -> tuple[list[Array], tuple[tuple[str, ...], tuple[str, ...]]]:
        """Run once in a session of its own, profiled: outputs, and what ran on the CPU.

        A session with a graph takes bound buffers only, of shapes that are not known before.

        Raises:
            MeasurementError: the runtime cannot run the model on these inputs.
            MemoryError: the GPU's memory does not hold it.
        """
        with tempfile.TemporaryDirectory() as folder:
            session = self._opener.open_session(
                self._source, self._stream, graph=False, profile_prefix=str(Path(folder) / "run")
            )
            try:
                outputs: list[Array] = session.run(self._names, dict(self._seeded))
            except Exception as error:  # the runtime's exceptions share no base class of their own
                raise run_failure(error) from error
            finally:
                profile = Path(session.end_profiling())
            return outputs, cpu_operators(json.loads(profile.read_text()))

    def _bind(self) -> None:
        """Put the inputs, and room for the outputs, on the GPU and bind them."""
        values = self._ort.OrtValue
        self._binding = self._session.io_binding()
        self._inputs = {
            name: values.ortvalue_from_numpy(array, "cuda", self._device_id)
            for name, array in self._seeded.items()
        }
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        self._results = [
            values.ortvalue_from_shape_and_type(
                output.shape, output.dtype.type, "cuda", self._device_id
            )
            for output in self._plain_outputs
        ]
        for name, result in zip(self._names, self._results, strict=True):
            self._binding.bind_ortvalue_output(name, result)

    def _read(self) -> list[Array]:
        return [value.numpy() for value in self._results]

    def _fill(self, inputs: Arrays) -> None:
        """Write values where the binding reads them."""
        for name, array in inputs.items():
            wanted = self._seeded[name]
            if array.shape != wanted.shape:
                raise ModelError(
                    f"input {name!r} was compiled for the shape {list(wanted.shape)}, not "
                    f"{list(array.shape)}"
                )
            self._inputs[name].update_inplace(array.astype(wanted.dtype, copy=False))
        self._opener.torch.cuda.synchronize()  # the copies run in another stream than calls do


def cpu_operators(events: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the operators of a profile that ran on the CPU, named ``name (type)``.

    Returns:
        Those that fell back, and those that only reckon with shapes (every output holds
        integers or truth values): the runtime keeps these on the host on purpose.
    """
    fallback: dict[str, None] = {}
    shapes: dict[str, None] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or arguments.get("provider") != CPU_PROVIDER:
            continue
        name = event["name"].removesuffix("_kernel_time")
        label = f"{name} ({arguments.get('op_name', '?')})"
        types = [kind for entry in arguments.get("output_type_shape", ()) for kind in entry]
        is_shape = bool(types) and all(kind.startswith(("int", "bool")) for kind in types)
        (shapes if is_shape else fallback)[label] = None
    return tuple(fallback), tuple(shapes)
