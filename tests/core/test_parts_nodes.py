"""Operators of a trace find the nodes of the model that they came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from hwprof.errors import ModelError
from hwprof.graph import network_graph
from hwprof.parts.model_nodes import NodeFinder, nodes_of_file, nodes_of_graph
from hwprof.space import get_space
from tests.core.operators import chain, onnx_file, op


def test_every_operator_of_a_graph_of_ours_is_found() -> None:
    space = get_space("mobile-mini")
    arch = space.sample(np.random.default_rng(0))
    nodes = nodes_of_graph(network_graph(space, arch))
    finder = NodeFinder(nodes)
    for node in nodes:
        found = finder.find(op(f"{node.name}_nchwc", "Conv"))
        assert found is not None
        assert found.path[0] == node.path[0]


def test_a_fused_activation_counts_to_the_convolution_before_it() -> None:
    nodes = chain(("/a/conv/Conv", "Conv"), ("/b/act/Clip", "Clip"), ("/b/conv/Conv", "Conv"))
    # The runtime's blocked convolutions are named after the tensor that comes out.
    found = NodeFinder(nodes).find(op("/b/act/Clip_output_0_nchwc", "Conv"))
    assert found is not None
    assert found.name == "/a/conv/Conv"


def test_a_standalone_activation_stays_where_it_is() -> None:
    nodes = chain(("/a/conv/Conv", "Conv"), ("/b/act/Clip", "Clip"))
    found = NodeFinder(nodes).find(op("/b/act/Clip", "Clip"))
    assert found is not None
    assert found.name == "/b/act/Clip"


def test_fusions_are_found_by_what_they_make() -> None:
    nodes = chain(("/mlp/act/Div", "Div"), ("/mlp/act/Erf", "Erf"), ("/mlp/act/Mul", "Mul"))
    finder = NodeFinder(nodes)
    found = finder.find(op("Gelu_token_30", "Gelu", 1.0, "/mlp/act/Mul_output_0"))
    assert found is not None
    assert found.name == "/mlp/act/Mul"
    assert finder.find(op("Gelu_token_30", "Gelu")) is None
    by_prefix = finder.find(op("/mlp/act/Div/DivMulFusion", "Mul"))
    assert by_prefix is not None
    assert by_prefix.name == "/mlp/act/Div"


def test_only_a_transpose_of_the_runtime_is_a_change_of_layout() -> None:
    finder = NodeFinder(chain(("/t/Transpose", "Transpose")))
    assert not finder.is_layout(op("/t/Transpose", "Transpose"))
    assert finder.is_layout(op("Transpose_token_3", "Transpose"))


@pytest.mark.parametrize("scopes", ["not a list", "{[]}", "[1]", "(" * 10**5, "-" * 10**5 + "1"])
def test_scopes_that_are_none_are_left(tmp_path: Path, scopes: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="node_relu")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    (found,) = nodes_of_file(onnx_file(tmp_path, [node], "y"))
    assert found.path == ("node_relu",)


def test_scopes_of_the_newer_exporter_are_read(tmp_path: Path) -> None:
    first = helper.make_node("Relu", ["x"], ["relu"], name="node_relu")
    first.metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', 'blocks.0', 'blocks.0.act', 'relu']"
    )
    (found,) = nodes_of_file(onnx_file(tmp_path, [first], "relu"))
    assert found.path == ("blocks.0", "blocks.0.act", "blocks.0.act/node_relu")


def test_nameless_operators_get_the_runtimes_names(tmp_path: Path) -> None:
    constant = helper.make_node(
        "Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.FLOAT, [1], [2.0])
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        constant,
        helper.make_node("Mul", ["a", "c"], ["y"]),
    ]
    found = nodes_of_file(onnx_file(tmp_path, nodes, "y"))
    assert [n.name for n in found] == ["Relu_0", "Mul_1"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"\x08\x09no model at all" * 20)
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        nodes_of_file(path)
