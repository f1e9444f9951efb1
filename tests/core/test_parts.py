"""Operators become parts: by block, by module, by what repeats, and nothing is lost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwprof.errors import ModelError, PlanError
from hwprof.graph import network_graph
from hwprof.measure.records import Fingerprint, Loaded, Measurement, plan_for
from hwprof.parts import comparison, distinct
from hwprof.parts.assembly import assemble, is_same_machine, join_parts, layout_s
from hwprof.parts.comparison import compare_parts, without
from hwprof.parts.grouping import MOST_PARTS, group_operators, module_parts, part_times
from hwprof.parts.model_nodes import ModelNode, NodeFinder, nodes_of_file, nodes_of_graph
from hwprof.parts.records import PartsResult
from hwprof.parts.repeats import repeated_parts
from hwprof.parts.tracing import fastest
from hwprof.protocols import OpTime, OpTrace
from hwprof.space import Slot, get_space
from hwprof.workload import Workload


def op(name: str, op_type: str = "Conv", time_s: float = 1.0, *outputs: str) -> OpTime:
    return OpTime(name=name, op_type=op_type, time_s=time_s, outputs=outputs)


def trace(*ops: OpTime, outside_s: float = 0.5) -> OpTrace:
    return OpTrace(ops=ops, outside_s=outside_s, traced_s=9.0, untraced_s=6.0)


def chain(*specs: tuple[str, str]) -> list[ModelNode]:
    """Return nodes (name, type), each reading what the one before made."""
    nodes = []
    previous = "input"
    for name, op_type in specs:
        scopes = tuple(p for p in name.split("/") if p)
        path = tuple("/".join(scopes[: i + 1]) for i in range(len(scopes)))
        output = f"{name}_output_0"
        nodes.append(
            ModelNode(name=name, op_type=op_type, path=path, inputs=(previous,), outputs=(output,))
        )
        previous = output
    return nodes


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


def onnx_file(folder: Path, nodes: list[onnx.NodeProto], last: str) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [1, 4])],
        [value(last, TensorProto.FLOAT, [1, 4])],
    )
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(path))
    return path


def test_scopes_of_the_newer_exporter_are_read(tmp_path: Path) -> None:
    first = helper.make_node("Relu", ["x"], ["relu"], name="node_relu")
    first.metadata_props.add(
        key="pkg.torch.onnx.name_scopes", value="['', 'blocks.0', 'blocks.0.act', 'relu']"
    )
    second = helper.make_node("Neg", ["relu"], ["y"], name="node_neg")
    second.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="not a list")
    found = nodes_of_file(onnx_file(tmp_path, [first, second], "y"))
    assert found[0].path == ("blocks.0", "blocks.0.act", "blocks.0.act/node_relu")
    assert found[1].path == ("node_neg",)


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


def test_processes_are_chosen_by_what_was_measured() -> None:
    runs = [
        OpTrace(ops=(op("a", "Conv", t),), outside_s=0.0, traced_s=traced, untraced_s=1.0)
        for t, traced in ((5.0, 3.0), (1.0, 4.0), (6.0, 2.0))
    ]
    assert [t.traced_s for t in fastest(runs)] == [2.0, 3.0]


def test_parts_are_joined_by_name_not_by_order() -> None:
    nodes = chain(("/a/Conv", "Conv"), ("/b/Conv", "Conv"))
    first = trace(op("/a/Conv", time_s=1.0), op("/b/Conv", time_s=3.0))
    second = trace(op("/b/Conv", time_s=5.0), op("/a/Conv", time_s=2.0), outside_s=1.5)
    joined = join_parts([part_times(t, group_operators(t.ops, nodes), {}) for t in (first, second)])
    assert {p.part: p.traced_s for p in joined} == {
        "/a/Conv": 1.5,
        "/b/Conv": 4.0,
        "start and end": 1.0,
    }
    assert math.fsum(p.share for p in joined) == pytest.approx(1.0)


def measured(workload: Workload, level_s: float = 12.0, half_s: float = 0.3) -> Measurement:
    return Measurement(
        workload=workload,
        plan=plan_for("quick"),
        fingerprint=Fingerprint(stable={"device": "cpu"}),
        bursts=(),
        loaded=Loaded(load_s=0.1, artifact_bytes=1, peak_memory_bytes=None),
        level_s=level_s,
        ci95_s=(level_s - half_s, level_s + half_s),
        median_s=level_s,
        p90_s=level_s,
        p99_s=level_s,
        verdict="clean",
        evidence=(),
    )


def network(space: str = "mobile-mini", seed: int = 0) -> Workload:
    return Workload.network(get_space(space).sample(np.random.default_rng(seed)))


def traced_network(workload: Workload) -> OpTrace:
    assert workload.arch is not None
    graph = network_graph(get_space(workload.arch.space), workload.arch)
    ops = [op(n.name, n.op, 0.1) for n in graph.live_nodes]
    ops.insert(1, op("ReorderOutput", "ReorderOutput", 0.4))
    return trace(*ops, outside_s=0.2)


def test_result_says_how_well_the_parts_add_up() -> None:
    workload = network()
    run = traced_network(workload)
    found = assemble(measured(workload), [run, run])
    total = sum(o.time_s for o in run.ops) + 0.2
    assert found.sum_s == pytest.approx(total)
    assert found.residual_pct == pytest.approx(100 * (total / 12.0 - 1))
    assert found.residual_untraced_pct == pytest.approx(100 * (total / 6.0 - 1))
    assert found.is_reconciled == (abs(total / 12.0 - 1) <= 0.03)
    assert found.slowdown == 1.5
    assert found.time_of("layout") == pytest.approx(0.4)
    assert layout_s(workload, [run]) == pytest.approx(0.4)
    frame = found.to_frame()
    assert len(frame) == len(found.parts)
    assert frame.loc[frame.kind == "block", "traced_s"].sum() == pytest.approx(total - 0.6)
    assert "mbconv" in found._repr_html_()
    data = found.to_json()
    assert data["level_s"] == 12.0
    assert data["reconciliation"]["limit_pct"] == 3.0
    assert [p["part"] for p in data["parts"]] == [p.part for p in found.parts]


@pytest.mark.parametrize(
    ("level_s", "same"), [(6.0, True), (6.11, True), (6.2, False), (5.8, False)]
)
def test_a_level_from_another_mode_of_the_machine_is_noticed(level_s: float, same: bool) -> None:
    workload = network()
    run = traced_network(workload)
    assert run.untraced_s == 6.0
    slow = replace(run, traced_s=2 * run.traced_s, untraced_s=2 * run.untraced_s)
    # The slower half of the processes does not count.
    assert is_same_machine(measured(workload, level_s), [run, run, slow, slow]) is same


def test_every_block_of_the_network_is_a_part() -> None:
    workload = network()
    assert workload.arch is not None
    found = assemble(measured(workload), [traced_network(workload)])
    space = get_space(workload.arch.space)
    expected = [p.scope for p in space.pieces(workload.arch)]
    assert [p.part for p in found.parts if p.kind == "block"] == expected
    blocks = {p.part: p.block for p in found.parts if p.kind == "block"}
    assert blocks == {p.scope: p.block for p in space.pieces(workload.arch)}


def test_optional_layers_are_left_out() -> None:
    deep = get_space("mobile-mini")
    arch = deep.sample(np.random.default_rng(0))
    for unit, blocks in enumerate(arch.units):
        last = Slot(unit, len(blocks) - 1)
        shorter = without(deep, arch, last)
        if len(blocks) - 1 in deep.depths(unit):
            assert shorter is not None
            assert shorter.units[unit] == blocks[:-1]
            deep.validate(shorter)
        else:
            assert shorter is None
        if len(blocks) > 1:
            assert without(deep, arch, Slot(unit, 0)) is None
    skipping = get_space("proxylessnas")
    net = skipping.sample(np.random.default_rng(3))
    assert without(skipping, net, Slot(0, 0)) is None
    left_out = without(skipping, net, Slot(0, 1))
    assert left_out is not None
    assert left_out.units[0][1] == "skip"
    skipping.validate(left_out)
    cell = get_space("nasbench201")
    assert without(cell, cell.sample(np.random.default_rng(0)), Slot(0, 0)) is None


def compared(workload: Workload) -> PartsResult:
    beside = comparison(workload)
    found = assemble(measured(workload), [traced_network(workload)])
    results = {w.key: measured(w, 11.0, 0.4) for w in beside.without.values()}
    results |= {w.key: measured(w, 2.0, 0.1) for w in beside.alone.values()}
    return compare_parts(found, beside, results, {w.key: 0.5 for w in beside.alone.values()})


def test_what_was_timed_beside_stands_beside() -> None:
    workload = network()
    beside = comparison(workload)
    found = compared(workload)
    for part in found.parts:
        if part.kind != "block":
            assert part.isolated_hot_s is None
            continue
        assert part.isolated_hot_s is not None
        assert part.isolated_hot_s.value == 2.0
        assert part.isolated_layout_s == 0.5
        assert (part.differential_s is not None) == (part.part in beside.without)
        if part.differential_s is not None:
            assert part.differential_s.value == pytest.approx(1.0)
            assert part.differential_s.half_width == pytest.approx(0.5)  # hypot(0.3, 0.4)
    assert beside.without
    assert len(distinct(beside.workloads)) == len(beside.workloads)


def test_what_failed_stays_empty() -> None:
    workload = network()
    found = assemble(measured(workload), [traced_network(workload)])
    kept = compare_parts(found, comparison(workload), {}, {})
    assert all(p.isolated_hot_s is None and p.differential_s is None for p in kept.parts)


def test_models_of_the_users_own_have_no_blocks_to_run_alone(tmp_path: Path) -> None:
    path = onnx_file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], "y")
    with pytest.raises(PlanError, match="--isolated"):
        comparison(Workload.from_file(path))


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
