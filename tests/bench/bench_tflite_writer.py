"""The .tflite emitter: milliseconds to write each block, and its error against ONNX Runtime.

    python tests/bench/bench_tflite_writer.py [--json] [--repeats 5] [--only SPACE]

Takes every distinct block of every space, and a few seeded networks of each. *Write* goes from
the description to bytes: graph, random weights, flatbuffer; the best of the repeats, since what
disturbs only adds. *Error* is the largest difference to ONNX Runtime on the file that
``to_onnx`` writes from the same weights, on one seeded image, relative to the largest output.
For a network both runtimes add up rounding errors of hundreds of operators, so each is also
compared with torch in double precision. *Pieces* counts what XNNPACK makes of a file, *outside*
the operators it leaves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hwprof.devices.cpu import CpuAdapter
from hwprof.devices.litert.tflite import TfliteAdapter
from hwprof.devices.litert.tflite_writer import to_tflite
from hwprof.graph import to_torch, workload_graph
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.space import get_space, space_names
from hwprof.workload import Workload

if TYPE_CHECKING:
    from hwprof.protocols import Arrays, DeviceAdapter

N_NETWORKS = 3
BAR = 1e-5
"""Largest error of a block that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file: how long writing takes and how right it is."""

    space: str
    role: str
    label: str
    write_s: float
    n_bytes: int
    error: float
    """Against ONNX Runtime."""
    error_to_double: float | None
    """Against torch in double precision; networks only."""
    onnx_error_to_double: float | None
    pieces: int
    outside: tuple[str, ...]


def workloads(name: str) -> Iterator[Workload]:
    """Yield every distinct block of a space, then some networks."""
    space = get_space(name)
    for piece in space.distinct_pieces():
        yield Workload.block(piece, f"{piece.kind} {piece.in_channels}x{piece.size_px}")
    rng = np.random.default_rng(0)
    for _ in range(N_NETWORKS):
        yield Workload.network(space.sample(rng))


def best_s(run: Callable[[], object], repeats: int) -> float:
    """Return the shortest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def outputs(adapter: DeviceAdapter, workload: Workload, inputs: Arrays) -> np.ndarray:
    """Run a workload once on a device."""
    executable = adapter.compile(workload, plan_for("quick"))
    (found,) = executable.outputs(inputs)
    executable.close()
    return np.asarray(found, dtype=np.float64)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference over the largest expected value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def in_double(workload: Workload, image: np.ndarray) -> np.ndarray:
    """Return torch's outputs in double precision."""
    module = to_torch(workload_graph(workload), seed=workload.seed).eval().double()
    with torch.no_grad():
        found: np.ndarray = module(torch.from_numpy(image).double()).numpy()
    return found


def measure(space: str, workload: Workload, repeats: int) -> Row:
    """Write one workload and run it in both runtimes."""
    options = DeviceOptions()
    shape = (1, *workload_graph(workload).inputs[0].shape)
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    onnx = outputs(CpuAdapter(options), workload, {"input": image})
    adapter = TfliteAdapter(options)
    support = adapter.supports(workload)
    lite = outputs(adapter, workload, {"input": image})
    wide = in_double(workload, image) if workload.role == "network" else None
    return Row(
        space=space,
        role=workload.role,
        label=workload.label,
        write_s=best_s(lambda: to_tflite(workload_graph(workload)), repeats),
        n_bytes=len(to_tflite(workload_graph(workload))),
        error=relative_error(lite, onnx),
        error_to_double=None if wide is None else relative_error(lite, wide),
        onnx_error_to_double=None if wide is None else relative_error(onnx, wide),
        pieces=support.n_pieces or 0,
        outside=support.outside_ops,
    )


def summary(rows: list[Row]) -> str:
    """Return one line for the blocks and one for the networks of every space."""
    header = (
        f"{'space':22} {'role':8} {'n':>4} {'median ms':>10} {'max ms':>8} {'worst error':>12} "
        f"{'to double':>10} {'ORT to it':>10} {'pieces':>7} outside"
    )
    lines = [header]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.space, row.role), []).append(row)
    for (space, role), members in groups.items():
        times_ms = np.array([1e3 * row.write_s for row in members])
        lines.append(
            f"{space:22} {role:8} {len(members):4} {np.median(times_ms):10.2f} "
            f"{times_ms.max():8.2f} {max(row.error for row in members):12.1e} "
            f"{_worst([row.error_to_double for row in members]):>10} "
            f"{_worst([row.onnx_error_to_double for row in members]):>10} "
            f"{max(row.pieces for row in members):7} "
            f"{sorted({op for row in members for op in row.outside}) or '-'}"
        )
    bad = [row for row in rows if row.role == "block" and row.error > BAR]
    lines.append(f"blocks whose error is above {BAR:g}: {len(bad)}")
    return "\n".join([*lines, *(f"  {row.space} {row.label}: {row.error:.1e}" for row in bad)])


def _worst(errors: list[float | None]) -> str:
    known = [e for e in errors if e is not None]
    return f"{max(known):.1e}" if known else "-"


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print every row as JSON")
    parser.add_argument("--repeats", type=int, default=5, help="times each file is written")
    parser.add_argument("--only", default="", help="only spaces whose name holds this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measure(name, workload, options.repeats)
        for name in space_names()
        if options.only in name
        for workload in workloads(name)
    ]
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else summary(rows))


if __name__ == "__main__":
    main()
