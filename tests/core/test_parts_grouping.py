"""Operators become parts: by block, by module, by what repeats, and nothing is lost."""

from __future__ import annotations

import math

import pytest

from hwprof.parts.grouping import MOST_PARTS, group_operators, module_parts, part_times
from hwprof.parts.model_nodes import ModelNode
from hwprof.parts.repeats import repeated_parts
from hwprof.protocols import OpTime
from tests.core.operators import chain, op, trace


def parts_of(ops: list[OpTime], nodes: list[ModelNode]) -> list[str]:
    return list(group_operators(ops, nodes).parts)


# A network of ours, as ONNX Runtime 1.32 on x86 traces it: fused operators bear the last name.
NCHWC_TRACE = [
    op("stem/conv/relu6_nchwc"),
    op("u0.l0/expand/relu6_nchwc"),
    op("u0.l0/depthwise_nchwc"),
    op("ReorderOutput_token_82", "ReorderOutput"),
    op("u0.l0/se/pool_nchwc", "GlobalAveragePool"),
    op("u0.l0/se/scale", "Mul"),
    op("ReorderInput", "ReorderInput"),
    op("u0.l0/project_nchwc"),
    op("u0.l1/expand_nchwc"),
    op("ReorderOutput", "ReorderOutput"),
    op("head/classifier", "Gemm"),
]


def test_blocks_of_a_space_and_their_changes_of_layout() -> None:
    nodes = chain(
        ("stem/conv", "Conv"),
        ("stem/conv/relu6", "relu6"),
        ("u0.l0/expand", "Conv"),
        ("u0.l0/expand/relu6", "relu6"),
        ("u0.l0/depthwise", "Conv"),
        ("u0.l0/se/pool", "global_pool"),
        ("u0.l0/se/scale", "mul"),
        ("u0.l0/project", "Conv"),
        ("u0.l1/expand", "Conv"),
        ("head/classifier", "Gemm"),
    )
    groups = group_operators(NCHWC_TRACE, nodes, ("stem", "u0.l0", "u0.l1", "head"))
    assert groups.grouped_by == "blocks"
    assert groups.parts == ("stem", *["u0.l0"] * 7, "u0.l1", "u0.l1", "head")
    assert list(groups.kinds) == ["layout" if "Reorder" in o.name else "block" for o in NCHWC_TRACE]
    parts = part_times(trace(*NCHWC_TRACE), groups, {"u0.l0": "mbconv_k3_e6"})
    by_key = {(p.part, p.kind): p for p in parts}
    assert by_key["u0.l0", "block"].n_ops == 5
    assert by_key["u0.l0", "block"].block == "mbconv_k3_e6"
    assert by_key["u0.l0", "layout"].traced_s == 2.0
    assert by_key["u0.l0", "layout"].block is None
    assert by_key["u0.l1", "layout"].op_types == ("ReorderOutput",)
    assert parts[-1].kind == "overhead"
    assert math.fsum(p.traced_s for p in parts) == pytest.approx(11.5)
    assert math.fsum(p.share for p in parts) == pytest.approx(1.0)


def test_modules_are_opened_where_they_have_brothers() -> None:
    names = [
        f"/net/features/features.{i}/conv/conv.{j}/{kind}"
        for i in range(18)
        for j in range(3)
        for kind in ("Conv", "Clip")
    ]
    nodes = chain(*((n, n.rpartition("/")[2]) for n in names), ("/net/classifier/Gemm", "Gemm"))
    ops = [op(node.name, node.op_type) for node in nodes]
    groups = group_operators(ops, nodes)
    # 18 × 3 convolutions are too many, so blocks it is; "conv" has no brother and is no level.
    assert groups.grouped_by == "modules"
    assert set(groups.parts) == {
        *(f"net/features/features.{i}" for i in range(18)),
        "net/classifier",
    }


