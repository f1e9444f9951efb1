"""Faults that really happen, no script: each is typed, and the rest of the campaign goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from hwprof.measure.engine import measure
from hwprof.measure.process import living_pids
from hwprof.measure.records import DeviceOptions, DeviceRef, Failure, Measurement, plan_for
from hwprof.workload import Workload
from tests.core.scripted import MemorySink

FUNCTIONS = """
import os, signal, time

calls = 0

def good():
    return sum(range(2000))

def hangs():
    time.sleep(600)

def exits():
    os._exit(7)

def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)

def ends_later():
    global calls
    calls += 1
    if calls == 10:
        os._exit(8)

def raises():
    raise RuntimeError("no such luck")

def wants_memory():
    bytearray(1 << 60)
"""
FAULTS = {
    "hangs": ("check", "hung", 2, "within 3 s"),
    "exits": ("check", "died", 2, "exit code 7"),
    "is_killed": ("check", "died", 2, "SIGKILL"),
    "ends_later": ("warmup", "died", 2, "exit code 8"),
    "raises": ("check", "refused", 1, "RuntimeError: no such luck"),
    "wants_memory": ("check", "out_of_memory", 1, "out of memory"),
    "is_not_there": ("compile", "model", 1, "cannot import"),
}


@pytest.mark.slow
def test_what_a_function_does_to_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    ref = DeviceRef(name="python", factory="hwprof.devices.python_call:PythonCallAdapter")
    plan = plan_for("quick", workers=2, looks=(3,), round_s=0.0, timeout_s=3.0)
    names = ["good", *FAULTS]
    workloads = [Workload.from_callable(f"users_functions:{name}", ()) for name in names]
    sink = MemorySink()
    found = {
        r.workload.label.partition(":")[2]: r for r in measure(workloads, ref, plan, sink=sink)
    }
    assert set(found) == set(names)
    assert isinstance(found.pop("good"), Measurement)
    for name, (stage, kind, attempts, words) in FAULTS.items():
        failure = found[name]
        assert isinstance(failure, Failure), name
        assert (failure.stage, failure.kind, failure.attempts) == (stage, kind, attempts), failure
        assert words in failure.message
    # Never a number, not even a burst, and each is told once.
    assert len(sink.failures) == len(FAULTS)
    assert {m.workload.label for m in sink.measurements} == {"users_functions:good"}
    assert living_pids() == ()


def test_what_a_file_does_to_the_runtime(tmp_path: Path) -> None:
    files = {
        "good": saved(tmp_path / "good.onnx", ["Abs", "Relu"]),
        "not a number": saved(tmp_path / "nan.onnx", ["Abs", "Neg", "Log"]),
        "unknown operator": saved(tmp_path / "odd.onnx", ["Teleport"], domain="star.trek"),
        "damaged": tmp_path / "damaged.onnx",
        "empty": tmp_path / "empty.onnx",
    }
    files["damaged"].write_bytes(files["good"].read_bytes()[:40])
    files["empty"].write_bytes(b"")
    ref = DeviceRef(
        name="cpu", factory="hwprof.devices.cpu:CpuAdapter", options=DeviceOptions(threads=1)
    )
    plan = plan_for("quick", workers=2, looks=(3,), round_s=0.0)
    workloads = {Workload.from_file(path).key: name for name, path in files.items()}
    results = measure([Workload.from_file(path) for path in files.values()], ref, plan)
    found = {workloads[r.workload.key]: r for r in results}
    assert isinstance(found["good"], Measurement)
    bad = {name: r for name, r in found.items() if isinstance(r, Failure)}
    assert set(bad) == set(files) - {"good"}
    assert (bad["not a number"].stage, bad["not a number"].kind) == ("check", "non_finite")
    assert bad["unknown operator"].kind in ("refused", "model")
    assert "Teleport" in bad["unknown operator"].message
    for name in ("damaged", "empty"):
        assert (bad[name].stage, bad[name].kind) == ("compile", "model")
    assert all(f.attempts == 1 and not f.retryable for f in bad.values())


def saved(path: Path, op_types: list[str], **more: Any) -> Path:
    """Write a chain of operators on eight numbers."""
    helper = onnx.helper
    nodes = [
        helper.make_node(op_type, [f"t{i}"], [f"t{i + 1}"], **more)
        for i, op_type in enumerate(op_types)
    ]
    shape = (onnx.TensorProto.FLOAT, [8])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("t0", *shape)],
        [helper.make_tensor_value_info(f"t{len(nodes)}", *shape)],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(model.SerializeToString())
    return path
