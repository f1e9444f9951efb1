"""Per-operator times of ONNX Runtime: its profiler's events, with the profiler's cost removed.

The profiler writes one event an operator, in whole microseconds. A session either profiles or
does not, so bursts of a plain and of a profiling session alternate: what one finds the other
finds too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import MeasurementError
from hwprof.graph.onnx_writer import IR_VERSION, OPSET
from hwprof.measure.level import corrected_s
from hwprof.measure.records import Burst
from hwprof.measure.timing import estimate_call_s, timed_burst
from hwprof.parts.tracer import (
    ChainRun,
    TracedCalls,
    TracedFloor,
    TracerCost,
    calibrate,
    correct,
    floor_s,
    traced_floor,
)
from hwprof.protocols import OpTime, OpTrace

BURST_S = 0.05
ROUNDS = 6
MIN_CALLS = 6
MOST_CALLS = 60
"""Calls a burst: short calls would fill the profiler's memory."""
TICK_S = 1e-6
LONG_CHAIN, SHORT_CHAIN = 100, 10
CHAIN_SHAPE = (1, 16, 2, 2)
CONV_INPUTS = 3
"""What a convolution's event lists: image, weight, bias."""

Session = Any
Source = str | bytes
Call = Callable[[], object]
Bind = Callable[[Session], Call]
"""Binds inputs and outputs of a session and returns what runs it once."""
Adjust = Callable[[Any], None]
OpenSession = Callable[[Source, Adjust | None], Session]
"""Opens a session of a model, its options adjusted first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """What the profiler wrote: operators in order, and their times in every call."""

    names: tuple[str, ...]
    op_types: tuple[str, ...]
    n_inputs: NDArray[np.int64]
    runs: NDArray[np.float64]
    op_s: NDArray[np.float64]
    gap_s: NDArray[np.float64]


class OrtTracer:
    """Traces sessions of one adapter; the profiler's cost is measured once a process."""

    def __init__(self, open_session: OpenSession, threads: int) -> None:
        self._open, self._threads = open_session, threads
        self._cost: TracerCost | None = None

    def trace(self, source: Source, plain: Call, bind: Bind) -> OpTrace:
        """Time the operators of a model.

        Args:
            source: the model.
            plain: runs the model once, in a session that does not profile.
            bind: makes such a call of a session that does.
        """
        if self._cost is None:
            self._cost = self._calibrated()
        profile, floor, plain_s, outputs = self._run(source, plain, bind)
        found = correct(floor, profile.n_inputs, profile.runs, self._cost)
        rows = zip(profile.names, profile.op_types, found.op_s, found.removed_s, strict=True)
        return OpTrace(
            ops=tuple(
                OpTime(
                    name=name,
                    op_type=op_type,
                    time_s=float(time_s),
                    removed_s=float(removed_s),
                    outputs=outputs.get(name, ()),
                )
                for name, op_type, time_s, removed_s in rows
            ),
            outside_s=found.outside_s,
            traced_s=floor.call_s,
            untraced_s=plain_s,
        )

    def _calibrated(self) -> TracerCost:
        """Measure the profiler on chains of trivial operators."""
        wide = _convolutions(LONG_CHAIN)
        # The first profile of a process takes its memory fresh from the system, page by page.
        self._chain(wide, CONV_INPUTS)
        return calibrate(
            self._chain(_signs(LONG_CHAIN), 1),
            self._chain(wide, CONV_INPUTS),
            self._chain(_signs(SHORT_CHAIN), 1),
        )

    def _chain(self, source: bytes, n_inputs: int) -> ChainRun:
        feed = np.ones(CHAIN_SHAPE, dtype=np.float32)

        def bind(session: Session) -> Call:
            binding = session.io_binding()
            binding.bind_cpu_input(_chain_tensor(0), feed)
            binding.bind_output(session.get_outputs()[0].name)
            return lambda: session.run_with_iobinding(binding)

        profile, floor, plain_s, _ = self._run(source, bind(self._open(source, None)), bind)
        return ChainRun(n_ops=len(profile.names), n_inputs=n_inputs, plain_s=plain_s, traced=floor)

    def _run(
        self, source: Source, plain: Call, bind: Bind
    ) -> tuple[Profile, TracedFloor, float, Mapping[str, tuple[str, ...]]]:
        """Alternate plain and profiled bursts; return the profile, both floors, and tensors."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(source, lambda o: _profiling(o, Path(folder), source))
            call = bind(session)
            pairs = list(_alternate(plain, call))
            profile = _read_profile(Path(session.end_profiling()))
            outputs = _optimized_outputs(Path(folder) / _OPTIMIZED)
        bursts = [burst for _, burst in pairs]
        n_calls = sum(b.n_samples for b in bursts)
        # Binding may have run the model: only the last calls are ours.
        calls = _kept_calls(profile, bursts, profile.op_s.shape[0] - n_calls, self._threads)
        plain_s = floor_s([corrected_s(b, self._threads) for b, _ in pairs[1:]])
        return profile, traced_floor(calls), plain_s, outputs


_OPTIMIZED = "optimized.onnx"


def _profiling(options: Any, folder: Path, source: Source) -> None:
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    if isinstance(source, str):
        # Fused operators of a user's model have lost their names, but not their outputs'.
        options.optimized_model_filepath = str(folder / _OPTIMIZED)
        for name, value in (
            ("session.optimized_model_external_initializers_file_name", "weights.bin"),
            ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ):
            options.add_session_config_entry(name, value)


def _alternate(plain: Call, traced: Call) -> Iterator[tuple[Burst, Burst]]:
    """Yield bursts of both in turn; the first pair is warm-up."""
    traced()
    duration_s = min(BURST_S, MOST_CALLS * estimate_call_s(plain, 3))
    for _ in range(ROUNDS + 1):
        yield timed_burst(plain, duration_s, MIN_CALLS), timed_burst(traced, duration_s, MIN_CALLS)


def _kept_calls(
    profile: Profile, bursts: Sequence[Burst], skipped: int, threads: int
) -> TracedCalls:
    """Join the profile with our own clock's samples; drop warm-up and first calls of bursts."""
    wall_ns = np.concatenate([b.duration_ns for b in bursts])
    wait_ns = np.zeros_like(wall_ns)
    if threads == 1 and all(b.wait_ns is not None for b in bursts):
        wait_ns = np.concatenate([b.wait_ns for b in bursts if b.wait_ns is not None])
    number = np.repeat(np.arange(len(bursts)), [b.n_samples for b in bursts])
    is_first = np.diff(number, prepend=-1) > 0
    kept = ~is_first & (number > 0)
    return TracedCalls(
        op_s=profile.op_s[skipped:][kept],
        gap_s=profile.gap_s[skipped:][kept],
        call_s=wall_ns[kept].astype(np.float64) * 1e-9,
        wait_s=wait_ns[kept].astype(np.float64) * 1e-9,
        burst=number[kept],
    )


