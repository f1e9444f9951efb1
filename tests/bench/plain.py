"""The loops that others write, one in a fresh process; run by :mod:`tests.bench.common`.

    python -m tests.bench.plain '{"workload": …, "device": "cpu", "method": "loop", "until_s": …}'

The runtime is called directly, on one thread, without hwprof's adapters or its timing; only the
network's description and weights are shared. ``loop``: one warm-up call, then a clock pair a
call, as vendors' tools do (onnxruntime_perf_test and the like). ``blocked`` and ``adaptive``:
``torch.utils.benchmark``; the latter ends by its own rule, by ``until_s`` at the latest. Prints
seconds per call as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwprof.graph import to_onnx, to_torch, workload_graph
from hwprof.workload import Workload

LEAST_S = 0.5
"""However long the start took, calls are timed for this long."""


def onnxruntime_call(workload: Workload) -> Callable[[], object]:
    """Return a call of ONNX Runtime with inputs and outputs bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = to_onnx(workload_graph(workload), seed=workload.seed, batch=1)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for node in session.get_inputs():
        array = np.random.default_rng(0).standard_normal(node.shape, dtype=np.float32)
        binding.bind_ortvalue_input(node.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for node in session.get_outputs():
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(node.shape, np.float32)
        binding.bind_ortvalue_output(node.name, value)
    return lambda: session.run_with_iobinding(binding)


def torch_call(workload: Workload) -> Callable[[], object]:
    """Return a call of the eager module, with torch's and the system's defaults."""
    import torch

    torch.set_num_threads(1)
    graph = workload_graph(workload)
    module = to_torch(graph, seed=workload.seed).eval()
    x = torch.randn(1, *graph.inputs[0].shape)

    def call() -> object:
        with torch.inference_mode():
            return module(x)

    return call


CALLS: Mapping[str, Callable[[Workload], Callable[[], object]]] = {
    "cpu": onnxruntime_call,
    "cpu-torch": torch_call,
}


def loop(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """Time calls back to back."""
    clock, durations = time.perf_counter_ns, []
    call()
    stop = clock() + int(seconds * 1e9)
    end = 0
    while end < stop:
        start = clock()
        call()
        end = clock()
        durations.append(end - start)
    samples_s = 1e-9 * np.array(durations)
    p10, median = np.quantile(samples_s, (0.1, 0.5)).tolist()
    return {
        "p10_s": p10,
        "median_s": median,
        "mean_s": float(samples_s.mean()),
        "n_calls": samples_s.size,
    }


def torch_timer(call: Callable[[], object], method: str, seconds: float) -> dict[str, float]:
    """Time with ``torch.utils.benchmark`` on one thread."""
    from torch.utils.benchmark import Timer

    timer = Timer("call()", globals={"call": call}, num_threads=1)
    if method == "blocked":
        found = timer.blocked_autorange(min_run_time=seconds)
    else:
        found = timer.adaptive_autorange(max_run_time=seconds)
    return {"median_s": found.median, "n_calls": found.number_per_run * len(found.raw_times)}


def main() -> None:
    """Answer one request."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    call = CALLS[request["device"]](Workload.from_json(request["workload"]))
    if request["method"] != "loop":
        import torch.utils.benchmark  # noqa: F401 - before the clock starts
    seconds = max(request["until_s"] - time.monotonic(), LEAST_S)
    if request["method"] == "loop":
        print(json.dumps(loop(call, seconds)))
    else:
        print(json.dumps(torch_timer(call, request["method"], seconds)))


if __name__ == "__main__":
    main()