def test_operators_beside_modules_are_named_as_such() -> None:
    nodes = chain(
        ("/a/x/Conv", "Conv"), ("/a/y/Conv", "Conv"), ("/Reshape", "Reshape"), ("/b/Gemm", "Gemm")
    )
    assert module_parts(nodes, 40) == ["a/x", "a/y", "outside modules", "b"]
    assert module_parts(nodes, 3) == ["a", "a", "outside modules", "b"]


def test_a_modules_own_operators_bear_its_name() -> None:
    nodes = chain(("/m/se/Conv", "Conv"), ("/m/se/Mul", "Mul"), ("/m/Conv", "Conv"))
    assert module_parts(nodes, 40) == ["m/se/Conv", "m/se/Mul", "m"]


def test_few_operators_are_shown_one_by_one() -> None:
    nodes = chain(("/a/Conv", "Conv"), ("/b/Clip", "Clip"), ("/c/Gemm", "Gemm"))
    groups = group_operators([op("/b/Clip_output_0_nchwc"), op("/c/Gemm", "Gemm")], nodes)
    assert (groups.grouped_by, groups.parts) == ("operators", ("/a/Conv", "/c/Gemm"))


def test_unknown_operators_go_to_their_neighbours() -> None:
    nodes = chain(("/a/Conv", "Conv"), ("/b/Conv", "Conv"), ("/c/Gemm", "Gemm"))
    ops = [
        op("/a/Conv"),
        op("gemm_input_reshape", "Reshape"),
        op("/b/Conv"),
        op("/c/Gemm", "Gemm"),
        op("what_is_this", "Cast"),
    ]
    assert group_operators(ops, nodes, ("a", "b", "c")).parts == ("a", "b", "b", "c", "c")


def residual_model(n_blocks: int) -> list[ModelNode]:
    """A model without scopes: a stem, residual blocks, a head."""
    nodes = [node("Conv_0", "Conv", ["input"]), node("Relu_1", "Relu", ["Conv_0"])]
    x = "Relu_1"
    for i in range(n_blocks):
        names = [f"{kind}_b{i}" for kind in ("Conv", "Clip", "Conv2")]
        nodes += [
            node(names[0], "Conv", [x]),
            node(names[1], "Clip", [names[0]]),
            node(names[2], "Conv", [names[1]]),
            node(f"Add_b{i}", "Add", [x, names[2]]),
        ]
        x = f"Add_b{i}"
    return [*nodes, node("Pool", "GlobalAveragePool", [x]), node("Gemm", "Gemm", ["Pool"])]


def node(name: str, op_type: str, inputs: list[str]) -> ModelNode:
    return ModelNode(
        name=name, op_type=op_type, path=(name,), inputs=tuple(inputs), outputs=(name,)
    )


def test_repeated_subgraphs_are_whole_residual_blocks() -> None:
    nodes = residual_model(12)
    groups = group_operators([op(n.name, n.op_type) for n in nodes], nodes)
    assert groups.grouped_by == "repeats"
    assert list(dict.fromkeys(groups.parts)) == [
        "before block 1",
        *(f"block {i} of 12" for i in range(1, 13)),
        "after block 12",
    ]
    assert groups.parts.count("block 3 of 12") == 4


def test_two_pieces_that_alternate_are_one_block() -> None:
    names: list[ModelNode] = []
    x = "input"
    for i in range(6):
        for kinds in (("MatMul", "Softmax"), ("Gemm", "Gelu", "Gemm2")):
            inner = x
            for kind in kinds:
                names.append(node(f"{kind}_{i}", kind, [inner]))
                inner = names[-1].name
            names.append(node(f"Add_{kinds[0]}_{i}", "Add", [x, inner]))
            x = names[-1].name
    parts = repeated_parts(names, MOST_PARTS)
    assert parts is not None
    assert set(parts) == {f"block {i} of 6" for i in range(1, 7)}
    assert parts.count("block 1 of 6") == 7


