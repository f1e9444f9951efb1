"""PyTorch on an NVIDIA GPU: the devices ``cuda``, ``cuda-eager`` and ``cuda-compiled``.

They differ in how a call reaches the GPU, so they are devices of their own, with keys of their own:
``cuda`` replays a CUDA graph of the eager module, ``cuda-eager`` launches kernel by kernel, as
users' scripts do (a small batch then waits for the host), ``cuda-compiled`` replays a graph of what
``torch.compile`` made. Plain contiguous (NCHW) tensors; batch norms are not folded (except by the
compiler); cuDNN chooses kernels by its heuristics, not by trying, so that processes agree.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hwprof.devices.binding import drawn_switches
from hwprof.devices.host import WIDE_INTEGERS, Array
from hwprof.devices.nvidia.cuda_device import GpuAdapter, GpuExecutable
from hwprof.devices.nvidia.cuda_memory import is_memory_full, one_line
from hwprof.devices.nvidia.cuda_timing import GpuTimer
from hwprof.devices.nvidia.cuda_trace import trace_blocks, trace_operators
from hwprof.devices.torch_module import (
    arrays_of,
    inputs_for,
    leaves,
    module_of,
    no_model_files,
    not_taken,
    set_fp32_precision,
    tensors_of,
    weight_bytes,
)
from hwprof.errors import CompileError, ModelError
from hwprof.graph import Graph
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.protocols import OpTrace, Support
from hwprof.workload import Workload

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hwprof.protocols import Arrays

Mode = Literal["graph", "eager", "compiled"]
DTYPES: Mapping[str, str] = {
    "fp32": "float32",
    "tf32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
}
"""Precisions, and the type that weights and inputs have in them."""
PLACE = "cuda"
MOST_COMPILED = 1000
"""Far more than a process holds; what is beyond it is a failure."""
_ASSERTED = "device-side assert"
"""In what CUDA says where a kernel has found a value out of range."""
_CLOSED: Any = None


class CudaAdapter(GpuAdapter):
    """Opens torch on the current GPU; calls are replays of a CUDA graph.

    Args:
        options: the axes of every adapter.
        torch: stands in for torch in tests.
        nvml: stands in for pynvml in tests.
        place: where tensors go; tests compute on the CPU.

    Raises:
        DeviceUnavailableError: torch or the GPU is not there.
    """

    device: ClassVar[str] = "cuda"
    mode: ClassVar[Mode] = "graph"

    def __init__(
        self, options: DeviceOptions, torch: Any = None, nvml: Any = None, place: str = PLACE
    ) -> None:
        super().__init__(self.device, options, torch, nvml)
        self.place = place
        self.settle()

    def settle(self) -> None:
        """Set what the options decide, whatever a user's module has set on its import."""
        is_tf32 = self.options.precision == "tf32"
        backends = self.torch.backends
        with warnings.catch_warnings():
            # torch 2.9 advises another name for it, which torch 2.6 lacks.
            warnings.filterwarnings("ignore", message="Please use the new API settings")
            backends.cuda.matmul.allow_tf32 = is_tf32
            backends.cudnn.allow_tf32 = is_tf32
        precision = "tf32" if is_tf32 else "ieee"
        set_fp32_precision(backends.cuda, ("matmul",), precision)
        set_fp32_precision(backends.cudnn, ("conv", "rnn"), precision)
        backends.cudnn.benchmark = False
        self.torch.set_num_threads(self.options.threads)

    def fingerprint(self) -> Fingerprint:
        """Return the facts about GPU, host, runtime and options."""
        return self.gpu_fingerprint(
            runtime="torch",
            runtime_version=str(self.torch.__version__),
            settings={
                "provider": f"torch {self.mode} CUDA",
                "mode": self.mode,
                "layout": "NCHW",
                "cudnn": self.torch.backends.cudnn.version(),
                "cudnn_benchmark": False,
            },
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space and torch callables, in any float type."""
        precision = self.options.precision
        if precision not in DTYPES:
            return Support(
                ok=False,
                reason=f"{self.device} runs {', '.join(DTYPES)}, not {precision!r}: give one of "
                "them with --precision",
            )
        reason = no_model_files(workload, "cuda-ort")
        return Support(ok=not reason, reason=reason)

    def compile(self, workload: Workload, plan: MeasurePlan) -> CudaExecutable:
        """Put the module on the GPU, run it once on seeded inputs, and capture it.

        Raises:
            ModelError: the callable fails, gives no module, or does not take the inputs.
            CompileError: ``torch.compile`` refuses it.
            MemoryError: the GPU's memory does not hold it.
        """
        with self.room_for(workload):
            return CudaExecutable(self, workload, plan)


class CudaEagerAdapter(CudaAdapter):
    """The same, kernel by kernel: what the host takes to launch them is in it."""

    device = "cuda-eager"
    mode = "eager"


class CudaCompiledAdapter(CudaAdapter):
    """The same, of what ``torch.compile`` makes of the module."""

    device = "cuda-compiled"
    mode = "compiled"


class CudaExecutable(GpuExecutable):
    """A module on the GPU, its seeded inputs, and the timer of its calls."""

    def __init__(self, adapter: CudaAdapter, workload: Workload, plan: MeasurePlan) -> None:
        start_s = time.perf_counter()
        self._torch, self._place = adapter.torch, adapter.place
        self._label, self._mode = workload.label, adapter.mode
        self._dtype = getattr(self._torch, DTYPES[adapter.options.precision])
        cuda = self._torch.cuda
        before_bytes = cuda.memory_allocated()
        module, specs = module_of(workload, adapter.options.batch)
        adapter.settle()
        drawing_s = time.perf_counter()
        self._seeded = inputs_for(module.eval(), specs, workload.seed)
        start_s += time.perf_counter() - drawing_s
        cuda.reset_peak_memory_stats()  # trying inputs is no need of the model's
        self._eager = module.to(device=self._place, dtype=self._dtype)
        size = weight_bytes(module)
        self._inputs = self._tensors(self._seeded)
        self._result = self._first_run()
        peak_bytes = cuda.max_memory_allocated() - before_bytes
        self._module = self._compiled()
        self.timer = GpuTimer(
            self._torch,
            self._launch,
            capture=adapter.mode != "eager",
            stream=adapter.stream,
            pool=adapter.pool,
        )
        # The graph writes where the captured call wrote; later captures make results elsewhere.
        self._replayed = self._result if self.timer.is_graph else None
        refusal = self.timer.refusal
        self.provider = f"torch {adapter.mode} CUDA{', no graph' if refusal else ''}"
        warned = [*drawn_switches(specs, self._seeded)]
        if refusal is not None:
            warned.append(
                f"no CUDA graph ({refusal}): launched kernel by kernel, host's time included"
            )
        super().__init__(
            adapter,
            plan,
            load_s=time.perf_counter() - start_s,
            artifact_bytes=size,
            peak_memory_bytes=peak_bytes,
            warnings=tuple(warned),
        )

    def trace(self) -> OpTrace:
        """Time blocks by events between them in a graph; a user's module by torch's profiler.

        Raises:
            DeviceError: no graph with events can be captured.
        """
        is_ours = isinstance(getattr(self._eager, "graph", None), Graph)
        if is_ours and self._mode == "graph":
            return trace_blocks(self._torch, self.timer, self._eager, self._inputs[0])
        return trace_operators(self._torch, self.timer, self._launch)

    def close(self) -> None:
        """Free module, inputs and graphs."""
        super().close()
        # Timer and executable hold each other: what is on the GPU must not wait for the collector.
        self._result = self._replayed = None
        self._eager = self._module = _CLOSED
        self._inputs = []

    def _launch(self, stream: object) -> None:
        with self._torch.inference_mode():
            self._result = self._module(*self._inputs)

    def _first_run(self) -> Any:
        """Run the module as it is, so that a user's mistake shows as one.

        Raises:
            ModelError: it does not take the inputs or gives no tensors.
        """
        try:
            with self._torch.inference_mode():
                result = self._eager(*self._inputs)
            self._torch.cuda.synchronize()  # what fails on the GPU is told no sooner
        except Exception as error:  # a user's module may raise anything
            if is_memory_full(self._torch, error):
                raise
            shapes = [list(t.shape) for t in self._inputs]
            if _ASSERTED in str(error):
                raise ModelError(
                    f"{self._label!r} fails on the GPU at inputs of the shapes {shapes}: "
                    f"{one_line(error)}. A value out of range does that, such as an id beyond a "
                    f"table: integers are drawn below {WIDE_INTEGERS}; --device cpu-torch tells "
                    "which operator it is"
                ) from error
            raise not_taken(self._label, shapes, error) from error
        if not any(isinstance(t, self._torch.Tensor) for t in leaves(result)):
            raise ModelError(f"{self._label!r} returned {type(result).__name__}; expected tensors")
        return result

    def _compiled(self) -> nn.Module | Any:
        """Return what is timed: the module, or what the compiler makes of it.

        Raises:
            CompileError: the compiler refuses it.
        """
        if self._mode != "compiled":
            return self._eager
        try:
            # Our networks share one forward(), of which the compiler makes eight by default: the
            # ninth of a process would run as it is, without a word, and be timed as compiled.
            config = self._torch._dynamo.config
            config.recompile_limit = config.accumulated_recompile_limit = MOST_COMPILED
            config.fail_on_recompile_limit_hit = True
            compiled = self._torch.compile(self._eager, dynamic=False)
            with warnings.catch_warnings(), self._torch.inference_mode():
                # Advice, such as to take TF32, on which --precision alone decides: no failure.
                warnings.simplefilter("ignore")
                compiled(*self._inputs)
        except Exception as error:  # whatever compiler, triton or a C compiler raise
            if is_memory_full(self._torch, error):
                raise
            raise CompileError(
                f"torch.compile refuses {self._label!r}: {type(error).__name__}: {one_line(error)}"
            ) from error
        return compiled

    def _read(self) -> list[Array]:
        """Return the tensors, whatever they are nested in."""
        result = self._result if self._replayed is None else self._replayed
        return arrays_of(result)

    def _fill(self, inputs: Arrays) -> None:
        """Write values where the graph reads its inputs."""
        given = self._tensors(inputs)
        shapes = [tuple(t.shape) for t in given]
        if shapes != (wanted := [tuple(t.shape) for t in self._inputs]):
            raise ModelError(
                f"{self._label!r} was compiled for inputs of the shapes {wanted}, not {shapes}"
            )
        for tensor, values in zip(self._inputs, given, strict=True):
            tensor.copy_(values)
        self._torch.cuda.synchronize()

    def _tensors(self, inputs: Mapping[str, Array]) -> list[torch.Tensor]:
        return [
            t.to(self._place, self._dtype if t.is_floating_point() else t.dtype, copy=True)
            for t in tensors_of(inputs)
        ]
