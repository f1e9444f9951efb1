"""LiteRT: users' own files, pieces of the delegate, layouts, the older runtime."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from hwprof.devices.litert import tflite
from hwprof.devices.litert.tflite import TfliteAdapter, TfliteExecutable
from hwprof.devices.litert.tflite_file import TfliteFile
from hwprof.devices.litert.tflite_interpreter import Runtime, load_runtime
from hwprof.devices.litert.tflite_writer import nhwc, to_tflite
from hwprof.errors import (
    CompileError,
    DeviceError,
    DeviceUnavailableError,
    MeasurementError,
    ModelError,
)
from hwprof.graph import piece_graph
from hwprof.measure.memory import MemoryMeter
from hwprof.measure.records import DeviceOptions, plan_for
from hwprof.space.pieces import ConvPiece
from hwprof.testing import PIECES, block
from hwprof.workload import InputSpec, Workload

PLAN = plan_for("quick")
SHAPE = (1, 4, 4, 8)


def compiled(workload: Workload, **options: Any) -> TfliteExecutable:
    return TfliteAdapter(DeviceOptions(**options)).compile(workload, PLAN)


def chain(path: Path, *codes: str, open_batch: bool = False) -> Path:
    """Operators on one tensor each, in a row."""
    file = TfliteFile("chain")
    names = ["x", *(f"{code.lower()}{i}" for i, code in enumerate(codes))]
    tensors = [file.tensor(name, SHAPE) for name in names]
    options = {"L2_NORMALIZATION": "L2NormOptionsT", "SIGN": "SignOptionsT"}
    for i, code in enumerate(codes):
        settings = getattr(file.schema, options[code])() if code in options else None
        file.operator(code, [tensors[i]], tensors[i + 1], settings)
    model = file.to_bytes({"x": tensors[0]}, {"y": tensors[-1]})
    path.write_bytes(_edited(model, _open_batches) if open_batch else model)
    return path


def _edited(model: bytes, change: Any) -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    read = schema.ModelT.InitFromPackedBuf(model, 0)
    change(read)
    builder = flatbuffers.Builder(1024)
    builder.Finish(read.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _open_batches(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.shapeSignature = [-1, *SHAPE[1:]]


def _teleport(model: Any) -> None:
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32
    model.operatorCodes[0].customCode = "Teleport"


def _future(model: Any) -> None:
    model.operatorCodes[0].version = 99


def test_a_users_file_is_run_as_it_is(tmp_path: Path) -> None:
    executable = compiled(Workload.from_file(chain(tmp_path / "m.tflite", "RELU")))
    image = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    np.testing.assert_array_equal(executable.outputs({"x": image})[0], np.maximum(image, 0))
    assert executable.loaded.artifact_bytes == (tmp_path / "m.tflite").stat().st_size


def test_blocks_come_and_go_as_nchw() -> None:
    executable = compiled(block("bottleneck"), batch=2)
    assert executable._inputs["input"].shape == (2, 16, 8, 8)
    assert executable.outputs()[0].shape == (2, 32, 4, 4)
    file = to_tflite(piece_graph(PIECES["bottleneck"]), batch=2)
    assert executable.loaded.artifact_bytes == len(file)


def test_running_other_inputs_leaves_the_timed_ones(tmp_path: Path) -> None:
    executable = compiled(block("mbconv"))
    first = executable.outputs()[0]
    executable.outputs({"input": np.ones((1, 8, 8, 8), np.float32)})
    executable.call()
    timed = executable._interpreter.get_tensor(
        executable._interpreter.get_output_details()[0]["index"]
    )
    np.testing.assert_array_equal(timed, nhwc(first))


def test_inputs_are_seeded_and_never_zero() -> None:
    first, again = (compiled(block("conv"))._inputs["input"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.count_nonzero(first) == first.size


@pytest.mark.parametrize("name", PIECES)
def test_blocks_are_one_piece(name: str) -> None:
    support = TfliteAdapter(DeviceOptions()).supports(block(name))
    assert (support.ok, support.n_pieces, support.outside_ops) == (True, 1, ())
    check = compiled(block(name)).check()
    assert (check.provider, check.outside_ops) == ("XNNPACK, 1 piece", ())


def test_pieces_and_what_is_outside_of_them(tmp_path: Path) -> None:
    """L2 normalisation and sign are not XNNPACK's: three operators of its own stay around them."""
    file = chain(tmp_path / "m.tflite", "RELU", "SIGN", "RELU", "L2_NORMALIZATION", "SIGN", "RELU")
    workload = Workload.from_file(file)
    support = TfliteAdapter(DeviceOptions()).supports(workload)
    assert support.n_pieces == 3
    assert support.outside_ops == ("L2_NORMALIZATION", "SIGN", "SIGN")
    check = compiled(workload).check()
    assert check.provider == "XNNPACK, 3 pieces"
    assert check.outside_ops == support.outside_ops


def test_a_file_without_anything_for_the_delegate(tmp_path: Path) -> None:
    workload = Workload.from_file(chain(tmp_path / "m.tflite", "SIGN"))
    check = compiled(workload).check()
    assert (check.provider, check.outside_ops) == ("built-in kernels", ("SIGN",))


