"""ONNX Runtime under its own profiler: events read, and joined with calls timed by our clock.

The profiler writes one event an operator, in whole microseconds. A session either profiles or
does not, so bursts of a plain and of a profiling session alternate: what one meets the other
meets too.
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

from hwprof.devices.model_source import Source
from hwprof.errors import MeasurementError
from hwprof.measure.level import corrected_s
from hwprof.measure.records import Burst
from hwprof.measure.timing import estimate_call_s, timed_burst
from hwprof.parts.tracer import TracedCalls, TracedFloor, floor_s, traced_floor

BURST_S = 0.05
ROUNDS = 6
MIN_CALLS = 6
MOST_CALLS = 60
"""Calls a burst: short calls would fill the profiler's memory."""
TICK_S = 1e-6
OPTIMIZED = "optimized.onnx"

_KERNEL = "_kernel_time"

Session = Any
Call = Callable[[], object]
Bind = Callable[[Session], Call]
"""Binds inputs and outputs of a session and returns what runs it once."""
OpenSession = Callable[[Source, Callable[[Any], None] | None], Session]
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


@dataclass(frozen=True, kw_only=True, eq=False)
class ProfiledRun:
    """A model's profile with the undisturbed call, with and without the profiler."""

    profile: Profile
    traced: TracedFloor
    plain_s: float
    outputs: Mapping[str, tuple[str, ...]]
    """Tensors that an operator makes, by its name in the profile; for models out of files."""


def profile_calls(
    open_session: OpenSession, source: Source, plain: Call, bind: Bind, threads: int
) -> ProfiledRun:
    """Run a model in alternating plain and profiled bursts.

    Args:
        open_session: opens the session that profiles.
        source: the model.
        plain: runs it once, in a session that does not profile.
        bind: makes such a call of the session that does.
        threads: of the runtime; with one, run-queue wait is taken out.

    Raises:
        MeasurementError: the profile is empty or lacks calls.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(source, lambda o: _switch_on(o, Path(folder), source))
        pairs = list(_alternate(plain, bind(session)))
        profile = read_profile(_written(Path(session.end_profiling())))
        outputs = _optimized_outputs(Path(folder) / OPTIMIZED)
    calls = _kept_calls(profile, [burst for _, burst in pairs], threads)
    return ProfiledRun(
        profile=profile,
        traced=traced_floor(calls, float(profile.runs.sum())),
        plain_s=floor_s([corrected_s(burst, threads) for burst, _ in pairs[1:]]),
        outputs=outputs,
    )


def _written(path: Path) -> Any:
    """Return what the profiler wrote: it says nothing where it lacked the space."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MeasurementError(
            f"onnxruntime's profile is not whole ({error}): free some space in "
            f"{tempfile.gettempdir()!r}, or name another folder by TMPDIR"
        ) from error


def _switch_on(options: Any, folder: Path, source: Source) -> None:
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    if isinstance(source, str):
        # Fused operators of a user's model have lost their names, but not their outputs'.
        options.optimized_model_filepath = str(folder / OPTIMIZED)
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


def _kept_calls(profile: Profile, bursts: Sequence[Burst], threads: int) -> TracedCalls:
    """Join the profile with our own clock's samples; drop warm-up and first calls of bursts."""
    # Binding and the first call ran under the profiler too: the last calls are those of bursts.
    skipped = profile.op_s.shape[0] - sum(b.n_samples for b in bursts)
    if skipped < 0:
        raise MeasurementError(
            f"onnxruntime's profile lacks {-skipped} calls: it keeps a million events at most, "
            "which a model with fewer operators does not reach"
        )
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


def read_profile(events: Sequence[Mapping[str, Any]]) -> Profile:
    """Read the events of a profile, call by call.

    Raises:
        MeasurementError: it holds no operators.
    """
    columns: dict[tuple[str, str], int] = {}
    n_inputs: list[int] = []
    cells: list[tuple[int, int, float, float]] = []
    n_calls = 0
    for nodes, end_us in _calls(events):
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
