"""The TensorRT adapter on a module that plays TensorRT's interface, and a scripted GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwprof.devices.host import max_rel_error
from hwprof.devices.nvidia.tensorrt import TensorrtAdapter
from hwprof.devices.nvidia.tensorrt_layers import engine_layers, layer_times
from hwprof.errors import (
    CompileError,
    DeviceUnavailableError,
    MeasurementError,
    ModelError,
)
from hwprof.graph import network_graph, to_onnx
from hwprof.measure.records import DeviceOptions, DeviceRef
from hwprof.parts.grouping import group_operators
from hwprof.parts.model_nodes import NodeFinder, nodes_of_file, nodes_of_graph
from hwprof.protocols import ReportsDisturbance, ReportsWarnings
from hwprof.space import get_space
from hwprof.testing import DeviceContract, block
from hwprof.workload import InputSpec, Workload
from tests.devices import fake_tensorrt
from tests.devices.fake_nvml import FakeNvml
from tests.devices.fake_tensorrt_build import Script
from tests.devices.filling import assert_filled_and_put_back
from tests.devices.scripted_tensorrt import (
    PLAN,
    compiled,
    install,
    matrix,
    open_model,
    opened,
    save,
)

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Script:
    return install(monkeypatch, tmp_path)


class TestContract(DeviceContract):
    @pytest.fixture
    def device(self) -> DeviceRef:
        return DeviceRef(name="tensorrt", factory="tests.devices.scripted_tensorrt:opened")


# Failures, in TensorRT's words.


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"build_error": "Error Code 10: no implementation"}, CompileError, "no implementation"),
        ({"build_error": "Error Code 2: OutOfMemory"}, MemoryError, "OutOfMemory"),
        ({"load_error": "magic tag does not match"}, CompileError, "magic tag does not match"),
        ({"context_error": "CUDA out of memory"}, MemoryError, "out of memory"),
        ({"context_error": "no context"}, CompileError, "no context"),
        ({"run_error": "address is misaligned"}, MeasurementError, "address is misaligned"),
    ],
)
def test_failures_carry_tensorrts_own_message(
    script: Script, change: dict[str, str], error: type[Exception], words: str
) -> None:
    for name, value in change.items():
        setattr(script, name, value)
    with pytest.raises(error, match=words) as caught:
        compiled()
    assert "mbconv" in str(caught.value)
    assert "a warning that is no reason" not in str(caught.value)


def test_operators_that_it_lacks_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Teleport", ["x"], ["a"], name="beam", domain="star.trek"),
        helper.make_node("Warp", ["a"], ["y"], name="nine", domain="star.trek"),
    ]
    workload = Workload.from_file(save(tmp_path / "m.onnx", nodes, [matrix("x", 1, 4)]))
    support = opened().supports(workload)
    assert not support.ok
    for words in ("operator Teleport (node 'beam')", "operator Warp (node 'nine')"):
        assert words in support.reason
    with pytest.raises(CompileError, match="operator Teleport"):
        compiled(workload)


def test_an_operator_of_ours_that_it_lacks(script: Script) -> None:
    script.lacks = frozenset({"HardSwish"})
    with pytest.raises(CompileError, match=r"tensorrt 10\.16\.1\.11 .* operator HardSwish"):
        compiled()


def test_damaged_files_are_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x09no model" * 20)
    workload = Workload.from_file(path)
    assert opened().supports(workload).ok
    with pytest.raises(ModelError, match=r"'m\.onnx' is no model that tensorrt can read"):
        compiled(workload)


@pytest.mark.parametrize(
    ("workload", "precision", "words"),
    [
        (Workload.from_callable("a.b:c", ()), "fp32", "use --device cuda"),
        (Workload(role="model", label="m.tflite", path="/m.tflite"), "fp32", "no .onnx file"),
        (Workload(role="model", label="m.onnx", path="/m.onnx"), "fp16", "leave --precision out"),
        (block("conv"), "int8", "quantize and dequantize operators"),
        (block("conv"), "int8-dynamic", "quantize and dequantize operators"),
    ],
)
def test_refusals_say_what_would_help(workload: Workload, precision: Any, words: str) -> None:
    adapter = opened(DeviceOptions(precision=precision))
    support = adapter.supports(workload)
    assert not support.ok
    assert words in support.reason
    with pytest.raises(CompileError, match=r"quantize|cuda|onnx"):
        adapter.compile(workload, PLAN)


def test_outputs_sized_by_values_are_refused(script: Script, tmp_path: Path) -> None:
    script.sized_by_values = frozenset({"y"})
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [matrix("x", 1, 4)])
    with pytest.raises(CompileError, match=r"the output 'y' .* depends on values"):
        compiled(Workload.from_file(path))


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(DeviceUnavailableError, match=r"pip install 'hwprof\[tensorrt\]'"):
        TensorrtAdapter(DeviceOptions())


def test_a_driver_that_is_too_old(script: Script) -> None:
    script.starts = False
    with pytest.raises(DeviceUnavailableError, match=r"error: 35.*nvidia-smi"):
        opened()


# Running.


def test_given_inputs_are_run_and_the_own_put_back() -> None:
    assert_filled_and_put_back(compiled(), r"shapes \{'input': \(1, 8, 8, 8\)\}, not")


@pytest.mark.parametrize(
    ("precision", "dtype", "error"), [("fp16", "float16", 1e-2), ("bf16", "float32", 1e-1)]
)
def test_half_precision_is_the_models_own_type(precision: Any, dtype: str, error: float) -> None:
    expected = compiled().outputs()
    executable = compiled(precision=precision)
    (found,) = executable.outputs()
    assert found.dtype == dtype
    # The inputs are drawn in the engine's type: the same values, rounded.
    assert 0 < max_rel_error([found], expected) < error
    assert executable.check().finite
    names = {str(t.dtype).removeprefix("torch.") for t in executable._buffers.values()}
    assert names == {{"fp16": "float16", "bf16": "bfloat16"}[precision]}


def test_batch() -> None:
    assert compiled(batch=3).outputs()[0].shape[0] == 3


def test_a_quantised_file_runs_as_it_is(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="d"),
    ]
    arrays = {"scale": np.float32(0.5) * np.ones((), np.float32), "zero": np.zeros((), np.int8)}
    path = save(tmp_path / "m.onnx", nodes, [matrix("x", 1, 4)], **arrays)
    executable = compiled(Workload.from_file(path))
    (found,) = executable.outputs({"x": np.array([[0.3, 1.1, -0.6, 9.0]], np.float32)})
    np.testing.assert_array_equal(found, np.array([[0.5, 1.0, -0.5, 9.0]]))


def test_an_open_dimension_is_bound_or_named(tmp_path: Path) -> None:
    path = open_model(tmp_path / "m.onnx")
    bound = Workload.from_file(path, (InputSpec(name="x", shape=(3, 4)),))
    assert compiled(bound).outputs()[0].shape == (3, 4)
    with pytest.raises(ModelError, match=r"open dimension 'batch' .* --input x=1x4:float32"):
        compiled(Workload.from_file(path))


@pytest.mark.parametrize(("n_rows", "most"), [(2_000, 999), (10, 1)])
def test_ids_stay_inside_the_models_table(tmp_path: Path, n_rows: int, most: int) -> None:
    """A GPU would read beyond it without a word: ONNX Runtime on the host is asked."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"], name="look up")]
    table = np.arange(n_rows * 2, dtype=np.float32).reshape(n_rows, 2)
    ids = matrix("ids", 64, kind=TensorProto.INT64)
    path = save(tmp_path / "m.onnx", nodes, [ids], table=table)
    executable = compiled(Workload.from_file(path))
    drawn = executable._seeded["ids"]
    assert most // 2 < drawn.max() <= most
    np.testing.assert_array_equal(executable.outputs()[0], table[drawn.astype(np.intp)])


