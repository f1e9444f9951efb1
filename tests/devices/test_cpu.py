"""ONNX Runtime on the CPU: binding of users' inputs, edited files, traces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from hwprof.devices.cpu import CpuAdapter, CpuExecutable, safe_inputs
from hwprof.errors import CompileError, MeasurementError, ModelError
from hwprof.measure.engine import measure
from hwprof.measure.records import DeviceOptions, DeviceRef, Failure, plan_for
from hwprof.space.pieces import ConvPiece
from hwprof.workload import InputSpec, Workload

FLOAT, INT64, BOOL = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.INT64,
    onnx.TensorProto.BOOL,
)
PLAN = plan_for("quick")


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: Any = ()
) -> Path:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        initializer=[onnx.numpy_helper.from_array(a, n) for n, a in constants],
    )
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    """Y = x + y with an open batch."""
    node = onnx.helper.make_node("Add", ["x", "y"], ["z"])
    shape = ["batch", 4]
    return save(
        tmp_path / "add.onnx",
        [node],
        [("x", FLOAT, shape), ("y", FLOAT, shape)],
        [("z", FLOAT, shape)],
    )


def embedding(path: Path, rows: int) -> Path:
    """Ids of an open length into a table of ``rows`` rows, where a mask is true."""
    nodes = [
        onnx.helper.make_node("Gather", ["table", "ids"], ["rows"]),
        onnx.helper.make_node("Where", ["mask", "rows", "zero"], ["y"]),
    ]
    return save(
        path,
        nodes,
        [("ids", INT64, ["length"]), ("mask", BOOL, ["length", 1])],
        [("y", FLOAT, ["length", 2])],
        [
            ("table", np.ones((rows, 2), np.float32)),
            ("zero", np.zeros((1, 2), np.float32)),
        ],
    )


def spec(name: str, *shape: int, dtype: str = "float32") -> InputSpec:
    return InputSpec(name=name, shape=shape, dtype=dtype)


def compiled(workload: Workload, **options: Any) -> CpuExecutable:
    return CpuAdapter(DeviceOptions(**options)).compile(workload, PLAN)


def test_several_inputs_with_their_open_dimension_bound(two_inputs: Path) -> None:
    workload = Workload.from_file(two_inputs, (spec("x", 3, 4), spec("y", 3, 4)))
    executable = compiled(workload)
    assert executable.outputs()[0].shape == (3, 4)
    given = {"x": np.full((3, 4), 2, np.float32), "y": np.full((3, 4), 3, np.float32)}
    np.testing.assert_array_equal(executable.outputs(given)[0], np.full((3, 4), 5))


def large_weights(folder: Path) -> Path:
    """Write y = x + 1 with the ones, 4096 bytes, in a file of their own."""
    weight = onnx.numpy_helper.from_array(np.ones(1024, dtype=np.float32), "w")
    ends = [onnx.helper.make_tensor_value_info(n, FLOAT, [1024]) for n in "xy"]
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[opset])
    path = folder / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.onnx.data")
    return path


def test_weights_in_a_file_of_their_own_count_for_the_size(tmp_path: Path) -> None:
    path = large_weights(tmp_path)
    found = compiled(Workload.from_file(path)).loaded
    assert found.artifact_bytes == path.stat().st_size + 4096


def test_weights_in_a_file_that_is_cut_off_are_the_models_fault(tmp_path: Path) -> None:
    path = large_weights(tmp_path)
    (tmp_path / "net.onnx.data").write_bytes(bytes(4000))
    with pytest.raises(ModelError, match="no model that onnxruntime can read"):
        compiled(Workload.from_file(path))


def test_open_dimension_is_named_with_what_to_give(two_inputs: Path) -> None:
    words = r"input 'y' has the open dimension 'batch' .* --input y=1x4:float32"
    with pytest.raises(ModelError, match=words):
        compiled(Workload.from_file(two_inputs, (spec("x", 3, 4),)))


def test_all_open_inputs_are_named_at_once(two_inputs: Path) -> None:
    with pytest.raises(
        ModelError, match=r"input 'x' .* --input x=1x4:float32 --input y=1x4:float32"
    ):
        compiled(Workload.from_file(two_inputs))


def test_of_an_open_length_no_number_is_proposed(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    shape = ["batch", 3, "height", "width"]
    path = save(tmp_path / "m.onnx", [node], [("x", FLOAT, shape)], [("y", FLOAT, shape)])
    with pytest.raises(ModelError, match=r"--input x=1x3xNxN:float32, with a size of yours for"):
        compiled(Workload.from_file(path))


def test_an_output_of_another_rank_than_the_model_declares_is_run(tmp_path: Path) -> None:
    # Of a shape that is an input no rank is inferred that a wrong one would be refused for.
    nodes = [onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = save(
        tmp_path / "m.onnx",
        nodes,
        [("x", FLOAT, [1]), ("shape", INT64, ["rank"])],
        [("y", FLOAT, [1, "length"])],
    )
    shape = InputSpec(name="shape", shape=(3,), dtype="int64", value=1)
    executable = compiled(Workload.from_file(path, (shape,)))
    executable.call()
    assert executable.outputs()[0].shape == (1, 1, 1)
    assert executable.trace().ops[0].op_type == "Reshape"


def switched(path: Path) -> Path:
    """Rows of x, ``rows`` times over: what a model does follows from a single number."""
    nodes = [onnx.helper.make_node("Tile", ["x", "rows"], ["y"])]
    return save(path, nodes, [("x", FLOAT, [4]), ("rows", INT64, [1])], [("y", FLOAT, ["n"])])


def test_a_single_number_that_is_drawn_is_told(tmp_path: Path) -> None:
    executable = compiled(Workload.from_file(switched(tmp_path / "m.onnx")))
    (told,) = executable.loaded.warnings
    assert "input 'rows' was drawn at random as" in told
    assert "--input rows=1:int64=VALUE" in told


def test_a_number_that_is_given_is_taken(tmp_path: Path) -> None:
    given = InputSpec(name="rows", shape=(1,), dtype="int64", value=7)
    executable = compiled(Workload.from_file(switched(tmp_path / "m.onnx"), (given,)))
    assert executable.outputs()[0].shape == (28,)
    assert executable.loaded.warnings == ()


def test_a_refusal_tells_what_was_drawn(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Reshape", ["x", "rows"], ["y"])]
    ends = [("x", FLOAT, [2, 3]), ("rows", INT64, [1])]
    path = save(tmp_path / "m.onnx", nodes, ends, [("y", FLOAT, ["n"])])
    words = r"'rows' was drawn at random as .* --input rows=1:int64"
    with pytest.raises(MeasurementError, match=words):
        compiled(Workload.from_file(path))


def test_outputs_that_are_no_tensors_of_numbers_are_named(tmp_path: Path) -> None:
    helper, types = onnx.helper, onnx.TensorProto
    shape = [2, 4]
    sequence = helper.make_tensor_sequence_value_info("parts", FLOAT, None)
    text = helper.make_tensor_value_info("words", types.STRING, shape)
    given = helper.make_tensor_value_info("x", FLOAT, shape)
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0),
        helper.make_node("Cast", ["x"], ["words"], to=types.STRING),
    ]
    for node, output in zip(nodes, (sequence, text), strict=True):
        graph = helper.make_graph([node], "g", [given], [output])
        model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])
        path = tmp_path / f"{output.name}.onnx"
        path.write_bytes(model.SerializeToString())
        words = rf"output '{output.name}' is of type .*; expected tensors of numbers"
        with pytest.raises(ModelError, match=words):
            compiled(Workload.from_file(path))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (spec("q", 3, 4), r"no input 'q'; its inputs are \['x', 'y'\]"),
        (spec("x", 3, 5), r"shape \[3, 5\]; the model expects \['batch', 4\]"),
        (spec("x", 4), r"shape \[4\]"),
        (spec("x", 3, 4, dtype="int64"), r"expects float32: use --input x=3x4:float32"),
    ],
)
def test_inputs_that_do_not_fit(two_inputs: Path, given: InputSpec, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        compiled(Workload.from_file(two_inputs, (given, spec("y", 3, 4))))


@pytest.mark.parametrize(("rows", "largest"), [(5000, 999), (2, 1)])
def test_ids_stay_within_the_vocabulary(tmp_path: Path, rows: int, largest: int) -> None:
    path = embedding(tmp_path / "ids.onnx", rows)
    workload = Workload.from_file(
        path, (spec("ids", 64, dtype="int64"), spec("mask", 64, 1, dtype="bool"))
    )
    executable = compiled(workload)
    ids = executable._inputs["ids"]
    assert 0 < int(ids.max()) <= largest
    assert executable.check().finite
    assert executable.burst(0.0, 5, "hot").n_samples >= 5


def test_ids_that_no_choice_suits_are_an_error(tmp_path: Path) -> None:
    path = embedding(tmp_path / "ids.onnx", 1)
    workload = Workload.from_file(
        path, (spec("ids", 64, dtype="int64"), spec("mask", 64, 1, dtype="bool"))
    )
    with pytest.raises(MeasurementError, match="out of data bounds"):
        compiled(workload)


def test_a_mask_that_overflows_is_drawn_again(tmp_path: Path) -> None:
    """The way in which many transformers hide what is padded: (1 - mask) · smallest number."""
    nodes = [
        onnx.helper.make_node("Cast", ["mask"], ["kept"], to=FLOAT),
        onnx.helper.make_node("Sub", ["one", "kept"], ["hidden"]),
        onnx.helper.make_node("Mul", ["hidden", "lowest"], ["added"]),
        onnx.helper.make_node("Softmax", ["added"], ["y"]),
    ]
    constants = [
        ("one", np.ones(1, np.float32)),
        ("lowest", np.full(1, np.finfo(np.float32).min)),
    ]
    path = save(
        tmp_path / "mask.onnx", nodes, [("mask", INT64, [64])], [("y", FLOAT, [64])], constants
    )
    workload = Workload.from_file(path)
    executable = compiled(workload)
    assert int(executable._inputs["mask"].max()) == 1
    assert executable.check().finite
    assert int(safe_inputs([spec("mask", 64, dtype="int64")], workload, PLAN)["mask"].max()) == 1


@pytest.mark.parametrize("dtype", ["UINT16", "UINT32", "UINT64"])
def test_unsigned_inputs_are_drawn(tmp_path: Path, dtype: str) -> None:
    node = onnx.helper.make_node("Cast", ["x"], ["y"], to=FLOAT)
    kind = getattr(onnx.TensorProto, dtype)
    path = save(tmp_path / "u.onnx", [node], [("x", kind, [64])], [("y", FLOAT, [64])])
    (found,) = compiled(Workload.from_file(path)).outputs()
    assert 0 < found.max() < 1000


def test_an_open_number_of_dimensions_is_bound(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Add", ["x", "s"], ["y"])
    path = save(
        tmp_path / "open.onnx", [node], [("x", FLOAT, None), ("s", FLOAT, [])], [("y", FLOAT, None)]
    )
    (found,) = compiled(Workload.from_file(path, (spec("x", 2, 3),))).outputs()
    assert found.shape == (2, 3)
    with pytest.raises(ModelError, match="'x' has an open number of dimensions: give its shape"):
        compiled(Workload.from_file(path))


def test_scalars_are_told_from_open_inputs_without_onnx_and_its_copy_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [
        onnx.helper.make_node("Add", ["x", "w"], ["a"]),
        onnx.helper.make_node("Mul", ["a", "s"], ["y"]),
    ]
    path = save(
        tmp_path / "scalar.onnx",
        nodes,
        [("x", FLOAT, [300]), ("s", FLOAT, [])],
        [("y", FLOAT, [300])],
        [("w", np.ones(300, np.float32))],
    )
    shapeless = save(
        tmp_path / "open.onnx",
        nodes[1:],
        [("a", FLOAT, None), ("s", FLOAT, [])],
        [("y", FLOAT, None)],
    )
    for package in ("onnx", "onnx.helper"):  # a board has only the runtime
        monkeypatch.setitem(sys.modules, package, None)
    assert compiled(Workload.from_file(path))._inputs["s"].shape == ()
    with pytest.raises(ModelError, match="'a' has an open number of dimensions: give its shape"):
        compiled(Workload.from_file(shapeless))


def test_inputs_are_seeded_and_never_zero() -> None:
    piece = ConvPiece(
        in_channels=3, size_px=8, out_channels=4, kernel=3, stride=1, act="relu", bn_eps=1e-5
    )
    workload = Workload.block(piece, "conv")
    first, again = (compiled(workload, batch=2)._inputs["input"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 3, 8, 8)
    assert np.count_nonzero(first) == first.size


def test_edited_file_is_not_the_one_that_was_named(two_inputs: Path) -> None:
    workload = Workload.from_file(two_inputs, (spec("x", 3, 4), spec("y", 3, 4)))
    two_inputs.write_bytes(two_inputs.read_bytes() + b"\x00")
    with pytest.raises(ModelError, match="has changed since"):
        compiled(workload)


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"\x08\x09"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no model that onnxruntime can read"):
        compiled(Workload.from_file(path))


@pytest.mark.parametrize(
    ("op", "domain", "kind"),
    [
        ("Teleport", "", FLOAT),
        ("Teleport", "star.trek", FLOAT),
        ("Erf", "", onnx.TensorProto.DOUBLE),  # there is one, but not for this type
    ],
)
def test_operator_that_the_runtime_lacks_is_the_devices_refusal(
    tmp_path: Path, op: str, domain: str, kind: int
) -> None:
    node = onnx.helper.make_node(op, ["x"], ["y"], domain=domain)
    path = save(tmp_path / "odd.onnx", [node], [("x", kind, [1])], [("y", kind, [1])])
    if domain:
        model = onnx.load(path)
        model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
        onnx.save(model, path)
    with pytest.raises(CompileError, match=rf"lacks the operator \S*{op}"):
        compiled(Workload.from_file(path))


def test_a_model_that_no_memory_holds_is_a_failure_of_its_own(tmp_path: Path) -> None:
    """For real: 40 thousand million floats are beyond any machine that runs the tests."""
    nodes = [
        onnx.helper.make_node("Expand", ["x", "shape"], ["wide"]),
        onnx.helper.make_node("ReduceSum", ["wide"], ["y"], keepdims=0),
    ]
    shape = np.array([40_000_000_000], dtype=np.int64)
    path = save(
        tmp_path / "huge.onnx", nodes, [("x", FLOAT, [1])], [("y", FLOAT, [])], [("shape", shape)]
    )
    ref = DeviceRef(name="cpu", factory="hwprof.devices.cpu:CpuAdapter")
    (failure,) = measure([Workload.from_file(path)], ref, plan_for("quick", workers=1))
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("compile", "out_of_memory")


@pytest.mark.parametrize(
    ("workload", "options", "words"),
    [
        (Workload.from_callable("a.b:c", ()), {}, "use --device cpu-torch"),
        (Workload(role="model", label="m.tflite", path="/m.tflite"), {}, "no .onnx file"),
        (Workload(role="model", label="m", path="/m.onnx"), {"precision": "int8"}, "fp32 only"),
    ],
)
def test_refusals_say_what_would_help(
    workload: Workload, options: dict[str, Any], words: str
) -> None:
    support = CpuAdapter(DeviceOptions(**options)).supports(workload)
    assert not support.ok
    assert words in support.reason


def test_trace_names_the_operators_and_its_own_slowdown(two_inputs: Path) -> None:
    workload = Workload.from_file(two_inputs, (spec("x", 3, 4), spec("y", 3, 4)))
    trace = compiled(workload).trace()
    assert [op.op_type for op in trace.ops] == ["Add"]
    # Less what the profiler adds, an operator on twelve numbers may come out around zero.
    assert trace.ops[0].time_s + trace.ops[0].removed_s > 0
    assert trace.slowdown > 0
