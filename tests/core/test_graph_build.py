"""Pieces become the operators that the papers and their code describe."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
import pytest

from hwprof.errors import ModelError, SpaceError
from hwprof.graph import emits, network_graph, piece_graph, to_onnx, workload_graph
from hwprof.graph.build import EMITTERS
from hwprof.space import get_space
from hwprof.space.pieces import (
    PIECES,
    BottleneckPiece,
    CellOpPiece,
    CellPiece,
    HeadPiece,
    MBConvPiece,
    Piece,
    SkipPiece,
)
from hwprof.workload import InputSpec, Workload

MBCONV = MBConvPiece(
    in_channels=40,
    size_px=28,
    out_channels=40,
    kernel=5,
    expand=6,
    stride=1,
    act="hswish",
    squeeze_excite=True,
    shortcut=True,
    bn_eps=1e-5,
)


def ops_of(piece: Piece) -> list[str]:
    return [node.op for node in piece_graph(piece).nodes]


def test_every_kind_of_piece_can_be_built():
    assert set(PIECES.values()) <= set(EMITTERS)


def test_mbconv_order_and_names():
    """OFA: 1×1 norm act; depthwise norm act gate; 1×1 norm; sum."""
    graph = piece_graph(MBCONV)
    assert [node.name for node in graph.nodes] == [
        "mbconv/expand",
        "mbconv/expand/hswish",
        "mbconv/depthwise",
        "mbconv/depthwise/hswish",
        "mbconv/se/pool",
        "mbconv/se/reduce",
        "mbconv/se/reduce/relu",
        "mbconv/se/expand",
        "mbconv/se/expand/hsigmoid",
        "mbconv/se/scale",
        "mbconv/project",
        "mbconv/add",
    ]
    assert [n.name for n in graph.nodes if n.bias] == ["mbconv/se/reduce", "mbconv/se/expand"]
    assert sum(n.norm_eps is not None for n in graph.nodes) == 3


def test_mbconv_costs_by_hand():
    """40→240→40 channels at 28×28, kernel 5, gate 240→64→240 (60 rounds up to 64)."""
    graph = piece_graph(MBCONV)
    pixels = 28 * 28
    expand, depthwise, project = 40 * 240 * pixels, 25 * 240 * pixels, 240 * 40 * pixels
    gate = 240 * 64 + 64 * 240
    assert graph.macs == expand + depthwise + gate + project == 19_787_520
    norms = 2 * (240 + 240 + 40)
    assert graph.params == 40 * 240 + 25 * 240 + 240 * 40 + norms + gate + 64 + 240 == 57_264


@pytest.mark.parametrize("width", [40, 12])
def test_mbconv_without_expansion_begins_with_the_depthwise(width):
    plain = replace(MBCONV, expand=1, squeeze_excite=False, shortcut=False, act="relu")
    plain = replace(plain, in_channels=width)  # one that is no multiple of 8 is not rounded up
    assert ops_of(plain) == ["conv", "relu", "conv"]
    assert piece_graph(plain).nodes[0].groups == width


def test_a_shortcut_needs_equal_shapes():
    with pytest.raises(SpaceError, match="shortcut needs stride 1"):
        piece_graph(replace(MBCONV, stride=2))


@pytest.mark.parametrize(("stride", "pools"), [(1, 0), (2, 1)])
def test_bottleneck_shortcut(stride, pools):
    ops = ops_of(
        BottleneckPiece(
            in_channels=8,
            size_px=13,
            mid_channels=4,
            out_channels=16,
            stride=stride,
            downsample=True,
            bn_eps=1e-5,
        )
    )
    assert ops.count("avg_pool") == pools
    assert ops.count("conv") == 4
    assert ops[-2:] == ["add", "relu"]


def test_mobilenet_v3_head_pools_between_its_convolutions():
    head = HeadPiece(
        in_channels=160,
        size_px=7,
        feature_channels=960,
        last_channels=1280,
        n_classes=1000,
        act="hswish",
        bn_eps=1e-5,
    )
    graph = piece_graph(head)
    assert [node.op for node in graph.nodes] == [
        "conv",
        "hswish",
        "global_pool",
        "conv",
        "hswish",
        "flatten",
        "linear",
    ]
    # 960 norms; the layer after the pool has neither norm nor bias.
    assert graph.params == 160 * 960 + 2 * 960 + 960 * 1280 + 1280 * 1000 + 1000


def test_cell_sums_edges_and_leaves_out_none():
    """NAS-Bench-201's ResNet cell: node 1 = conv, node 2 = conv of node 1, node 3 = 0 + 2."""
    cell = CellPiece(
        in_channels=16,
        size_px=8,
        ops=("nor_conv_3x3", "none", "nor_conv_3x3", "skip_connect", "none", "skip_connect"),
        bn_eps=1e-5,
    )
    graph = piece_graph(cell)
    assert [node.op for node in graph.nodes] == ["relu", "conv", "relu", "conv", "add"]
    assert graph.nodes[-1].inputs == ("input", "cell/edge2/conv")