def test_nothing_that_repeats_gives_operators_or_types() -> None:
    few = [node(f"n{i}", f"Type{i}", [f"n{i - 1}"]) for i in range(5)]
    assert repeated_parts(few, MOST_PARTS) is None
    groups = group_operators([op(n.name, n.op_type) for n in few], few)
    assert (groups.grouped_by, groups.parts[2]) == ("operators", "n2")
    torch_like = [op(f"aten::op{i}", f"aten::op{i}") for i in range(60)]
    groups = group_operators(torch_like, [])
    assert (groups.grouped_by, groups.parts[7]) == ("types", "aten::op7")


def test_blocks_that_no_operator_stands_in_are_not_claimed() -> None:
    groups = group_operators([op("aten::conv2d", "aten::conv2d")], [], ("stem", "head"))
    assert groups.grouped_by == "types"


@pytest.mark.parametrize("n_blocks", [1, 7, 45, 200])
def test_never_more_parts_than_a_person_reads(n_blocks: int) -> None:
    names = [f"/s{i % 4}/b{i}/c{j}/Conv" for i in range(n_blocks) for j in range(3)]
    nodes = chain(*((n, "Conv") for n in names), ("/s9/Gemm", "Gemm"))
    parts = parts_of([op(n.name, n.op_type) for n in nodes], nodes)
    assert 1 < len(set(parts)) <= MOST_PARTS


def fused(name: str, op_type: str, *members: str) -> OpTime:
    return OpTime(name=name, op_type=op_type, time_s=1.0, members=members)


def test_fused_layers_go_to_the_block_of_their_members() -> None:
    """As TensorRT traces: layers name their members, and some are made of none."""
    nodes = chain(
        ("stem/conv", "Conv"),
        ("u0.l0/expand", "Conv"),
        ("u0.l0/expand/relu6", "relu6"),
        ("u0.l0/se/pool", "global_pool"),
        ("u0.l0/project", "Conv"),
        ("u0.l1/expand", "Conv"),
    )
    ops = [
        op("Reformatting CopyNode for Input Tensor 0", "Reformat"),
        fused("stem/conv", "CaskConvolution", "stem/conv"),
        fused("fused", "CaskConvolution", "u0.l0/expand", "u0.l0/expand/relu6"),
        fused("__myl_Mean_myl0_1", "kgen", "u0.l0/se/pool"),
        fused("to u0.l0/project", "Reformat", "u0.l0/project"),
        fused("u0.l0/project + u0.l1/expand", "kgen", "u0.l0/project", "u0.l1/expand"),
        op("made up", "ReformatOutput"),
    ]
    groups = group_operators(ops, nodes, ("stem", "u0.l0", "u0.l1"))
    both = "u0.l0 + u0.l1"  # nothing tells how its time falls to them: it is not divided
    assert groups.parts == ("stem", "stem", "u0.l0", "u0.l0", "u0.l0", both, both)
    assert groups.kinds == ("layout", *["block"] * 3, "layout", "block", "layout")
    parts = {(p.part, p.kind): p for p in part_times(trace(*ops), groups, {"u0.l0": "mbconv"})}
    assert parts["u0.l0", "block"].block == "mbconv"
    assert parts[both, "block"].block is None
    assert math.fsum(p.traced_s for p in parts.values()) == pytest.approx(len(ops) + 0.5)


def test_a_layer_fused_across_modules_of_a_users_model_names_both() -> None:
    nodes = chain(*((f"m/{i}/{kind}", kind) for i in range(30) for kind in ("Conv", "Add")))
    ops = [fused(n.name, "kgen", n.name) for n in nodes[:57]]
    ops.append(fused("tail", "kgen", *(n.name for n in nodes[57:])))
    groups = group_operators(ops, nodes)
    assert groups.grouped_by == "modules"
    assert groups.parts[-1] == "m/28 + m/29"
