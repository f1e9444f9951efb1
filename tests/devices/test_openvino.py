"""OpenVINO: users' own files, what it refuses, and its reading of our .tflite files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

from hwprof.devices.openvino import OpenvinoAdapter, OpenvinoExecutable
from hwprof.errors import (
    CompileError,
    DeviceError,
    DeviceUnavailableError,
    MeasurementError,
    ModelError,
    PlanError,
)
from hwprof.graph import piece_graph
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.testing import PIECES, block, reference_outputs
from hwprof.workload import InputSpec, Workload

PLAN = plan_for("quick")


def compiled(workload: Workload, **options: Any) -> OpenvinoExecutable:
    return OpenvinoAdapter(DeviceOptions(**options)).compile(workload, PLAN)


def save(path: Path, op: str, domain: str = "") -> Path:
    """Write a model that computes z = op(x, y) with an open batch."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, float32, ["batch", 4]) for name in "xyz"]
    node = helper.make_node(op, ["x", "y"], ["z"], domain=domain)
    graph = helper.make_graph([node], "g", values[:2], values[2:])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("star.trek", 1)]
    model = helper.make_model(graph, ir_version=9, opset_imports=opsets)
    path.write_bytes(model.SerializeToString())
    return path


def bound(batch: int = 3) -> tuple[InputSpec, ...]:
    return tuple(InputSpec(name=name, shape=(batch, 4)) for name in "xy")


def test_several_inputs_with_their_open_dimension_bound(tmp_path: Path) -> None:
    executable = compiled(Workload.from_file(save(tmp_path / "m.onnx", "Sub"), bound()))
    given = {"y": np.full((3, 4), 2, np.float32), "x": np.full((3, 4), 5, np.float32)}
    first = executable.outputs()[0]
    np.testing.assert_array_equal(executable.outputs(given)[0], np.full((3, 4), 3))
    executable.call()
    np.testing.assert_array_equal(executable._request.get_output_tensor(0).data, first)


def test_open_dimension_is_named_with_what_to_give(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "Add")
    with pytest.raises(ModelError, match=r"input 'y' has the open dimension .* --input y=1x4"):
        compiled(Workload.from_file(path, bound()[:1]))


def test_a_sound_file_that_it_cannot_convert_is_not_called_damaged(tmp_path: Path) -> None:
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, float32, None) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])], "g", *[[e] for e in ends], [weight]
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    path = tmp_path / "conv.onnx"
    path.write_bytes(model.SerializeToString())
    workload = Workload.from_file(path, (InputSpec(name="x", shape=(1, 1, 8)),))
    found = OpenvinoAdapter(DeviceOptions()).supports(workload)
    assert not found.ok
    assert "cannot convert the model" in found.reason
    assert "Conv" in found.reason
    with pytest.raises(CompileError, match="cannot convert the model"):
        compiled(workload)


