"""From a graph to a ``.tflite`` file, written directly: batch norm folded, NHWC.

Inputs and outputs of the file are NHWC, so no operator transposes anything. A ReLU or ReLU6
goes into the operator before it where nothing else reads that, as every converter does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwprof.devices.litert.tflite_file import TfliteFile
from hwprof.errors import ModelError
from hwprof.graph.ir import Graph, Node, Shape
from hwprof.graph.weights import (
    Weights,
    bias_name,
    check_weights,
    random_weights,
    weight_name,
)

_FUSING = frozenset({"conv", "linear", "batch_norm", "add", "mul"})
_FUSED = {"relu": "RELU", "relu6": "RELU6"}
_NOT_NEGATIVE = frozenset({"relu", "relu6", "hsigmoid"})
_HEIGHT_AND_WIDTH = (1, 2)
_NHWC_TO_NCHW = (0, 3, 1, 2)


def to_tflite(
    graph: Graph, *, seed: int = 0, weights: Weights | None = None, batch: int = 1
) -> bytes:
    """Return the graph as a ``.tflite`` file with the fixed input (batch, H, W, C).

    ``weights`` are folded (:mod:`hwprof.graph.weights`); without them they are drawn from
    ``seed``, the same ones that :func:`hwprof.graph.to_onnx` draws. A tensor bears the name of
    the node that makes it, of the activation where that went into the operator.

    Raises:
        ModelError: the weights are not those of the graph, or a pool has no equal in TFLite.
        MissingExtraError: ai-edge-litert is not installed.
    """
    if weights is None:
        weights = random_weights(graph, seed=seed)
    else:
        check_weights(graph, weights)
    return _Writer(graph, weights, batch).write()


def nhwc(array: NDArray[Any]) -> NDArray[Any]:
    """Return an (N, C, H, W) array as (N, H, W, C); others as they are."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array


def nchw(array: NDArray[Any]) -> NDArray[Any]:
    """Return an (N, H, W, C) array as (N, C, H, W); others as they are."""
    return np.ascontiguousarray(array.transpose(_NHWC_TO_NCHW)) if array.ndim == 4 else array


