"""From pieces to operators: every block of every design space, spelled out.

Sources of the layouts: MBConv, squeeze-excite, heads and bottlenecks as in once-for-all (Cai
et al., ICLR 2020) and ProxylessNAS (Cai et al., ICLR 2019); cells as in NAS-Bench-201 (Dong &
Yang, ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hwprof.errors import ModelError, SpaceError
from hwprof.graph.ir import Graph, GraphBuilder
from hwprof.space.architecture import Architecture
from hwprof.space.lookup import space_of
from hwprof.space.nasbench201 import ENDS
from hwprof.space.pieces import (
    BottleneckPiece,
    CellOpPiece,
    CellPiece,
    ChainPiece,
    ConvPiece,
    HeadPiece,
    MBConvPiece,
    Piece,
    ReductionPiece,
    ResNetStemPiece,
    SkipPiece,
    make_divisible,
)
from hwprof.space.space import DesignSpace
from hwprof.workload import Workload

P = TypeVar("P", bound=Piece)
Emit = Callable[[GraphBuilder, P, str], str]
"""Adds a piece to a builder: (builder, piece, input tensor) → output tensor."""

EMITTERS: dict[type[Piece], Emit[Any]] = {}
"""How each type of piece is built; :func:`emits` adds to it."""


def emits(piece_type: type[P]) -> Callable[[Emit[P]], Emit[P]]:
    """Register the decorated function as the way to build pieces of ``piece_type``."""

    def register(emit: Emit[P]) -> Emit[P]:
        EMITTERS[piece_type] = emit
        return emit

    return register


def network_graph(space: DesignSpace, arch: Architecture) -> Graph:
    """Return the graph of a whole network, from the image (3, H, W) to the logits.

    Raises:
        SpaceError: the architecture is not one of the space's.
    """
    placed = space.pieces(arch)
    first = placed[0].piece
    builder = GraphBuilder(f"{arch.space}-{arch.arch_id}", _input_shape(first))
    x = builder.input
    for part in placed:
        with builder.scope(part.scope):
            x = _emit(builder, part.piece, x)
    return builder.finish(x)


def piece_graph(piece: Piece) -> Graph:
    """Return the graph of one piece alone, at its true input shape; its scope is its kind.

    Raises:
        SpaceError: the piece's fields contradict each other.
    """
    builder = GraphBuilder(piece.kind, _input_shape(piece))
    with builder.scope(piece.kind):
        output = _emit(builder, piece, builder.input)
    return builder.finish(output)


def workload_graph(workload: Workload) -> Graph:
    """Return the graph of a workload that is a network or a block.

    Raises:
        ModelError: the workload is a user's own model, which has no neutral graph.
    """
    if workload.piece is not None:
        return piece_graph(workload.piece)
    if workload.arch is not None:
        return network_graph(space_of(workload.arch), workload.arch)
    raise ModelError(
        f"{workload.label!r} is a model of your own, which is run as it is; expected a network "
        "of a design space or one of its blocks"
    )


def _input_shape(piece: Piece) -> tuple[int, int, int]:
    return (piece.in_channels, piece.size_px, piece.size_px)


def _emit(builder: GraphBuilder, piece: Piece, x: str) -> str:
    emit = EMITTERS.get(type(piece))
    if emit is None:
        raise SpaceError(
            f"nothing knows how to build a block of kind {piece.kind!r}; register a function "
            "with hwprof.graph.emits"
        )
    if builder.shape(x) != _input_shape(piece):
        raise SpaceError(
            f"a {piece.kind!r} block expects an input of shape {_input_shape(piece)}, but what "
            f"precedes it gives {builder.shape(x)}"
        )
    y = emit(builder, piece, x)
    wanted = (piece.n_out_channels, piece.out_size_px, piece.out_size_px)
    if not isinstance(piece, HeadPiece) and builder.shape(y) != wanted:
        raise SpaceError(
            f"a {piece.kind!r} block builds an output of shape {builder.shape(y)}; its fields say "
            f"{wanted}"
        )
    return y


@emits(ChainPiece)
def _chain(builder: GraphBuilder, piece: ChainPiece, x: str) -> str:
    for index, part in enumerate(piece.pieces):
        with builder.scope(f"p{index}"):
            x = _emit(builder, part, x)
    return x


@emits(ConvPiece)
def _conv(builder: GraphBuilder, piece: ConvPiece, x: str) -> str:
    y = builder.conv(
        x,
        "conv",
        piece.out_channels,
        kernel=piece.kernel,
        stride=piece.stride,
        norm_eps=piece.bn_eps,
    )
    return builder.act(y, piece.act)


@emits(MBConvPiece)
def _mbconv(builder: GraphBuilder, piece: MBConvPiece, x: str) -> str:
    mid = piece.mid_channels
    y = x
    if piece.expand != 1:
        y = builder.act(builder.conv(y, "expand", mid, norm_eps=piece.bn_eps), piece.act)
    y = builder.conv(
        y,
        "depthwise",
        mid,
        kernel=piece.kernel,
        stride=piece.stride,
        groups=mid,
        norm_eps=piece.bn_eps,
    )
    y = builder.act(y, piece.act)
    if piece.squeeze_excite:
        y = _squeeze_excite(builder, y, mid)
    y = builder.conv(y, "project", piece.out_channels, norm_eps=piece.bn_eps)
    return builder.add(y, x, "add") if piece.shortcut else y


def _squeeze_excite(builder: GraphBuilder, x: str, channels: int) -> str:
    with builder.scope("se"):
        gate = builder.global_pool(x, "pool")
        gate = builder.conv(gate, "reduce", make_divisible(channels // 4), bias=True)
        gate = builder.act(gate, "relu")
        gate = builder.conv(gate, "expand", channels, bias=True)
        return builder.scale(x, builder.act(gate, "hsigmoid"), "scale")


@emits(SkipPiece)
def _skip(builder: GraphBuilder, piece: SkipPiece, x: str) -> str:
    return x


@emits(ResNetStemPiece)
def _resnet_stem(builder: GraphBuilder, piece: ResNetStemPiece, x: str) -> str:
    eps = piece.bn_eps
    x = builder.conv(x, "conv1", piece.mid_channels, kernel=3, stride=2, norm_eps=eps)
    x = builder.act(x, "relu")
    if piece.residual:
        y = builder.conv(x, "conv2", piece.mid_channels, kernel=3, norm_eps=eps)
        x = builder.add(builder.act(y, "relu"), x, "add")
    x = builder.conv(x, "conv3", piece.out_channels, kernel=3, norm_eps=eps)
    x = builder.act(x, "relu")
    return builder.pool(x, "pool", "max_pool", kernel=3, stride=2)


@emits(BottleneckPiece)
def _bottleneck(builder: GraphBuilder, piece: BottleneckPiece, x: str) -> str:
    eps, stride = piece.bn_eps, piece.stride
    y = builder.act(builder.conv(x, "reduce", piece.mid_channels, norm_eps=eps), "relu")
    y = builder.conv(y, "conv", piece.mid_channels, kernel=3, stride=stride, norm_eps=eps)
    y = builder.act(y, "relu")
    y = builder.conv(y, "expand", piece.out_channels, norm_eps=eps)
    if piece.downsample:
        with builder.scope("shortcut"):
            if stride > 1:
                x = builder.pool(x, "pool", "avg_pool", kernel=stride, stride=stride)
            x = builder.conv(x, "conv", piece.out_channels, norm_eps=eps)
    return builder.act(builder.add(y, x, "add"), "relu")


@emits(HeadPiece)
def _head(builder: GraphBuilder, piece: HeadPiece, x: str) -> str:
    if piece.pre_norm:
        x = builder.act(builder.batch_norm(x, "norm", piece.bn_eps), "relu")
    if piece.feature_channels:
        x = builder.conv(x, "features", piece.feature_channels, norm_eps=piece.bn_eps)
        x = builder.act(x, piece.act)
    x = builder.global_pool(x, "pool")
    if piece.last_channels:
        x = builder.act(builder.conv(x, "last", piece.last_channels), piece.act)
    return builder.linear(builder.flatten(x, "flatten"), "classifier", piece.n_classes)


@emits(CellPiece)
def _cell(builder: GraphBuilder, piece: CellPiece, x: str) -> str:
    """Build all six edges, also those that never reach the output, as published costs do."""
    nodes = [x]
    for target in (1, 2, 3):
        incoming: list[str] = []
        for edge, (source, end) in enumerate(ENDS):
            if end == target and piece.ops[edge] != "none":
                with builder.scope(f"edge{edge}"):
                    incoming.append(_cell_edge(builder, piece.ops[edge], nodes[source], piece))
        with builder.scope(f"node{target}"):
            nodes.append(_sum(builder, incoming) if incoming else builder.zeros(x, "zeros"))
    return nodes[3]


def _sum(builder: GraphBuilder, tensors: list[str]) -> str:
    total = tensors[0]
    for index, tensor in enumerate(tensors[1:]):
        total = builder.add(total, tensor, f"add{index}")
    return total


def _cell_edge(builder: GraphBuilder, op: str, x: str, piece: CellPiece | CellOpPiece) -> str:
    if op == "none":
        return builder.zeros(x, "zeros")
    if op == "skip_connect":
        return x
    if op == "avg_pool_3x3":
        return builder.pool(x, "pool", "avg_pool", kernel=3, stride=1)
    kernels = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
    if op not in kernels:
        raise SpaceError(
            f"unknown operator {op!r} in a cell; expected none, skip_connect, nor_conv_1x1, "
            "nor_conv_3x3 or avg_pool_3x3"
        )
    return _relu_conv_norm(
        builder, x, piece.in_channels, kernel=kernels[op], stride=1, eps=piece.bn_eps
    )


def _relu_conv_norm(
    builder: GraphBuilder, x: str, channels: int, *, kernel: int, stride: int, eps: float
) -> str:
    y = builder.relu_before(x, "relu")
    return builder.conv(y, "conv", channels, kernel=kernel, stride=stride, norm_eps=eps)


@emits(CellOpPiece)
def _cell_op(builder: GraphBuilder, piece: CellOpPiece, x: str) -> str:
    return _cell_edge(builder, piece.op, x, piece)


@emits(ReductionPiece)
def _reduction(builder: GraphBuilder, piece: ReductionPiece, x: str) -> str:
    eps, channels, stride = piece.bn_eps, piece.out_channels, piece.stride
    with builder.scope("a"):
        y = _relu_conv_norm(builder, x, channels, kernel=3, stride=stride, eps=eps)
    with builder.scope("b"):
        y = _relu_conv_norm(builder, y, channels, kernel=3, stride=1, eps=eps)
    with builder.scope("shortcut"):
        if stride > 1:
            x = builder.pool(x, "pool", "avg_pool", kernel=stride, stride=stride)
        x = builder.conv(x, "conv", channels)
    return builder.add(y, x, "add")