def test_a_single_number_that_is_drawn_is_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["table", "id"], ["y"], name="look up")]
    id_ = matrix("id", 1, kind=TensorProto.INT64)
    path = save(tmp_path / "m.onnx", nodes, [id_], table=np.ones((10, 2), np.float32))
    (told,) = compiled(Workload.from_file(path)).loaded.warnings
    assert "'id' was drawn at random as" in told


def test_a_refused_capture_is_said(script: Script) -> None:
    script.gpu.refuses_capture = "operation not permitted when stream is capturing"
    executable = compiled()
    assert executable.provider == "TensorRT, without a CUDA graph"
    (warning,) = executable.loaded.warnings
    assert "operation not permitted" in warning
    assert executable.burst(0.0, 3, "hot").n_samples >= 3


def test_samples_are_the_gpus_own_time(script: Script) -> None:
    executable = compiled()
    burst = executable.burst(0.0, 5, "hot")
    n_layers = len(executable._engine._layers)
    per_call = burst.duration_ns / burst.calls_per_sample
    assert per_call == pytest.approx(n_layers * script.layer_ns, rel=0.01)
    assert burst.end_to_end_ns is not None


def test_memory_by_tensorrts_figures() -> None:
    executable = compiled()
    own = 2 * 8 * 8 * 8 * 4  # input and output, float32
    expected = executable.loaded.artifact_bytes + 4096 + own
    assert executable.loaded.peak_memory_bytes == expected


