"""Direct builder against torch's ONNX exporters: time to build, and latency of what is built.

    python tests/bench/bench_builder.py [--json] [--repeats 5] [--rounds 30] [--only TEXT]

Times in ms. *direct* goes from the description to bytes: graph, random weights, ONNX. The
exporters are timed on a finished torch module, export and serialisation alone, so every
comparison errs in their favour. The bar is 50 times the default (dynamo) exporter.

*Latency* is that of ONNX Runtime on one thread, both models with the same weights in one
process, in alternating bursts; the ratio is the median over paired rounds. Intervals are 95 %,
by a bootstrap of the repeats or rounds. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

from hwprof.graph import (
    Graph,
    network_graph,
    piece_graph,
    to_onnx,
    to_torch,
    weights_from_torch,
)
from hwprof.space import get_space
from hwprof.space.pieces import BottleneckPiece, CellPiece, MBConvPiece, Piece

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_BOOTSTRAP = 2000
BURST_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio of medians with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One workload: how long building takes each way, and how fast the results run."""

    workload: str
    direct_s: float
    legacy_s: float
    dynamo_s: float
    legacy_over_direct: Ratio
    dynamo_over_direct: Ratio
    load_s: float
    latency_s: float
    latency_direct_over_legacy: Ratio
    latency_direct_over_dynamo: Ratio


def cases() -> dict[str, Callable[[], Graph]]:
    """Workloads by name, each as the function that builds its graph."""
    fields: dict[str, Any] = {"size_px": 28, "bn_eps": 1e-5}
    mbconv: dict[str, Any] = fields | {
        "in_channels": 40,
        "out_channels": 40,
        "kernel": 5,
        "expand": 6,
        "stride": 1,
        "shortcut": True,
    }
    pieces: dict[str, Piece] = {
        "mbconv k5 e6": MBConvPiece(**mbconv, act="relu6", squeeze_excite=False),
        "mbconv k5 e6 + SE": MBConvPiece(**mbconv, act="hswish", squeeze_excite=True),
        "bottleneck 256-64-256": BottleneckPiece(
            **fields,
            in_channels=256,
            mid_channels=64,
            out_channels=256,
            stride=1,
            downsample=False,
        ),
        "cell 16 ch": CellPiece(
            in_channels=16,
            size_px=32,
            ops=(
                "nor_conv_3x3",
                "none",
                "nor_conv_3x3",
                "skip_connect",
                "avg_pool_3x3",
                "nor_conv_1x1",
            ),
            bn_eps=1e-5,
        ),
    }
    graphs: dict[str, Callable[[], Graph]] = {
        name: lambda piece=piece: piece_graph(piece)  # type: ignore[misc]
        for name, piece in pieces.items()
    }
    for name in ("ofa-mbv3-w1.0", "nasbench201"):
        space = get_space(name)
        arch = space.sample(np.random.default_rng(0))
        graphs[f"{name} network"] = lambda space=space, arch=arch: network_graph(space, arch)  # type: ignore[misc]
    return graphs


def export(module: torch.nn.Module, image: torch.Tensor, *, dynamo: bool) -> bytes:
    """Export with torch: the default exporter, or the legacy one at opset 17."""
    options: dict[str, Any] = {"dynamo": True} if dynamo else {"dynamo": False, "opset_version": 17}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        if dynamo:
            options |= {"external_data": False, "verbose": False}
        torch.onnx.export(module, (image,), str(path), input_names=["input"], **options)
        return path.read_bytes()


def times_s(run: Callable[[], object], repeats: int) -> NDArray[np.float64]:
    """Time ``run`` after one call that does not count."""
    run()
    out = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        out.append(time.perf_counter() - start)
    return np.array(out)


def ratio_of_medians(a: NDArray[np.float64], b: NDArray[np.float64]) -> Ratio:
    """Median of ``a`` over median of ``b``, resampled apart."""
    rng = np.random.default_rng(0)
    medians = [
        np.median(x[rng.integers(len(x), size=(N_BOOTSTRAP, len(x)))], axis=1) for x in (a, b)
    ]
    low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
    return Ratio(value=float(np.median(a) / np.median(b)), low=float(low), high=float(high))