def test_open_dimension_is_named_and_bound(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.tflite", "RELU", open_batch=True)
    with pytest.raises(ModelError, match=r"open dimension 'd0' .* --input x=1x4x4x8:float32"):
        compiled(Workload.from_file(path))
    bound = InputSpec(name="x", shape=(3, 4, 4, 8))
    assert compiled(Workload.from_file(path, (bound,))).outputs()[0].shape == (3, 4, 4, 8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (InputSpec(name="q", shape=SHAPE), r"no input 'q'; its inputs are \['x'\]"),
        (InputSpec(name="x", shape=(1, 5, 4, 8)), r"the model expects \[1, 4, 4, 8\]"),
        (InputSpec(name="x", shape=SHAPE, dtype="int8"), r"--input x=1x4x4x8:float32"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path: Path, given: InputSpec, words: str) -> None:
    path = chain(tmp_path / "m.tflite", "RELU")
    with pytest.raises(ModelError, match=words):
        compiled(Workload.from_file(path, (given,)))


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"\x18\x00\x00\x00TFL3"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="no model that ai-edge-litert can read"):
        compiled(Workload.from_file(path))


def test_edited_file_is_not_the_one_that_was_named(tmp_path: Path) -> None:
    workload = Workload.from_file(chain(tmp_path / "m.tflite", "RELU"))
    chain(tmp_path / "m.tflite", "RELU6")
    with pytest.raises(ModelError, match="has changed since"):
        compiled(workload)


@pytest.mark.parametrize(("change", "words"), [(_teleport, "Teleport"), (_future, "RELU")])
def test_operators_that_the_runtime_lacks_are_named(
    tmp_path: Path, change: Any, words: str
) -> None:
    path = chain(tmp_path / "m.tflite", "RELU", "RELU6")
    path.write_bytes(_edited(path.read_bytes(), change))
    workload = Workload.from_file(path)
    support = TfliteAdapter(DeviceOptions()).supports(workload)
    assert not support.ok
    assert words in support.reason
    with pytest.raises(CompileError, match=words):
        compiled(workload)


@pytest.mark.parametrize(
    ("workload", "options", "words"),
    [
        (Workload.from_callable("a.b:c", ()), {}, "use --device cpu-torch"),
        (Workload(role="model", label="m.onnx", path="/m.onnx"), {}, "no .tflite file"),
        (block("conv"), {"precision": "fp16"}, "not 'fp16'"),
        (block("conv"), {"precision": "bf16"}, "not 'bf16'"),
    ],
)
def test_refusals_say_what_would_help(
    workload: Workload, options: dict[str, Any], words: str
) -> None:
    support = TfliteAdapter(DeviceOptions(**options)).supports(workload)
    assert not support.ok
    assert words in support.reason
    with pytest.raises(CompileError, match=re.escape(words)):
        compiled(workload, **options)


def test_ids_beyond_a_table_are_drawn_again(tmp_path: Path) -> None:
    """A table of two rows takes no ids up to 999: the runtime says so, and masks' values do."""
    workload = Workload.from_file(_lookup(tmp_path / "ids.tflite", rows=2))
    executable = compiled(workload)
    assert set(np.unique(executable._inputs["ids"])) == {0, 1}
    with pytest.raises(MeasurementError, match="LiteRT cannot run the model"):
        compiled(Workload.from_file(_lookup(tmp_path / "ids.tflite", rows=1)))


def _lookup(path: Path, rows: int) -> Path:
    from ai_edge_litert import schema_py_generated as schema

    file = TfliteFile("lookup")
    table = file.constant("table", np.ones((rows, 3), np.float32))
    ids, found = file.tensor("ids", (64,)), file.tensor("found", (64, 3))
    file._tensors[ids].type = schema.TensorType.INT32
    file.operator("GATHER", [table, ids], found, schema.GatherOptionsT())
    path.write_bytes(file.to_bytes({"ids": ids}, {"y": found}))
    return path


def test_trace_is_refused() -> None:
    with pytest.raises(DeviceError, match="no operator's time"):
        compiled(block("conv")).trace()


def test_threads_reach_the_runtime_and_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    runtime = load_runtime()

    def spy(**options: Any) -> Any:
        asked.update(options)
        return runtime.interpreter(**options)

    changed = Runtime(name=runtime.name, version=runtime.version, interpreter=spy)
    monkeypatch.setattr(tflite, "load_runtime", lambda: changed)
    adapter = TfliteAdapter(DeviceOptions(threads=2))
    assert adapter.fingerprint().stable["threads"] == 2
    adapter.compile(block("conv"), PLAN)
    assert asked["num_threads"] == 2


def test_the_older_runtime_is_taken_where_it_is_all_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    old = ModuleType("tflite_runtime.interpreter")
    old.Interpreter = Interpreter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", ModuleType("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", old)
    monkeypatch.setattr("importlib.metadata.version", {"tflite-runtime": "2.14.0"}.__getitem__)
    stable = TfliteAdapter(DeviceOptions()).fingerprint().stable
    assert (stable["runtime"], stable["runtime_version"]) == ("tflite-runtime", "2.14.0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    support = TfliteAdapter(DeviceOptions()).supports(block("conv"))
    assert "cannot write them" in support.reason


def test_neither_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    with pytest.raises(DeviceUnavailableError, match=r"pip install 'hwprof\[tflite\]'"):
        TfliteAdapter(DeviceOptions())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and forgets a peak")
def test_the_peak_of_a_block_holds_its_file_and_what_xnnpack_makes_of_it() -> None:
    piece = ConvPiece(
        in_channels=1024, size_px=1, out_channels=8192, kernel=1, stride=1, act="relu", bn_eps=1e-5
    )
    workload = Workload.block(piece, "wide")
    meter = MemoryMeter()
    meter.begin()
    empty = meter.peak_bytes()
    adapter = TfliteAdapter(DeviceOptions())
    assert adapter.supports(workload).ok  # asked first, before memory is metered
    meter.begin()
    executable = adapter.compile(workload, PLAN)
    executable.check()
    peak = meter.peak_bytes()
    assert empty is not None
    assert peak is not None
    assert peak - empty > 1.9 * executable.loaded.artifact_bytes
