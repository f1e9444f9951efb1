"""Random weights: reproducible, complete, and of a size that keeps activations near one."""

import numpy as np
import onnxruntime
import pytest

from hwprof.errors import ModelError
from hwprof.graph import Graph, GraphBuilder, piece_graph, random_weights, to_onnx
from hwprof.graph.weights import check_weights
from hwprof.space.pieces import CellPiece, HeadPiece


def deep_chain(n_blocks: int, *, shortcut: bool) -> Graph:
    """Narrow, deep and free of norms: what overflows or vanishes with badly scaled weights."""
    builder = GraphBuilder("chain", (16, 6, 6))
    x = builder.input
    for index in range(n_blocks):
        with builder.scope(f"b{index}"):
            y = builder.act(x, "relu")
            y = builder.conv(y, "conv", 16, kernel=3, bias=True)
            x = builder.add(y, x, "add") if shortcut else y
    return builder.finish(x)


def rms_of_output(graph: Graph) -> float:
    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *graph.inputs[0].shape), dtype=np.float32)
    (output,) = session.run(None, {"input": image})
    return float(np.sqrt(np.mean(np.square(output, dtype=np.float64))))


@pytest.mark.parametrize("shortcut", [False, True])
def test_activations_stay_near_one_through_sixty_layers(shortcut):
    rms = rms_of_output(deep_chain(60, shortcut=shortcut))
    # A chain of shortcuts sums 60 branches: variance 60 (rms 8), not 2^60.
    assert 0.03 < rms < 30


def test_a_tensor_added_to_itself_counts_as_doubled():
    """Eight cells of skips only multiply the input by 4^8; the next layer brings it back."""
    builder = GraphBuilder("skips", (8, 4, 4))
    x = builder.input
    for index in range(16):
        x = builder.add(x, x, f"twice{index}")
    graph = builder.finish(builder.conv(x, "conv", 8))
    assert 0.3 < rms_of_output(graph) < 3


def test_same_seed_same_weights():
    graph = deep_chain(2, shortcut=False)
    first, again, other = (random_weights(graph, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["b0/conv.weight"], other["b0/conv.weight"])


def test_weights_fit_their_graph():
    head = HeadPiece(
        in_channels=16,
        size_px=4,
        feature_channels=0,
        last_channels=24,
        n_classes=5,
        act="relu",
        bn_eps=1e-5,
        pre_norm=True,
    )
    graph = piece_graph(head)
    weights = random_weights(graph)
    assert {name: array.shape for name, array in weights.items()} == {
        "head/norm.weight": (16,),
        "head/norm.bias": (16,),
        "head/last.weight": (24, 16, 1, 1),
        "head/classifier.weight": (5, 24),
        "head/classifier.bias": (5,),
    }
    assert all(array.dtype == np.float32 for array in weights.values())
    # A bias of zero would be optimised away by some runtimes.
    assert all(np.all(weights[name] != 0) for name in weights if name.endswith(".bias"))
    check_weights(graph, weights)


def test_zeros_do_not_divide_by_zero():
    ops = ("none", "none", "none", "none", "none", "nor_conv_3x3")
    graph = piece_graph(CellPiece(in_channels=4, size_px=4, ops=ops, bn_eps=1e-5))
    assert all(np.isfinite(array).all() for array in random_weights(graph).values())


def test_weights_of_another_graph_are_refused():
    graph = deep_chain(1, shortcut=False)
    weights = dict(random_weights(graph))
    with pytest.raises(ModelError, match=r"'b1/conv.bias' is missing from the weights"):
        to_onnx(deep_chain(2, shortcut=False), weights=weights)
    with pytest.raises(ModelError, match=r"'stray' is not expected in the weights"):
        to_onnx(graph, weights=weights | {"stray": np.zeros(1, dtype=np.float32)})
    wrong = weights | {"b0/conv.bias": np.zeros(3, dtype=np.float32)}
    with pytest.raises(ModelError, match=r"has the shape \(3,\); chain expects \(16,\)"):
        to_onnx(graph, weights=wrong)