class _Writer:
    def __init__(self, graph: Graph, weights: Weights, batch: int) -> None:
        self._graph, self._weights, self._batch = graph, weights, batch
        self._file = TfliteFile(graph.name)
        self._schema = self._file.schema
        self._nodes = {node.name: node for node in graph.live_nodes}
        self._activations = _fused_activations(graph)
        self._tensors: dict[str, int] = {}

    def _translations(self) -> Mapping[str, Callable[[Node, list[int], int], None]]:
        """Return by operator what writes it.

        Not an attribute: in such a cycle weights and buffers would outlive the writer.
        """
        return {
            "conv": self._conv,
            "linear": self._linear,
            "batch_norm": self._batch_norm,
            "relu": lambda node, x, y: self._file.operator("RELU", x, y),
            "relu6": lambda node, x, y: self._file.operator("RELU6", x, y),
            "hswish": lambda node, x, y: self._file.operator(
                "HARD_SWISH", x, y, self._schema.HardSwishOptionsT()
            ),
            "hsigmoid": self._hsigmoid,
            "add": lambda node, x, y: self._add(x, y, self._activation(node)),
            "mul": lambda node, x, y: self._mul(x, y, self._activation(node)),
            "avg_pool": self._avg_pool,
            "max_pool": self._max_pool,
            "global_pool": self._global_pool,
            "flatten": self._flatten,
            # As in ONNX: what is multiplied by zero still uses its input.
            "zeros": lambda node, x, y: self._mul([*x, self._scalar(0.0)], y),
            # A copy: TFLite has no identity, and an output must not be the input itself.
            "identity": self._reshape,
        }

    def write(self) -> bytes:
        translate = self._translations()
        for spec in self._graph.inputs:
            self._tensors[spec.name] = self._file.tensor(spec.name, self._shape(spec.shape))
        for node in self._graph.live_nodes:
            if node.name in self._tensors:  # an activation that is in the operator before it
                continue
            last = self._activations.get(node.name, node)
            output = self._file.tensor(last.name, self._shape(node.shape))
            translate[node.op](node, [self._tensors[x] for x in node.inputs], output)
            self._tensors[last.name] = output
        name = self._graph.output
        return self._file.to_bytes(
            {spec.name: self._tensors[spec.name] for spec in self._graph.inputs},
            {name: self._tensors[name]},
        )

    def _shape(self, shape: Shape) -> tuple[int, ...]:
        """Return a graph's shape with the batch, channels last."""
        return (self._batch, *shape[1:], shape[0])

    def _activation(self, node: Node) -> int:
        fused = self._activations.get(node.name)
        name = _FUSED[fused.op] if fused is not None else "NONE"
        return int(getattr(self._schema.ActivationFunctionType, name))

    def _scalar(self, value: float) -> int:
        return self._file.constant(f"const.{value:g}", np.array(value, dtype=np.float32))

    def _integers(self, name: str, values: object) -> int:
        return self._file.constant(name, np.array(values, dtype=np.int32))

    def _weight(self, node: Node, array: NDArray[np.float32]) -> int:
        return self._file.constant(weight_name(node), array)

    def _bias(self, node: Node) -> int:
        """Return the bias; zeros where there is none, for older runtimes insist on one."""
        zeros = np.zeros(node.shape[0], dtype=np.float32)
        return self._file.constant(bias_name(node), self._weights.get(bias_name(node), zeros))

    def _conv(self, node: Node, inputs: list[int], output: int) -> None:
        schema, weight = self._schema, self._weights[weight_name(node)]
        x, padding = self._padded(node, inputs[0])
        options: dict[str, Any] = {
            "padding": padding,
            "strideH": node.stride,
            "strideW": node.stride,
            "fusedActivationFunction": self._activation(node),
        }
        if node.groups == node.in_channels > 1:
            multiplier = node.shape[0] // node.in_channels
            filters = self._weight(node, weight.transpose(1, 2, 3, 0))
            code = "DEPTHWISE_CONV_2D"
            settings = schema.DepthwiseConv2DOptionsT(**options, depthMultiplier=multiplier)
        else:
            filters = self._weight(node, weight.transpose(0, 2, 3, 1))
            code, settings = "CONV_2D", schema.Conv2DOptionsT(**options)
        self._file.operator(code, [x, filters, self._bias(node)], output, settings)

    def _padded(self, node: Node, x: int, lowest: float | None = None) -> tuple[int, int]:
        """Return the input and the padding of an operator with a window.

        ``SAME`` pads as the graph does wherever it puts as many pixels before the image;
        elsewhere (stride 2 on an even size) an operator of its own pads with zeros, or with
        ``lowest``.
        """
        schema = self._schema
        sizes = self._graph.shapes[node.inputs[0]]
        if all(
            _before(node, size, out) == node.padding
            for size, out in zip(sizes[1:], node.shape[1:], strict=True)
        ):
            return x, int(schema.Padding.SAME)
        pad = node.padding
        amounts = self._integers(f"const.pad{pad}", [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        wide = (sizes[0], sizes[1] + 2 * pad, sizes[2] + 2 * pad)
        padded = self._file.tensor(f"{node.name}.padded", self._shape(wide))
        if lowest is None:
            self._file.operator("PAD", [x, amounts], padded, schema.PadOptionsT())
        else:
            value = self._scalar(lowest)
            self._file.operator("PADV2", [x, amounts, value], padded, schema.PadV2OptionsT())
        return padded, int(schema.Padding.VALID)

    def _linear(self, node: Node, inputs: list[int], output: int) -> None:
        weight = self._weight(node, self._weights[weight_name(node)])
        options = self._schema.FullyConnectedOptionsT(
            fusedActivationFunction=self._activation(node)
        )
        inputs = [*inputs, weight, self._bias(node)]
        self._file.operator("FULLY_CONNECTED", inputs, output, options)

    def _batch_norm(self, node: Node, inputs: list[int], output: int) -> None:
        scaled = self._file.tensor(f"{node.name}.scaled", self._shape(node.shape))
        self._mul([*inputs, self._weight(node, self._weights[weight_name(node)])], scaled)
        self._add([scaled, self._bias(node)], output, self._activation(node))

    def _hsigmoid(self, node: Node, inputs: list[int], output: int) -> None:
        """Write min(max(x + 3, 0), 6) / 6: TFLite has no operator of its own for it."""
        clipped = self._file.tensor(f"{node.name}.clipped", self._shape(node.shape))
        relu6 = self._schema.ActivationFunctionType.RELU6
        self._add([*inputs, self._scalar(3.0)], clipped, relu6)
        self._mul([clipped, self._scalar(1 / 6)], output)

    def _add(self, inputs: list[int], output: int, activation: int = 0) -> None:
        options = self._schema.AddOptionsT(fusedActivationFunction=activation)
        self._file.operator("ADD", inputs, output, options)

    def _mul(self, inputs: list[int], output: int, activation: int = 0) -> None:
        options = self._schema.MulOptionsT(fusedActivationFunction=activation)
        self._file.operator("MUL", inputs, output, options)

    def _avg_pool(self, node: Node, inputs: list[int], output: int) -> None:
        """Write an average of what each window sees: ``SAME`` does not count padding either."""
        x, padding = self._padded(node, inputs[0])
        if x != inputs[0]:
            raise ModelError(
                f"{node.name}: TFLite has no average pool with {node.padding} padding and "
                f"stride {node.stride} on {self._graph.shapes[node.inputs[0]]}; expected stride "
                "1, or an odd size"
            )
        self._pool("AVERAGE_POOL_2D", node, x, padding, output)

    def _max_pool(self, node: Node, inputs: list[int], output: int) -> None:
        producer = self._nodes.get(node.inputs[0])
        # Zeros never win over what is not negative, and more delegates take a PAD of zeros.
        zeros_do = producer is not None and producer.op in _NOT_NEGATIVE
        lowest = None if zeros_do else float(np.finfo(np.float32).min)
        x, padding = self._padded(node, inputs[0], lowest)
        self._pool("MAX_POOL_2D", node, x, padding, output)

    def _pool(self, code: str, node: Node, x: int, padding: int, output: int) -> None:
        options = self._schema.Pool2DOptionsT(
            padding=padding,
            strideH=node.stride,
            strideW=node.stride,
            filterHeight=node.kernel,
            filterWidth=node.kernel,
        )
        self._file.operator(code, [x], output, options)

    def _global_pool(self, node: Node, inputs: list[int], output: int) -> None:
        axes = self._integers("const.height_and_width", _HEIGHT_AND_WIDTH)
        options = self._schema.ReducerOptionsT(keepDims=True)
        self._file.operator("MEAN", [*inputs, axes], output, options)

    def _flatten(self, node: Node, inputs: list[int], output: int) -> None:
        """Write a reshape, after a transposition where there is more than one pixel to order."""
        shape = self._graph.shapes[node.inputs[0]]
        if any(size > 1 for size in shape[1:]):
            turned = self._file.tensor(f"{node.name}.nchw", (self._batch, *shape))
            order = self._integers("const.nchw", _NHWC_TO_NCHW)
            options = self._schema.TransposeOptionsT()
            self._file.operator("TRANSPOSE", [*inputs, order], turned, options)
            inputs = [turned]
        self._reshape(node, inputs, output)

    def _reshape(self, node: Node, inputs: list[int], output: int) -> None:
        shape = self._shape(node.shape)
        wanted = self._integers(f"{node.name}.shape", shape)
        options = self._schema.ReshapeOptionsT(newShape=list(shape))
        self._file.operator("RESHAPE", [*inputs, wanted], output, options)


def _before(node: Node, size: int, out: int) -> int:
    """Return how many pixels ``SAME`` puts before the image."""
    return max((out - 1) * node.stride + node.kernel - size, 0) // 2


def _fused_activations(graph: Graph) -> dict[str, Node]:
    """Return by operator the activation that goes into it: the only reader of its output."""
    nodes = {node.name: node for node in graph.live_nodes}
    readers = Counter(x for node in graph.live_nodes for x in node.inputs)
    found: dict[str, Node] = {}
    for node in graph.live_nodes:
        source = nodes.get(node.inputs[0])
        if (
            node.op in _FUSED
            and source is not None
            and source.op in _FUSING
            and readers[source.name] == 1
            and source.name != graph.output
        ):
            found[source.name] = node
    return found
