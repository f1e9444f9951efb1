"""Is the level what anybody's plain loop finds where nothing disturbs it?

    python -m tests.bench.bench_agreement [--out F.jsonl] [--max-time 10m] [--quick]

For a block and a network of each of four spaces: hwprof's level (``cpu``, standard preset) and
the tenth percentile of 3 seconds of plain ONNX Runtime calls on one thread, in a fresh process
right before or after it, at random; several such pairs, the workloads in random order. The bar
is 2 %. Pairs that other work disturbed (foreign load of 0.05 core or steal of 0.5 % by the
benchmark's own monitor) are counted and left out: the question is about an idle machine.

Where they are installed, the same with the tools of other runtimes against hwprof's adapters for
them: OpenVINO's ``benchmark_app`` (its median; the device ``openvino``) and LiteRT's
``litert-benchmark`` (its fifth percentile, which it rounds to 10 µs; the device ``tflite``). What
is missing is said.
``ratio`` is the median over pairs of level / tool, with a 95 % BCa bootstrap interval. About
8 minutes for ONNX Runtime, as long again for each tool.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwprof.campaign import isolated_workloads
from hwprof.devices import list_devices
from hwprof.graph import to_onnx, workload_graph
from hwprof.interval import Interval
from hwprof.space import get_space
from hwprof.workload import Workload
from tests.bench import common, otherwork
from tests.bench.common import Cell, Cells, Job

SPACES = ("proxylessnas", "ofa-mbv3-w1.0", "ofa-resnet50", "nasbench201")
BAR_PCT = 2.0
LOOP_S = 3.0
START_S = 1.0
"""Of a plain loop's process."""
EXPECTED_S = 11.0


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Somebody else's benchmark: which of hwprof's devices it stands beside, and how it is run."""

    name: str
    device: str
    run: Callable[[Workload], float]
    """Returns the tool's seconds per call."""


def ort_loop_s(workload: Workload) -> float:
    """Return the tenth percentile of a plain loop."""
    return float(common.plain_run(workload, "cpu", "loop", START_S + LOOP_S)["p10_s"])


def benchmark_app_s(workload: Workload) -> float:
    """Return the median of OpenVINO's tool, one stream on one thread, calls in turn."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        model.write_bytes(to_onnx(workload_graph(workload), seed=workload.seed, batch=1))
        options = "-d CPU -api sync -hint none -nstreams 1 -nthreads 1 -infer_precision f32"
        text = _output("benchmark_app", "-m", str(model), "-t", f"{LOOP_S:g}", *options.split())
    found = re.search(r"Median:\s*([\d.]+) (ms|us)", text)
    assert found is not None, text
    return float(found[1]) * {"ms": 1e-3, "us": 1e-6}[found[2]]


def litert_benchmark_s(workload: Workload) -> float:
    """Return the fifth percentile of LiteRT's tool on one thread; it wants a count of calls."""
    to_tflite = importlib.import_module("hwprof.devices.litert.tflite_writer").to_tflite
    with tempfile.TemporaryDirectory() as folder:
        model, result = Path(folder) / "model.tflite", Path(folder) / "result.json"
        model.write_bytes(to_tflite(workload_graph(workload), seed=workload.seed))
        _output(
            "litert-benchmark", "--model", str(model), "--num_threads", "1",
            "--num_runs", "300", "--warmup_runs", "1", "--result_json", str(result),
        )  # fmt: skip
        return 1e-3 * float(json.loads(result.read_text())["latency"]["p5_ms"])


TOOLS = (
    Tool(name="ONNX Runtime loop, p10", device="cpu", run=ort_loop_s),
    Tool(name="benchmark_app, median", device="openvino", run=benchmark_app_s),
    Tool(name="litert-benchmark, p5", device="tflite", run=litert_benchmark_s),
)


