"""From a graph to ONNX, written directly: no tracing, batch norm folded into convolutions.

Opset 20 and IR version 9 are read by every runtime that hwprof drives; bfloat16 needs later ones,
in which convolutions, pools and hard activations take it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hwprof.graph.ir import Graph, Node
from hwprof.graph.weights import (
    Weights,
    bias_name,
    check_weights,
    random_weights,
    weight_name,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

OPSET = 20
IR_VERSION = 9
BF16_OPSET = 22
BF16_IR_VERSION = 10

FloatType = Literal["fp32", "fp16", "bf16"]

_ZERO, _SIX = "const.0", "const.6"
_BF16_NAN = np.uint32(0x7FC0)


def to_onnx(
    graph: Graph,
    *,
    seed: int = 0,
    weights: Weights | None = None,
    batch: int = 1,
    float_type: FloatType = "fp32",
) -> bytes:
    """Return the graph as a serialised ONNX model with the fixed input (batch, C, H, W).

    Every operator bears its node's name, so a runtime's trace maps back to blocks. ``weights``
    are folded (:mod:`hwprof.graph.weights`); without them they are drawn from ``seed``. All
    tensors are of ``float_type``, input and output too; weights are rounded to nearest even.

    Zeros are written as the input times zero, as in NAS-Bench-201's code: a constant would let
    a runtime fold away convolutions that the cost counts, and a `none` alone would not use its
    input. Edges of a cell that are `none` beside others are left out of the sum instead, and
    operators that never reach the output are left out altogether.

    Raises:
        ModelError: the weights are not those of the graph.
    """
    from onnx import helper

    if weights is None:
        weights = random_weights(graph, seed=seed)
    else:
        check_weights(graph, weights)
    arrays: dict[str, NDArray[np.float32]] = {}
    nodes = [_node_proto(node, weights, arrays) for node in graph.live_nodes]
    element = _element_type(float_type)
    output = helper.make_tensor_value_info(graph.output, element, (batch, *graph.output_shape))
    proto = helper.make_graph(
        nodes,
        graph.name,
        [helper.make_tensor_value_info(t.name, element, (batch, *t.shape)) for t in graph.inputs],
        [output],
    )
    is_late = float_type == "bf16"
    model = helper.make_model(
        proto,
        producer_name="hwprof",
        ir_version=BF16_IR_VERSION if is_late else IR_VERSION,
        opset_imports=[helper.make_opsetid("", BF16_OPSET if is_late else OPSET)],
    )
    return _with_initializers(model, arrays, float_type)


@dataclass(frozen=True, kw_only=True)
class _OnnxOp:
    """An ONNX operator: its type, its attributes, and constants after the node's own inputs."""

    op_type: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: tuple[str, ...] = ()


def _conv(node: Node) -> _OnnxOp:
    return _OnnxOp(op_type="Conv", attributes={**_window(node), "group": node.groups})


def _average_pool(node: Node) -> _OnnxOp:
    return _OnnxOp(
        op_type="AveragePool",
        attributes={**_window(node), "ceil_mode": int(node.ceil_mode), "count_include_pad": 0},
    )


def _max_pool(node: Node) -> _OnnxOp:
    # Left out where it is the default, so that models keep their bytes.
    beyond = {"ceil_mode": 1} if node.ceil_mode else {}
    return _OnnxOp(op_type="MaxPool", attributes={**_window(node), **beyond})


def _window(node: Node) -> dict[str, list[int]]:
    return {
        "kernel_shape": [node.kernel] * 2,
        "strides": [node.stride] * 2,
        "pads": [node.padding] * 4,
    }


