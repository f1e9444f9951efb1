"""Real traces of ONNX Runtime: every operator is attributed, changes of layout are seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from hwprof.devices import device_ref, open_device, ort_calibration
from hwprof.devices.ort_profile import _written, read_profile
from hwprof.errors import DeviceError, MeasurementError
from hwprof.graph import network_graph, piece_graph, to_onnx
from hwprof.measure import wire
from hwprof.measure.process import Worker, WorkerFault
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.parts.grouping import group_operators, part_times
from hwprof.parts.model_nodes import nodes_of_file, nodes_of_graph
from hwprof.parts.tracing import _trace
from hwprof.protocols import OpTrace
from hwprof.space import get_space
from hwprof.space.pieces import MBConvPiece
from hwprof.workload import Workload
from tests.core.scripted import block

BLOCK = MBConvPiece(
    in_channels=16,
    size_px=14,
    out_channels=16,
    kernel=5,
    expand=3,
    stride=1,
    act="hswish",
    squeeze_excite=True,
    shortcut=True,
    bn_eps=1e-3,
)


@pytest.fixture(autouse=True)
def _calibrated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here looks at a time, so the shortest calibration will do."""
    monkeypatch.setattr(ort_calibration, "PASSES", 1)


def trace_of(workload: Workload) -> OpTrace:
    adapter = open_device(device_ref("cpu", DeviceOptions()))
    executable = adapter.compile(workload, plan_for("quick"))
    try:
        return executable.trace()
    finally:
        executable.close()
        adapter.close()


def test_every_operator_of_a_network_belongs_to_a_block() -> None:
    space = get_space("mobile-mini")
    arch = space.sample(np.random.default_rng(0))
    trace = trace_of(Workload.network(arch))
    scopes = tuple(place.scope for place in space.pieces(arch))
    nodes = nodes_of_graph(network_graph(space, arch))
    groups = group_operators(trace.ops, nodes, scopes)
    assert groups.grouped_by == "blocks"
    assert set(groups.parts) == set(scopes)
    # Blocks run one after another, so their operators stand together.
    runs = [p for i, p in enumerate(groups.parts) if i == 0 or p != groups.parts[i - 1]]
    assert runs == list(scopes)
    parts = part_times(trace, groups, {})
    total_s = math.fsum(op.time_s for op in trace.ops) + trace.outside_s
    assert math.fsum(p.traced_s for p in parts) == pytest.approx(total_s)
    assert math.isfinite(trace.slowdown)
    assert trace.slowdown > 0
    assert all(op.removed_s > 0 for op in trace.ops)


def test_an_isolated_block_shows_its_changes_of_layout() -> None:
    trace = trace_of(Workload.block(BLOCK, "block"))
    reorders = [op for op in trace.ops if op.op_type in ("ReorderInput", "ReorderOutput")]
    if not reorders:
        pytest.skip("ONNX Runtime does not block channels on this CPU")
    groups = group_operators(trace.ops, nodes_of_graph(piece_graph(BLOCK)))
    kinds = {op.name: kind for op, kind in zip(trace.ops, groups.kinds, strict=True)}
    assert all(kinds[op.name] == "layout" for op in reorders)
    assert {k for name, k in kinds.items() if "Reorder" not in name} == {"block"}


def test_a_file_is_traced_back_to_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "block.onnx"
    path.write_bytes(to_onnx(piece_graph(BLOCK)))
    trace = trace_of(Workload.from_file(path))
    assert any(op.outputs for op in trace.ops)
    if any(op.op_type == "HardSigmoid" for op in trace.ops):
        pytest.skip("ONNX Runtime is old and fuses no hard-swish: more operators than make parts")
    groups = group_operators(trace.ops, nodes_of_file(path))
    assert groups.grouped_by == "operators"
    written = {f"mbconv/{name}" for name in ("expand", "depthwise", "se/scale", "project")}
    assert written <= set(groups.parts)


def test_a_profile_is_read_call_by_call() -> None:
    def node(name: str, ts: int, dur: int, n_inputs: int = 1) -> dict[str, object]:
        arguments = {"op_name": "Conv", "input_type_shape": [{}] * n_inputs}
        return {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "ts": ts,
            "dur": dur,
            "args": arguments,
        }

    def session(name: str, ts: int, dur: int) -> dict[str, object]:
        return {"cat": "Session", "name": name, "ts": ts, "dur": dur, "args": {}}

    events = [
        session("session_initialization", 0, 50),
        node("a", 100, 10, 3),
        node("b", 115, 20),
        session("SequentialExecutor::Execute", 98, 40),
        session("model_run", 95, 50),
        # A loop: its event ends after, and holds, those of its body.
        node("b", 205, 10),
        node("b", 220, 10),
        node("a", 200, 40, 3),
        session("SequentialExecutor::Execute", 198, 44),
        session("model_run", 195, 50),
    ]
    profile = read_profile(events)
    assert profile.names == ("a", "b")
    assert profile.n_inputs.tolist() == [3, 1]
    assert profile.runs.tolist() == [1.0, 1.5]
    # Half a microsecond is what rounding down to whole ones loses on average.
    np.testing.assert_allclose(profile.op_s * 1e6, [[10.5, 20.5], [5.0, 21.0]])
    np.testing.assert_allclose(profile.gap_s * 1e6, [[4.5, 2.5], [0.0, 16.0]])


def test_an_empty_profile_is_no_trace() -> None:
    with pytest.raises(MeasurementError, match="no operators"):
        read_profile([])


def test_a_profile_for_which_there_was_no_space(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('[{"name": "cut of')
    with pytest.raises(MeasurementError, match="free some space in"):
        _written(profile)


@pytest.mark.parametrize(
    ("device", "told"),
    [("cpu", "^a: tracing failed: full$"), ("tflite", "gives no operator trace")],
)
def test_a_device_that_traces_is_not_said_to_be_unable(device: str, told: str) -> None:
    class Full:
        def request(self, op: str, timeout_s: float, **fields: object) -> wire.Frame:
            if op == "trace":
                raise WorkerFault("refused", "full", lost=False)
            return wire.Frame(header={"ok": True})

    with pytest.raises(DeviceError, match=told):
        _trace(cast("Worker", Full()), block("a"), plan_for("quick"), device)