def test_fingerprint_and_what_the_gpu_tells() -> None:
    adapter = opened(nvml=FakeNvml())
    stable = adapter.fingerprint().stable
    assert stable["runtime"] == "tensorrt"
    assert stable["runtime_version"] == "10.16.1.11"
    assert stable["hardware"] == "NVIDIA Scripted GPU"
    assert stable["workspace_bytes"] == 4 * 2**30
    assert stable["tf32"] is False
    assert isinstance(adapter, ReportsDisturbance)
    assert isinstance(adapter, ReportsWarnings)


# Layers.


@pytest.mark.parametrize("io_key", ["Bindings", "I/O Tensors"])
@pytest.mark.parametrize("tells_metadata", [True, False])
@pytest.mark.parametrize("detailed", [True, False])
def test_layers_of_a_network_fall_to_its_blocks(
    script: Script, io_key: str, tells_metadata: bool, detailed: bool
) -> None:
    """By metadata, by names, or by bare names: every operator is in the layer of its block."""
    script.io_key, script.tells_metadata = io_key, tells_metadata
    space = get_space("ofa-mbv3-w1.0")
    arch = space.sample(np.random.default_rng(1))
    graph = network_graph(space, arch)
    model = onnx.load_from_string(to_onnx(graph))
    engine = fake_tensorrt.ICudaEngine(model, fake_tensorrt.ILogger(), detailed)
    text = engine.create_engine_inspector().get_engine_information(
        fake_tensorrt.LayerInformationFormat.JSON
    )
    written = [node.name for node in model.graph.node]
    layers = engine_layers(text, written)
    members = [m for layer in layers.values() if layer.op_type != "Reformat" for m in layer.members]
    assert members == written
    ops = layer_times([dict.fromkeys(layers, 1e-6)], layers)
    scopes = [place.scope for place in space.pieces(arch)]
    groups = group_operators(ops, nodes_of_graph(graph), scopes)
    assert groups.grouped_by == "blocks"
    expected = [layer.members[0].partition("/")[0] for layer in layers.values()]
    assert list(groups.parts) == expected
    assert groups.kinds[0] == "layout"


def test_a_trace_names_the_members_of_fused_layers() -> None:
    ops = compiled().trace().ops
    assert [op.op_type for op in ops[:2]] == ["Reformat", "CaskConvolution"]
    assert ops[1].name == " + ".join(ops[1].members)
    (region,) = (op for op in ops if op.name.startswith("{ForeignNode["))
    assert len(region.members) > 2


def test_operators_without_names_are_found_by_their_outputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [matrix("x", 1, 4)])
    written = compiled(Workload.from_file(path))._written()
    assert written == ["node_of_a", "node_of_y"]
    layers = engine_layers('{"Layers": ["node_of_a + node_of_y"]}', written)
    finder = NodeFinder(nodes_of_file(path))
    (op,) = layer_times([dict.fromkeys(layers, 1e-6)], layers)
    assert [node.name for node in finder.find_members(op)] == ["Relu_0", "Neg_1"]


def test_profiling_tells_what_it_costs(script: Script) -> None:
    executable = compiled()
    trace = executable.trace()
    layer_s, extra_s = script.layer_ns * 1e-9, script.profiler_ns * 1e-9
    assert [op.time_s for op in trace.ops] == pytest.approx([layer_s + extra_s] * len(trace.ops))
    assert trace.slowdown == pytest.approx((layer_s + extra_s) / layer_s, rel=0.01)
    assert trace.outside_s == pytest.approx(0.0, abs=1e-6)


def test_a_profiler_that_reports_nothing(script: Script) -> None:
    executable = compiled()
    script.reports = False
    with pytest.raises(MeasurementError, match="there is nothing to report"):
        executable.trace()