_OPS: dict[str, Callable[[Node], _OnnxOp]] = {
    "conv": _conv,
    "linear": lambda node: _OnnxOp(op_type="Gemm", attributes={"transB": 1}),
    # Mean 0 and variance 1 follow the folded factor and shift; see _node_proto.
    "batch_norm": lambda node: _OnnxOp(op_type="BatchNormalization", attributes={"epsilon": 0.0}),
    "relu": lambda node: _OnnxOp(op_type="Relu"),
    "relu6": lambda node: _OnnxOp(op_type="Clip", constants=(_ZERO, _SIX)),
    "hswish": lambda node: _OnnxOp(op_type="HardSwish"),
    "hsigmoid": lambda node: _OnnxOp(
        op_type="HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.5}
    ),
    "add": lambda node: _OnnxOp(op_type="Add"),
    "mul": lambda node: _OnnxOp(op_type="Mul"),
    "avg_pool": _average_pool,
    "max_pool": _max_pool,
    "global_pool": lambda node: _OnnxOp(op_type="GlobalAveragePool"),
    "flatten": lambda node: _OnnxOp(op_type="Flatten"),
    "zeros": lambda node: _OnnxOp(op_type="Mul", constants=(_ZERO,)),
    "identity": lambda node: _OnnxOp(op_type="Identity"),
}

_CONSTANTS = {_ZERO: np.float32(0), _SIX: np.float32(6)}


def _node_proto(node: Node, weights: Weights, arrays: dict[str, NDArray[np.float32]]) -> NodeProto:
    """Translate one node; what it needs beside tensors is added to ``arrays``."""
    from onnx import helper

    op = _OPS[node.op](node)
    inputs = [*node.inputs, *op.constants]
    arrays.update({name: np.asarray(_CONSTANTS[name]) for name in op.constants})
    if node.weight_shape is not None:
        names = [weight_name(node)] + ([bias_name(node)] if node.has_folded_bias else [])
        arrays.update({name: weights[name] for name in names})
        inputs += names
    if node.op == "batch_norm":
        mean, variance = f"{node.name}.mean", f"{node.name}.variance"
        arrays[mean] = np.zeros(node.shape[0], dtype=np.float32)
        arrays[variance] = np.ones(node.shape[0], dtype=np.float32)
        inputs += [mean, variance]
    return helper.make_node(op.op_type, inputs, [node.name], name=node.name, **op.attributes)


def _element_type(float_type: FloatType) -> int:
    from onnx import TensorProto

    types = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    return int(types[float_type])


def _encoded(array: NDArray[np.float32], float_type: FloatType) -> NDArray[np.generic]:
    """Return an array as ONNX keeps it: little-endian, bfloat16 as its 16 bits."""
    if float_type == "fp32":
        return np.ascontiguousarray(array, dtype="<f4")
    if float_type == "fp16":
        return np.ascontiguousarray(array, dtype="<f2")
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    # The upper half of a float32, rounded to nearest, ties to even. A NaN's bits would overflow.
    rounded = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return np.where(np.isnan(bits.view("<f4")), _BF16_NAN, rounded >> np.uint32(16)).astype("<u2")


def _with_initializers(
    model: ModelProto, arrays: Mapping[str, NDArray[np.float32]], float_type: FloatType
) -> bytes:
    """Serialise the model with ``arrays`` as the initializers of its graph.

    The weights are laid into the byte string by hand (a field of a protobuf message is its
    key, its length and its bytes, in any order): protobuf's own serialiser would copy them
    four times and take most of the time of a large network.
    """
    from onnx import GraphProto, ModelProto, TensorProto

    graph: list[bytes | memoryview] = [model.graph.SerializeToString()]
    n_bytes = len(graph[0])
    element = _element_type(float_type)
    for name, array in arrays.items():
        data = _encoded(array, float_type)
        header = TensorProto(name=name, data_type=element, dims=array.shape)
        start = header.SerializeToString()
        start += _field_key(TensorProto.RAW_DATA_FIELD_NUMBER, data.nbytes)
        start = _field_key(GraphProto.INITIALIZER_FIELD_NUMBER, len(start) + data.nbytes) + start
        graph += [start, data.data]
        n_bytes += len(start) + data.nbytes
    model.ClearField("graph")
    key = _field_key(ModelProto.GRAPH_FIELD_NUMBER, n_bytes)
    return b"".join([model.SerializeToString(), key, *graph])


def _field_key(number: int, n_bytes: int) -> bytes:
    """Return the protobuf key and length of a field that holds ``n_bytes`` bytes."""
    return _varint(number << 3 | 2) + _varint(n_bytes)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
