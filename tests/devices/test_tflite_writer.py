"""The written files against other evaluators: ONNX Runtime, torch in double precision, OpenVINO."""

from __future__ import annotations

import sys
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

onnxruntime = pytest.importorskip("onnxruntime")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from hwprof.devices.litert.tflite_file import ALIGNMENT
from hwprof.devices.litert.tflite_writer import _Writer, nchw, nhwc, to_tflite
from hwprof.errors import MissingExtraError, ModelError
from hwprof.graph import (
    Graph,
    GraphBuilder,
    network_graph,
    piece_graph,
    random_weights,
    to_onnx,
    to_torch,
)
from hwprof.graph.ir import Op
from hwprof.space import get_space, space_names
from hwprof.space.pieces import HeadPiece, Piece, SkipPiece
from hwprof.testing import PIECES

RELATIVE_ERROR = 1e-5
"""Largest difference allowed, relative to the largest output."""
SEED = 7
BLOCKS_OF_A_SPACE = 12
SMALLER_PX = 96
"""For whole networks, where the space has sizes."""

Floats = NDArray[np.float32]


def image_for(graph: Graph, batch: int = 1) -> Floats:
    shape = (batch, *graph.inputs[0].shape)
    return np.random.default_rng(SEED).standard_normal(shape, dtype=np.float32)


def run_tflite(model: bytes, image: Floats) -> Floats:
    runner = interpreter.Interpreter(model_content=model, num_threads=1)
    runner.allocate_tensors()
    runner.set_tensor(runner.get_input_details()[0]["index"], nhwc(image))
    runner.invoke()
    return nchw(runner.get_tensor(runner.get_output_details()[0]["index"]))


def run_onnx(model: bytes, image: Floats) -> Floats:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": image})
    return np.asarray(output, dtype=np.float32)


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    scale = max(float(np.abs(expected).max()), 1e-30)
    assert np.abs(found - expected).max() <= RELATIVE_ERROR * scale


def assert_agrees_with_onnx(graph: Graph, batch: int = 1) -> None:
    image = image_for(graph, batch)
    expected = run_onnx(to_onnx(graph, seed=SEED, batch=batch), image)
    assert_close(run_tflite(to_tflite(graph, seed=SEED, batch=batch), image), expected)


def operators(model: bytes) -> list[str]:
    """Names of the operators in the file, in order."""
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    read = schema.ModelT.InitFromPackedBuf(model, 0)
    codes = [names[code.builtinCode] for code in read.operatorCodes]
    return [codes[op.opcodeIndex] for op in read.subgraphs[0].operators]


def sampled_pieces() -> list[Any]:
    params = []
    for name in space_names():
        pieces = get_space(name).distinct_pieces()
        rng = np.random.default_rng(SEED)
        chosen = rng.permutation(len(pieces))[:BLOCKS_OF_A_SPACE]
        params += [pytest.param(pieces[i], id=f"{name}-{i}-{pieces[i].kind}") for i in chosen]
    return params


def test_every_operator_of_the_graph_has_a_translation() -> None:
    graph = piece_graph(PIECES["conv"])
    writer = _Writer(graph, random_weights(graph), batch=1)
    assert set(writer._translations()) == set(get_args(Op))


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_kind_of_block(name: str, batch: int) -> None:
    assert_agrees_with_onnx(piece_graph(PIECES[name]), batch)


def test_all_blocks_of_mobile_mini() -> None:
    pieces = get_space("mobile-mini").distinct_pieces()
    assert len(pieces) > 20
    for piece in pieces:
        assert_agrees_with_onnx(piece_graph(piece))


@pytest.mark.parametrize("piece", sampled_pieces())
def test_sampled_blocks(piece: Piece) -> None:
    assert_agrees_with_onnx(piece_graph(piece))


@pytest.mark.parametrize("name", space_names())
def test_networks(name: str) -> None:
    """Against double precision: two single precisions differ by the sum of their errors."""
    torch = pytest.importorskip("torch")
    space = get_space(name, None if name in ("nasbench201", "mobile-mini") else SMALLER_PX)
    graph = network_graph(space, space.sample(np.random.default_rng(SEED)))
    image = image_for(graph)
    module = to_torch(graph, seed=SEED).eval().double()
    with torch.no_grad():
        expected = module(torch.from_numpy(image).double()).numpy()
    model = to_tflite(graph, seed=SEED)
    assert_close(run_tflite(model, image), expected)
    assert "TRANSPOSE" not in operators(model)


def test_fused_and_written_apart() -> None:
    """ReLU6 goes into the convolution, h-swish and the gate's hard sigmoid do not."""
    strided = operators(to_tflite(piece_graph(PIECES["mbconv strided"])))
    # 9 px with stride 2: SAME pads both sides of an odd size alike, as torch does.
    assert strided == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"]
    gated = operators(to_tflite(piece_graph(PIECES["mbconv"])))
    assert gated == [
        *("CONV_2D", "HARD_SWISH", "DEPTHWISE_CONV_2D", "HARD_SWISH"),
        *("MEAN", "CONV_2D", "CONV_2D", "ADD", "MUL", "MUL"),
        *("CONV_2D", "ADD"),
    ]
    # 8 px with stride 2 need padding of their own.
    assert "PAD" in operators(to_tflite(piece_graph(PIECES["bottleneck"])))


