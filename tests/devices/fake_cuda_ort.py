"""onnxruntime whose CUDA provider is the real runtime on the CPU, on a scripted GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime

from hwprof.devices.nvidia.cuda_ort import CPU_PROVIDER, PROVIDER
from tests.devices.fake_cuda import FakeGpu

RUN_NS = 40_000
NOT_PERMITTED = "operation not permitted when stream is capturing"
GRAPH_REFUSED = (
    "This session cannot use the CUDA Graph feature as requested by the user as all the graph "
    "nodes have not been partitioned to the CUDA EP."
)


class OrtOnFakeGpu:
    """onnxruntime with a CUDA provider that computes on the CPU and takes 40 µs of the GPU."""

    __version__ = "1.32.0"

    def __init__(
        self,
        gpu: FakeGpu,
        *,
        on_cpu: tuple[str, ...] = (),
        loads: bool = True,
        captures: bool = True,
        waits: bool = False,
    ) -> None:
        self.waits = waits
        self.gpu, self.on_cpu, self.loads, self.captures = gpu, on_cpu, loads, captures
        self.opened: list[dict[str, str]] = []
        self.SessionOptions, self.RunOptions = onnxruntime.SessionOptions, onnxruntime.RunOptions
        self.OrtValue = _Values()

    def get_available_providers(self) -> list[str]:
        return [PROVIDER, CPU_PROVIDER]

    def InferenceSession(  # noqa: N802 - the runtime's own name
        self, source: str | bytes, options: Any, providers: list[Any], enable_fallback: bool
    ) -> Any:
        assert not enable_fallback, "it would run on the CPU without a word"
        (name, settings), _ = providers
        assert name == PROVIDER
        self.opened.append(settings)
        if self.on_cpu and settings["enable_cuda_graph"] == "1":
            raise RuntimeError(GRAPH_REFUSED)
        real = onnxruntime.InferenceSession(source, options, providers=[CPU_PROVIDER])
        return _Session(self, real, settings["enable_cuda_graph"] == "1")


class _Session:
    def __init__(self, ort: OrtOnFakeGpu, real: Any, is_graph: bool) -> None:
        self._ort, self._real, self._is_graph = ort, real, is_graph

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [PROVIDER, CPU_PROVIDER] if self._ort.loads else [CPU_PROVIDER]

    def run(self, names: list[str], inputs: dict[str, Any]) -> Any:
        """Run as the provider does, which takes any index."""
        taken = {n: a % 2 if a.dtype.kind in "iu" else a for n, a in inputs.items()}
        return self._real.run(names, taken)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self._is_graph and not self._ort.captures:
            raise RuntimeError(f"CUDA failure 900: {NOT_PERMITTED}")
        self._ort.gpu.kernel(RUN_NS)
        # Older releases wait for every replay of their graph.
        if self._is_graph and self._ort.waits:
            self._ort.gpu.synchronize()
        self._real.run_with_iobinding(binding, options)

    def end_profiling(self) -> str:
        """Return the profile with every operator on the GPU but those told."""
        path = Path(self._real.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if event.get("args", {}).get("op_name") not in (None, *self._ort.on_cpu):
                event["args"]["provider"] = PROVIDER
        path.write_text(json.dumps(events))
        return str(path)


class _Values:
    def ortvalue_from_numpy(self, array: Any, place: str, device_id: int) -> Any:
        assert (place, device_id) == ("cuda", 0)
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)

    def ortvalue_from_shape_and_type(
        self, shape: Any, kind: Any, place: str, device_id: int
    ) -> Any:
        assert (place, device_id) == ("cuda", 0)
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind)