def test_cell_node_without_edges_is_zeros():
    cell = CellPiece(in_channels=4, size_px=8, ops=("none",) * 6, bn_eps=1e-5)
    assert set(ops_of(cell)) == {"zeros"}


def test_cell_counts_edges_that_lead_nowhere():
    """NAS-Bench-201's costs count the six edges alike (dead ones included)."""
    dead = ("nor_conv_3x3", "none", "none", "skip_connect", "none", "none")
    live = ("none", "none", "none", "nor_conv_3x3", "none", "none")
    costs = [
        piece_graph(CellPiece(in_channels=4, size_px=8, ops=ops, bn_eps=1e-5)).macs
        for ops in (dead, live)
    ]
    assert costs[0] == costs[1] == 4 * 4 * 9 * 64


def test_cell_runs_only_what_reaches_its_output():
    dead_ends = ("nor_conv_3x3", "nor_conv_1x1", "nor_conv_1x1", "skip_connect", "none", "none")
    cell = CellPiece(in_channels=4, size_px=8, ops=dead_ends, bn_eps=1e-5)
    graph = piece_graph(cell)
    assert len(graph.nodes) == 8  # three convolutions with their ReLU, a sum, the identity
    assert [node.op for node in graph.live_nodes] == ["identity"]
    assert [node.op_type for node in onnx.load_from_string(to_onnx(graph)).graph.node] == [
        "Identity"
    ]


def test_blocks_that_do_nothing_are_still_graphs():
    assert ops_of(SkipPiece(in_channels=4, size_px=8)) == ["identity"]
    assert ops_of(CellOpPiece(in_channels=4, size_px=8, op="none", bn_eps=1e-5)) == ["zeros"]


def test_unknown_cell_operator_is_named():
    with pytest.raises(SpaceError, match="'nor_conv_9x9' in a cell; expected none"):
        piece_graph(CellOpPiece(in_channels=4, size_px=8, op="nor_conv_9x9", bn_eps=1e-5))


@dataclass(frozen=True, kw_only=True)
class DoubledPiece(Piece):
    kind: ClassVar[str] = "doubled"


def test_a_piece_of_ones_own_needs_an_emitter(monkeypatch):
    piece = DoubledPiece(in_channels=4, size_px=8)
    with pytest.raises(SpaceError, match="nothing knows how to build a block of kind 'doubled'"):
        piece_graph(piece)
    monkeypatch.setattr("hwprof.graph.build.EMITTERS", EMITTERS.copy())
    emits(DoubledPiece)(lambda builder, piece, x: builder.add(x, x, "twice"))
    assert ops_of(piece) == ["add"]


def test_networks_and_blocks_have_a_graph_and_a_users_model_has_none():
    assert workload_graph(Workload.block(MBCONV, "block")) == piece_graph(MBCONV)
    space = get_space("mobile-mini")
    arch = space.sample(np.random.default_rng(0))
    assert workload_graph(Workload.network(arch)) == network_graph(space, arch)
    model = Workload.from_callable("pkg:net", (InputSpec(name="x", shape=(1, 3, 8, 8)),))
    with pytest.raises(ModelError, match=r"'pkg:net' is a model of your own"):
        workload_graph(model)
