"""PyTorch, eager, on this host's CPU: the device ``cpu-torch``.

Modules run in evaluation and inference mode with plain contiguous (NCHW) tensors, the layout in
which users' own modules run unless they ask for another; batch norms are not folded. It takes
what ``cpu`` cannot: a torch module made by ``package.module:callable``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwprof.devices.binding import accepted_inputs, drawn_switches
from hwprof.devices.host import (
    Array,
    HostExecutable,
    host_fingerprint,
    only_fp32,
    strict_float32,
)
from hwprof.devices.torch_module import (
    arrays_of,
    module_of,
    no_model_files,
    not_taken,
    set_fp32_precision,
    tensors_of,
    weight_bytes,
)
from hwprof.errors import DeviceUnavailableError, ModelError
from hwprof.measure.records import DeviceOptions, Fingerprint, MeasurePlan
from hwprof.measure.timing import timed_burst
from hwprof.protocols import OpTime, OpTrace, Support
from hwprof.workload import InputSpec, Workload

if TYPE_CHECKING:
    from torch import nn

    from hwprof.protocols import Arrays

PROVIDER = "torch eager CPU"
TRACE_S, TRACE_CALLS, TRACE_ROUNDS = 0.05, 5, 4


def refuses(workload: Workload, options: DeviceOptions) -> str:
    """Return why a workload is not taken; nothing where it is."""
    return no_model_files(workload, "cpu") or only_fp32(options, "cpu-torch")


class CpuTorchAdapter:
    """Opens torch on the CPU.

    Raises:
        DeviceUnavailableError: torch is not installed.
    """

    def __init__(self, options: DeviceOptions) -> None:
        try:
            import torch
        except ImportError as error:
            raise DeviceUnavailableError(
                f"the device 'cpu-torch' needs torch ({error}): run pip install 'hwprof[search]'"
            ) from error
        self._torch = torch
        self._options = options
        self.warnings = strict_float32()
        self._settle()

    def fingerprint(self) -> Fingerprint:
        """Return the facts about CPU, runtime and options."""
        return host_fingerprint(
            "cpu-torch",
            self._options,
            runtime="torch",
            runtime_version=str(self._torch.__version__),
            settings={
                "provider": PROVIDER,
                "layout": "NCHW",
                "mkldnn": self._torch._C._has_mkldnn,
                "flush_denormals": False,
            },
        )

    def supports(self, workload: Workload) -> Support:
        """Take networks and blocks of a space and torch callables, in fp32."""
        reason = refuses(workload, self._options)
        return Support(ok=not reason, reason=reason)

    def compile(self, workload: Workload, plan: MeasurePlan) -> CpuTorchExecutable:
        """Make the module and run it once on seeded inputs.

        Raises:
            ModelError: the callable fails, gives no module, or does not take the inputs.
        """
        start_s = time.perf_counter()
        module, specs = module_of(workload, self._options.batch)
        self._settle()
        module.eval()
        load_s = time.perf_counter() - start_s
        return CpuTorchExecutable(module, specs, workload, load_s=load_s)

    def close(self) -> None:
        """Nothing to free: modules belong to executables."""

    def _settle(self) -> None:
        """Set what the options decide, whatever a user's module has set on its import."""
        torch = self._torch
        torch.set_num_threads(self._options.threads)
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")  # else bfloat16, where the CPU has it
        set_fp32_precision(torch.backends.mkldnn, ("matmul", "conv", "rnn"), "ieee")


class CpuTorchExecutable(HostExecutable):
    """A module with its seeded inputs."""

    provider = PROVIDER

    def __init__(
        self, module: nn.Module, specs: Sequence[InputSpec], workload: Workload, *, load_s: float
    ) -> None:
        super().__init__(load_s=load_s, artifact_bytes=weight_bytes(module))
        import torch

        self._torch = torch
        self._module = module
        self._label = workload.label
        arrays = accepted_inputs(specs, workload.seed, self.outputs)
        self.warnings = drawn_switches(specs, arrays)
        self._inputs = tensors_of(arrays)
        self.outputs(arrays)

    def call(self) -> object:
        """Run once on the seeded inputs."""
        with self._torch.inference_mode():
            return self._module(*self._inputs)

    def outputs(self, inputs: Arrays | None = None) -> list[Array]:
        """Run once and return the outputs, whatever they are nested in, in order.

        Raises:
            ModelError: the module does not take the inputs or gives no tensors.
        """
        tensors = self._inputs if inputs is None else tensors_of(inputs)
        try:
            with self._torch.inference_mode():
                result = self._module(*tensors)
        except Exception as error:  # a user's module may raise anything
            shapes = [list(t.shape) for t in tensors]
            raise not_taken(self._label, shapes, error) from error
        found = arrays_of(result)
        if not found:
            raise ModelError(f"{self._label!r} returned {type(result).__name__}; expected tensors")
        return found

    def trace(self) -> OpTrace:
        """Time the operators with torch's profiler: self time, all calls of a kind together.

        What the profiler adds to an operator is not known, so nothing is removed.
        """
        from torch.profiler import ProfilerActivity, profile

        plain_ns, traced_ns = [], []
        totals_s: dict[str, float] = {}
        runs: dict[str, int] = {}
        for _ in range(TRACE_ROUNDS):
            plain = timed_burst(self.call, TRACE_S, TRACE_CALLS)
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                traced = timed_burst(self.call, TRACE_S, TRACE_CALLS)
            plain_ns.append(plain.duration_ns)
            traced_ns.append(traced.duration_ns)
            for row in profiler.key_averages():
                totals_s[row.key] = totals_s.get(row.key, 0.0) + row.self_cpu_time_total * 1e-6
                runs[row.key] = runs.get(row.key, 0) + row.count
        n_calls = sum(part.size for part in traced_ns)
        ops = tuple(
            OpTime(
                name=name,
                op_type=name,
                time_s=total_s / n_calls,
                count=max(round(runs[name] / n_calls), 1),
            )
            for name, total_s in totals_s.items()
        )
        return OpTrace.adding_up(
            ops,
            traced_s=1e-9 * float(np.mean(np.concatenate(traced_ns))),
            untraced_s=1e-9 * float(np.mean(np.concatenate(plain_ns))),
        )