def median_of_ratios(a: NDArray[np.float64], b: NDArray[np.float64]) -> Ratio:
    """Median of ``a / b`` over paired rounds, resampled in pairs."""
    ratios = a / b
    draws = np.random.default_rng(0).integers(len(ratios), size=(N_BOOTSTRAP, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return Ratio(value=float(np.median(ratios)), low=float(low), high=float(high))


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def burst_median_s(session: onnxruntime.InferenceSession, feed: dict[str, Any]) -> float:
    """Median latency over one burst of calls, at least three."""
    samples: list[float] = []
    end = time.perf_counter() + BURST_S
    while len(samples) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feed)
        samples.append(time.perf_counter() - start)
    return float(np.median(samples))


def latencies_s(
    models: dict[str, bytes], feed: dict[str, Any], rounds: int
) -> dict[str, NDArray[np.float64]]:
    """Latency of each model by round, in an order drawn anew in every round."""
    sessions = {name: open_session(model) for name, model in models.items()}
    outputs = [session.run(None, feed)[0] for session in sessions.values()]
    scale = np.abs(outputs[0]).max()
    assert all(np.abs(out - outputs[0]).max() <= 1e-4 * scale for out in outputs)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for session in sessions.values():
        burst_median_s(session, feed)
    for _ in range(rounds):
        for name in rng.permutation(list(sessions)):
            times[name].append(burst_median_s(sessions[name], feed))
    return {name: np.array(values) for name, values in times.items()}


def measure(name: str, build: Callable[[], Graph], repeats: int, rounds: int) -> Row:
    """Build one workload three ways and run the results side by side."""
    graph = build()
    module = to_torch(graph).eval()
    image = torch.zeros(1, *graph.inputs[0].shape)
    models = {
        "direct": to_onnx(graph, weights=weights_from_torch(graph, module)),
        "legacy": export(module, image, dynamo=False),
        "dynamo": export(module, image, dynamo=True),
    }
    direct = times_s(lambda: to_onnx(build()), 10 * repeats)
    legacy = times_s(lambda: export(module, image, dynamo=False), repeats)
    dynamo = times_s(lambda: export(module, image, dynamo=True), repeats)
    load = times_s(lambda: open_session(models["direct"]), 2 * repeats)
    rng = np.random.default_rng(0)
    feed = {"input": rng.standard_normal(image.shape, dtype=np.float32)}
    latency = latencies_s(models, feed, rounds)
    return Row(
        workload=name,
        direct_s=float(np.median(direct)),
        legacy_s=float(np.median(legacy)),
        dynamo_s=float(np.median(dynamo)),
        legacy_over_direct=ratio_of_medians(legacy, direct),
        dynamo_over_direct=ratio_of_medians(dynamo, direct),
        load_s=float(np.median(load)),
        latency_s=float(np.median(latency["direct"])),
        latency_direct_over_legacy=median_of_ratios(latency["direct"], latency["legacy"]),
        latency_direct_over_dynamo=median_of_ratios(latency["direct"], latency["dynamo"]),
    )


def table(rows: list[Row]) -> str:
    """Lay the rows out for reading."""
    header = (
        "workload", "direct", "legacy", "dynamo", "legacy/direct", "dynamo/direct",
        "ORT load", "latency", "latency direct/legacy", "latency direct/dynamo",
    )  # fmt: skip
    lines = [header] + [
        (
            row.workload,
            *(f"{1e3 * t:.2f}" for t in (row.direct_s, row.legacy_s, row.dynamo_s)),
            str(row.legacy_over_direct),
            str(row.dynamo_over_direct),
            f"{1e3 * row.load_s:.2f}",
            f"{1e3 * row.latency_s:.3f}",
            str(row.latency_direct_over_legacy),
            str(row.latency_direct_over_dynamo),
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--repeats", type=int, default=5, help="exports timed per exporter")
    parser.add_argument("--rounds", type=int, default=30, help="paired bursts per latency")
    parser.add_argument("--only", default="", help="only workloads whose name holds this text")
    options = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    rows = [
        measure(name, build, options.repeats, options.rounds)
        for name, build in cases().items()
        if options.only in name
    ]
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else table(rows))


if __name__ == "__main__":
    main()