def _read_profile(path: Path) -> Profile:
    """Read the events of a profile, call by call.

    Raises:
        MeasurementError: it holds no operators.
    """
    columns: dict[tuple[str, str], int] = {}
    n_inputs: list[int] = []
    cells: list[tuple[int, int, float, float]] = []
    n_calls = 0
    for nodes, end_us in _calls(json.loads(path.read_text())):
        starts = [event["ts"] for event in nodes] + [end_us]
        for event, start, following in zip(nodes, starts, starts[1:], strict=False):
            arguments = event["args"]
            key = (event["name"].removesuffix(_KERNEL), str(arguments["op_name"]))
            column = columns.setdefault(key, len(columns))
            if column == len(n_inputs):
                n_inputs.append(len(arguments.get("input_type_shape", ())))
            # Whole microseconds, rounded down: half of one is lost on average. What an operator
            # holds inside (a loop's body) is counted for itself, hence no further than it.
            time_us = min(event["dur"] + 0.5, following - start)
            cells.append((n_calls, column, time_us, following - start - time_us))
        n_calls += 1
    if not columns:
        raise MeasurementError("onnxruntime's profile holds no operators; expected at least one")
    op_s, gap_s, runs = (np.zeros((n_calls, len(columns))) for _ in range(3))
    rows, where, times, gaps = (np.array(v) for v in zip(*cells, strict=True))
    index = (rows.astype(np.intp), where.astype(np.intp))
    np.add.at(op_s, index, times * TICK_S)
    np.add.at(gap_s, index, gaps * TICK_S)
    np.add.at(runs, index, 1.0)
    return Profile(
        names=tuple(name for name, _ in columns),
        op_types=tuple(op_type for _, op_type in columns),
        n_inputs=np.array(n_inputs, dtype=np.int64),
        runs=runs.mean(axis=0),
        op_s=op_s,
        gap_s=gap_s,
    )


_KERNEL = "_kernel_time"


def _calls(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[Mapping[str, Any]], int]]:
    """Yield every call's operator events in order of their start, and when the last one ended."""
    nodes: list[Mapping[str, Any]] = []
    end_us = 0
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            nodes.append(event)
        elif event["name"] == "SequentialExecutor::Execute":
            end_us = event["ts"] + event["dur"]
        elif event["name"] == "model_run":
            yield sorted(nodes, key=lambda e: int(e["ts"])), end_us
            nodes = []


def _optimized_outputs(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the tensors that every operator of the model makes, as the runtime runs it."""
    if not path.exists():
        return {}
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return {node.name: tuple(node.output) for node in graph.node if node.name}


def _signs(n_ops: int) -> bytes:
    """Return a chain of operators that take next to no time, with one input each."""
    from onnx import helper

    nodes = [
        helper.make_node("Neg", [_chain_tensor(i)], [_chain_tensor(i + 1)], name=f"sign{i}")
        for i in range(n_ops)
    ]
    return _chain_model(nodes, {})


def _convolutions(n_ops: int) -> bytes:
    """Return a chain of the smallest convolutions, with weight and bias: what networks are of."""
    from onnx import helper

    channels = CHAIN_SHAPE[1]
    nodes = [
        helper.make_node(
            "Conv",
            [_chain_tensor(i), f"weight{i}", f"bias{i}"],
            [_chain_tensor(i + 1)],
            name=f"conv{i}",
            kernel_shape=[1, 1],
        )
        for i in range(n_ops)
    ]
    weight = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    bias = np.zeros(channels, dtype=np.float32)
    arrays = {f"weight{i}": weight for i in range(n_ops)}
    return _chain_model(nodes, {**arrays, **{f"bias{i}": bias for i in range(n_ops)}})


def _chain_tensor(index: int) -> str:
    return f"t{index}"


def _chain_model(nodes: Sequence[Any], arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_tensor_value_info(_chain_tensor(i), TensorProto.FLOAT, CHAIN_SHAPE)
        for i in (0, len(nodes))
    ]
    values = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], values)
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opset)
    return bytes(model.SerializeToString())