def _command(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _output(name: str, *arguments: str) -> str:
    command = [str(_command(name)), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def missing(tool: Tool) -> str | None:
    """Return why a tool is left out, if it is."""
    status = {s.name: s for s in list_devices()}.get(tool.device)
    if status is None:
        return f"hwprof has no device {tool.device!r}"
    command = tool.name.partition(",")[0]
    if not status.available:
        return status.reason
    return None if tool.device == "cpu" or _command(command).exists() else f"no {command} here"


def workloads() -> Iterator[Workload]:
    """Yield a block and a network of each space, drawn once and for all."""
    for name in SPACES:
        space, rng = get_space(name), np.random.default_rng(0)
        blocks = isolated_workloads(space)
        block = blocks[rng.integers(len(blocks))]
        yield replace(block, label=f"{name}: {block.label.partition(' (')[0]}")
        yield Workload.network(space.sample(rng), f"{name}: a network")


def pair(workload: Workload, tool: Tool, seed: int) -> Cell:
    """Measure with hwprof and with the tool, in random order."""

    def ours() -> float:
        return float(common.engine_run(workload, tool.device, "standard", seed)["level_s"])

    steps: list[tuple[str, Callable[[], float]]] = [
        ("level_s", ours),
        ("tool_s", lambda: tool.run(workload)),
    ]
    # Each workload's and tool's own turns, so that none of them all meet the same order.
    own = zlib.crc32(f"{tool.name} {workload.label}".encode())
    if np.random.default_rng([seed, own]).random() < 0.5:
        steps.reverse()
    watch = otherwork.Watch()
    found = {name: step() for name, step in steps}
    return {**found, **asdict(watch.load())}


def row(tool: Tool, workload: Workload, pairs: Sequence[Cell]) -> dict[str, Any]:
    """Return how the quiet pairs agree."""
    quiet = [c for c in pairs if otherwork.is_quiet(c)]
    ratios = np.array([c["level_s"] / c["tool_s"] for c in quiet])
    shown = quiet or pairs
    ratio = common.bootstrap(np.median, ratios) if quiet else Interval(np.nan, np.nan, np.nan)
    return {
        "tool": tool.name,
        "workload": workload.label,
        "quiet pairs": len(quiet),
        "left out": len(pairs) - len(quiet),
        "level, ms": 1e3 * float(np.median([c["level_s"] for c in shown])),
        "tool, ms": 1e3 * float(np.median([c["tool_s"] for c in shown])),
        "ratio": ratio,
        f"within {BAR_PCT:g} %": int(np.sum(np.abs(ratios - 1) <= BAR_PCT / 100)),
    }


def main() -> None:
    """Measure what is missing; print the summary."""
    parser = common.parser(__doc__, "agreement")
    parser.add_argument("--pairs", type=int, default=5, help="of each workload and tool")
    options = parser.parse_args()
    deadline_s = time.monotonic() + options.max_time
    todo = list(workloads())
    if options.quick:
        todo, options.pairs = todo[:2], 1
    cells = Cells.open(options.out)
    tools = []
    for tool in TOOLS:
        if (reason := missing(tool)) is None:
            tools.append(tool)
        else:
            common.say(f"{tool.name}: left out, {reason}")
    jobs = []
    for i in range(options.pairs):
        both = [(t, w) for t in tools for w in todo]
        for j in np.random.default_rng([options.seed, i]).permutation(len(both)):
            tool, workload = both[j]
            jobs.append(
                Job(
                    key={"tool": tool.name, "workload": workload.label, "pair": i},
                    run=partial(pair, workload, tool, 3000 + i),
                    expected_s=EXPECTED_S,
                )
            )
    common.measure_missing(cells, jobs, deadline_s)
    rows = [
        row(tool, workload, pairs)
        for tool in TOOLS
        for workload in todo
        if (pairs := cells.select(tool=tool.name, workload=workload.label))
    ]
    common.finish(options.out, cells, {"Agreement with plain loops": rows})


if __name__ == "__main__":
    main()