def gather(path: Path, rows: int) -> Path:
    """Write rows of a table by ids, times a scalar."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["ids"], ["wide"], to=kinds.INT64),
        helper.make_node("Gather", ["table", "wide"], ["rows"]),
        helper.make_node("Mul", ["rows", "scale"], ["y"]),
    ]
    values = [
        helper.make_tensor_value_info(*given)
        for given in (
            ("ids", kinds.INT32, ["n"]),
            ("scale", kinds.FLOAT, []),
            ("y", kinds.FLOAT, ["n", 4]),
        )
    ]
    table = onnx.numpy_helper.from_array(np.ones((rows, 4), np.float32), "table")
    graph = helper.make_graph(nodes, "g", values[:2], values[2:], [table])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("rows", "most"), [(5000, 999), (900, 1)])
def test_ids_stay_within_the_table_and_scalars_are_scalars(
    tmp_path: Path, rows: int, most: int
) -> None:
    """OpenVINO itself reads zeros behind the table, without an error."""
    given = (InputSpec(name="ids", shape=(300,), dtype="int32"),)
    executable = compiled(Workload.from_file(gather(tmp_path / "m.onnx", rows), given))
    assert 0 < int(executable._inputs["ids"].max()) <= most
    (found,) = executable.outputs()
    assert np.count_nonzero(found) == found.size
    beyond = {**executable._inputs, "ids": np.full(300, rows, np.int32)}
    with pytest.raises(MeasurementError, match=f"a table of {rows} rows"):
        executable.outputs(beyond)


def cast(path: Path, given: int, made: int, shape: list[int] | None) -> Path:
    helper = onnx.helper
    node = helper.make_node("Cast", ["x"], ["y"], to=made)
    ends = [helper.make_tensor_value_info(n, t, shape) for n, t in (("x", given), ("y", made))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(model.SerializeToString())
    return path


def test_bfloat16_is_not_taken_for_float16(tmp_path: Path) -> None:
    kinds = onnx.TensorProto
    path = cast(tmp_path / "out.onnx", kinds.FLOAT, kinds.BFLOAT16, [3])
    values = np.array([1.0, -2.5, 2.0**100], np.float32)
    (found,) = compiled(Workload.from_file(path)).outputs({"x": values})
    np.testing.assert_array_equal(found, values)
    path = cast(tmp_path / "in.onnx", kinds.BFLOAT16, kinds.FLOAT, [3])
    with pytest.raises(ModelError, match="is of type bf16, which cannot be drawn"):
        compiled(Workload.from_file(path))


def test_an_open_number_of_dimensions_is_named_and_bound(tmp_path: Path) -> None:
    kinds = onnx.TensorProto
    path = cast(tmp_path / "m.onnx", kinds.FLOAT, kinds.INT32, None)
    with pytest.raises(ModelError, match=r"open number of dimensions: .* --input x=1x3x224x224"):
        compiled(Workload.from_file(path))
    given = (InputSpec(name="x", shape=(2, 3)),)
    assert compiled(Workload.from_file(path, given)).outputs()[0].shape == (2, 3)


def test_fewer_threads_than_asked_for_are_named() -> None:
    cpus = os.cpu_count() or 1
    with pytest.raises(PlanError, match=rf"openvino takes \d+ threads here, not the {2 * cpus}"):
        compiled(block("conv"), threads=2 * cpus)


def test_a_variable_that_makes_fp32_coarser_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    (said,) = OpenvinoAdapter(DeviceOptions()).warnings
    assert "ONEDNN_DEFAULT_FPMATH_MODE=BF16" in said
    assert "ONEDNN_DEFAULT_FPMATH_MODE" not in os.environ


def test_operators_that_it_lacks_are_named(tmp_path: Path) -> None:
    workload = Workload.from_file(save(tmp_path / "m.onnx", "Teleport", "star.trek"), bound())
    support = OpenvinoAdapter(DeviceOptions()).supports(workload)
    assert not support.ok
    assert "Teleport" in support.reason
    with pytest.raises(CompileError, match=r"lacks the operators star\.trek\.Teleport"):
        compiled(workload)


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_damaged_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(b"\x08\x09no model" * 20)
    workload = Workload.from_file(path)
    assert OpenvinoAdapter(DeviceOptions()).supports(workload).ok
    with pytest.raises(ModelError, match="no model that openvino can read") as caught:
        compiled(workload)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("workload", "options", "words"),
    [
        (Workload.from_callable("a.b:c", ()), {}, "use --device cpu-torch"),
        (Workload(role="model", label="m.pb", path="/m.pb"), {}, ".onnx, .tflite"),
        (block("conv"), {"precision": "bf16"}, "fp32 only"),
        (block("conv"), {"precision": "int8"}, "fp32 only"),
    ],
)
def test_refusals_say_what_would_help(
    workload: Workload, options: dict[str, Any], words: str
) -> None:
    support = OpenvinoAdapter(DeviceOptions(**options)).supports(workload)
    assert not support.ok
    assert words in support.reason


@pytest.mark.parametrize("threads", [1, 2])
def test_options_reach_the_runtime(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = OpenvinoAdapter(DeviceOptions(threads=threads))
    made = []
    core = adapter._core

    class Spy:
        read_model = core.read_model

        def compile_model(self, *arguments: Any) -> Any:
            made.append(core.compile_model(*arguments))
            return made[0]

    monkeypatch.setattr(adapter, "_core", Spy())
    adapter.compile(block("conv"), PLAN)
    assert made[0].get_property("INFERENCE_NUM_THREADS") == threads
    assert made[0].get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert made[0].get_property("NUM_STREAMS") == 1


def test_trace_is_refused_with_the_reason() -> None:
    with pytest.raises(DeviceError, match="averages over all calls"):
        compiled(block("conv")).trace()


@pytest.mark.parametrize("name", ["mbconv", "mbconv strided", "bottleneck", "cell", "head"])
def test_it_reads_our_tflite_as_the_standard_reads_our_onnx(tmp_path: Path, name: str) -> None:
    """A second reader of the written files: LiteRT might forgive what another does not."""
    pytest.importorskip("ai_edge_litert")
    from hwprof.devices.litert.tflite_writer import nchw, nhwc, to_tflite

    graph = piece_graph(PIECES[name])
    (tmp_path / "m.tflite").write_bytes(to_tflite(graph))
    executable = compiled(Workload.from_file(tmp_path / "m.tflite"))
    shape = (1, *graph.inputs[0].shape)
    image = np.random.default_rng(3).standard_normal(shape, dtype=np.float32)
    found = nchw(executable.outputs({"input": nhwc(image)})[0])
    (expected,) = reference_outputs(block(name), {"input": image})
    error = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()
    assert error <= 1e-5 * float(np.abs(expected).max())


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceUnavailableError, match=r"pip install 'hwprof\[openvino\]'"):
        OpenvinoAdapter(DeviceOptions())


def test_opening_it_starts_no_process_that_reports_over_the_network(tmp_path: Path) -> None:
    code = """
import multiprocessing.process as process
process.BaseProcess.start = lambda self: print("started", self)
from hwprof.devices.openvino import OpenvinoAdapter
from hwprof.measure.records import DeviceOptions
OpenvinoAdapter(DeviceOptions())
"""
    # Whoever runs this may have opted out at home.
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
