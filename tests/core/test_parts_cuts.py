"""Parts that end at tensors which the user names."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from hwprof.errors import PlanError
from hwprof.parts.cuts import parts_up_to
from hwprof.parts.grouping import group_operators
from hwprof.parts.model_nodes import ModelNode, nodes_of_file
from tests.core.operators import chain, op


def node(name: str, *inputs: str, parent: str = "") -> ModelNode:
    return ModelNode(
        name=name,
        op_type="Conv",
        path=(name,),
        inputs=inputs,
        outputs=(f"{name}.y",),
        parent=parent,
    )


BRANCHES = [node("stem", "x"), node("a", "stem.y"), node("b", "stem.y"), node("add", "a.y", "b.y")]


def test_an_operator_belongs_to_the_earliest_tensor_that_needs_it() -> None:
    # Asked for in any order: stem is needed by both, b by neither.
    assert parts_up_to(BRANCHES, ["a.y", "stem.y", "a.y"]) == {
        "stem": "up to stem.y",
        "a": "up to a.y",
        "b": "behind a.y",
        "add": "behind a.y",
    }
    assert set(parts_up_to(BRANCHES, ["add.y"]).values()) == {"up to add.y"}


def test_what_a_branch_holds_and_reads_goes_with_it() -> None:
    nodes = [
        node("p", "x"),
        node("q", "x"),
        node("if", "p.y"),
        node("inner", "q.y", parent="if"),
        node("innermost", "inner.y", parent="inner"),
        node("last", "if.y"),
    ]
    found = parts_up_to(nodes, ["if.y"])
    assert found == {**dict.fromkeys(("p", "q", "if", "inner", "innermost"), "up to if.y"),
                     "last": "behind if.y"}  # fmt: skip


def test_the_nameless_inside_may_bear_the_name_of_what_they_are_in() -> None:
    nodes = [node("If_0", "x"), node("If_0", "p.y", parent="If_0"), node("p", "x")]
    assert parts_up_to(nodes, ["If_0.y"]) == {"If_0": "up to If_0.y", "p": "up to If_0.y"}


def test_the_parent_of_what_is_inside_a_branch_is_read_from_the_file(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["b"], name="inside")],
        "body",
        [],
        [value("b", TensorProto.FLOAT, [1])],
    )
    branch = helper.make_node("If", ["c"], ["y"], name="if", then_branch=body, else_branch=body)
    graph = helper.make_graph(
        [branch],
        "g",
        [value("x", TensorProto.FLOAT, [1]), value("c", TensorProto.BOOL, [])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    path = tmp_path / "if.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert [(n.name, n.parent) for n in nodes_of_file(path)] == [
        ("if", ""),
        ("inside", "if"),
        ("inside", "if"),
    ]


@pytest.mark.parametrize(
    ("nodes", "tensor", "words"),
    [
        (BRANCHES, "stem", r"no operator makes a tensor 'stem'; expected a name such as 'stem\.y'"),
        (BRANCHES, "x", "no operator makes a tensor 'x'"),
        ([], "a", "nothing is known of the operators"),
    ],
)
def test_a_tensor_that_is_not_there(nodes: list[ModelNode], tensor: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        parts_up_to(nodes, [tensor])


def test_named_tensors_come_before_the_models_own_structure() -> None:
    names = ("/a/Conv", "/a/Clip", "/b/Conv", "/c/Gemm")
    nodes = chain(*((name, name.rpartition("/")[2]) for name in names))
    # The fused activation bears the second one's name and counts to the convolution before it.
    ops = [op("/a/Clip_output_0_nchwc"), op("ReorderOutput", "ReorderOutput"), op("/b/Conv"),
           op("/c/Gemm", "Gemm")]  # fmt: skip
    groups = group_operators(ops, nodes, cuts=["/a/Clip_output_0", "/b/Conv_output_0"])
    assert groups.grouped_by == "tensors"
    first, second = "up to /a/Clip_output_0", "up to /b/Conv_output_0"
    assert groups.parts == (first, first, second, "behind /b/Conv_output_0")
    assert groups.kinds == ("block", "layout", "block", "block")
    assert group_operators(ops, nodes).grouped_by == "operators"