def test_an_activation_that_others_read_past_is_not_fused() -> None:
    builder = GraphBuilder("branches", (4, 6, 6))
    x = builder.conv(builder.input, "conv", 4, kernel=3)
    graph = builder.finish(builder.add(builder.act(x, "relu"), x, "sum"))
    assert operators(to_tflite(graph)) == ["CONV_2D", "RELU", "ADD"]
    assert_agrees_with_onnx(graph)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize(("kernel", "stride", "size_px"), [(3, 1, 6), (5, 2, 8), (7, 2, 9)])
def test_grouped_convolutions(groups: int, kernel: int, stride: int, size_px: int) -> None:
    """Eight groups of eight channels are depthwise, with two outputs a channel."""
    builder = GraphBuilder("groups", (8, size_px, size_px))
    x = builder.conv(
        builder.input, "conv", 16, kernel=kernel, stride=stride, groups=groups, bias=True
    )
    assert_agrees_with_onnx(builder.finish(x))


def test_flatten_of_an_image_keeps_the_order_of_its_weights() -> None:
    builder = GraphBuilder("flat", (3, 4, 5))
    x = builder.flatten(builder.conv(builder.input, "conv", 6, kernel=3), "flatten")
    graph = builder.finish(builder.linear(x, "linear", 7))
    assert "TRANSPOSE" in operators(to_tflite(graph))
    assert_agrees_with_onnx(graph)


@pytest.mark.parametrize("size_px", [7, 8])
@pytest.mark.parametrize("positive", [True, False])
def test_max_pool_pads_with_what_never_wins(size_px: int, positive: bool) -> None:
    builder = GraphBuilder("pool", (4, size_px, size_px))
    x = builder.relu_before(builder.input, "relu") if positive else builder.input
    graph = builder.finish(builder.pool(x, "pool", "max_pool", kernel=3, stride=2))
    assert_agrees_with_onnx(graph)
    # All below zero: a padding of zeros would win at the border.
    image = -np.abs(image_for(graph)) - 1
    assert_close(run_tflite(to_tflite(graph), image), run_onnx(to_onnx(graph), image))


@pytest.mark.parametrize(("kernel", "stride", "size_px"), [(3, 1, 8), (2, 2, 8), (2, 2, 7)])
def test_average_pool_counts_no_padding(kernel: int, stride: int, size_px: int) -> None:
    builder = GraphBuilder("pool", (4, size_px, size_px))
    x = builder.pool(builder.input, "pool", "avg_pool", kernel=kernel, stride=stride)
    assert_agrees_with_onnx(builder.finish(x))


def test_average_pool_without_an_equal_is_refused() -> None:
    builder = GraphBuilder("pool", (4, 8, 8))
    x = builder.pool(builder.input, "pool", "avg_pool", kernel=3, stride=2)
    with pytest.raises(ModelError, match="no average pool with 1 padding and stride 2"):
        to_tflite(builder.finish(x))


def test_frame_is_what_converters_write() -> None:
    model = to_tflite(piece_graph(PIECES["head"]))
    assert model[4:8] == b"TFL3"
    read = schema.ModelT.InitFromPackedBuf(model, 0)
    assert read.version == 3
    assert len(read.buffers[0].data if read.buffers[0].data is not None else ()) == 0
    (signature,) = read.signatureDefs
    assert [m.name.decode() for m in signature.inputs] == ["input"]
    assert [m.name.decode() for m in signature.outputs] == ["head/classifier"]
    assert all(c.deprecatedBuiltinCode == min(c.builtinCode, 127) for c in read.operatorCodes)
    (graph,) = read.subgraphs
    names = [t.name.decode() for t in graph.tensors]
    assert len(set(names)) == len(names)


def test_constants_are_aligned() -> None:
    model = to_tflite(piece_graph(PIECES["mbconv"]))
    root = schema.Model.GetRootAs(model, 0)
    starts = [
        root.Buffers(i)._tab.Vector(root.Buffers(i)._tab.Offset(4))
        for i in range(1, root.BuffersLength())
    ]
    assert starts
    assert all(start % ALIGNMENT == 0 for start in starts)


def test_same_seed_same_bytes_and_given_weights_are_used() -> None:
    graph = piece_graph(PIECES["conv"])
    model = to_tflite(graph, seed=3)
    assert (
        model == to_tflite(graph, seed=3) == to_tflite(graph, weights=random_weights(graph, seed=3))
    )
    assert model != to_tflite(graph, seed=4)
    with pytest.raises(ModelError, match="missing from the weights"):
        to_tflite(graph, weights={})


def test_skip_is_a_copy_and_not_nothing() -> None:
    graph = piece_graph(SkipPiece(in_channels=3, size_px=4))
    assert operators(to_tflite(graph)) == ["RESHAPE"]
    image = image_for(graph)
    np.testing.assert_array_equal(run_tflite(to_tflite(graph), image), image)


def test_without_the_schema_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hwprof\[tflite\]'"):
        to_tflite(piece_graph(PIECES["conv"]))


def test_standalone_batch_norm() -> None:
    head = HeadPiece(
        in_channels=8,
        size_px=4,
        feature_channels=0,
        last_channels=0,
        n_classes=10,
        act="relu",
        bn_eps=1e-5,
        pre_norm=True,
    )
    graph = piece_graph(head)
    assert operators(to_tflite(graph))[:2] == ["MUL", "ADD"]
    assert_agrees_with_onnx(graph)
