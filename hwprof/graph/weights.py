"""Weights of a graph in folded form, and random ones that keep activations near one.

``NODE.weight`` is what the operator multiplies by (batch norm folded in), ``NODE.bias`` what it
adds, absent where there is neither bias nor norm. A standalone batch norm is a factor and a
shift per channel under the same two names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import ModelError
from hwprof.graph.ir import Graph, Node

Weights = Mapping[str, NDArray[np.float32]]
"""Arrays by name."""

BIAS_SCALE = 0.1
"""Biases are small but not zero: some runtimes remove an addition of zeros."""


def weight_name(node: Node) -> str:
    """Name of the node's weight in :data:`Weights`."""
    return f"{node.name}.weight"


def bias_name(node: Node) -> str:
    """Name of the node's bias in :data:`Weights`."""
    return f"{node.name}.bias"


def random_weights(graph: Graph, *, seed: int = 0) -> Weights:
    """Draw weights under which every operator's output has about unit variance.

    He et al. (ICCV 2015) scale by the fan-in and the activation before; here the second moment
    that reaches an operator is followed through the graph, sums and gates included, so that
    nothing overflows or turns denormal (which would change the time) in a deep network without
    norms. Same graph and seed, same weights.
    """
    nodes = graph.weighted_nodes
    sizes = {node.name: prod(node.weight_shape or ()) for node in nodes}
    n_biases = sum(node.shape[0] for node in nodes if node.has_folded_bias)
    pool = np.random.default_rng(seed).random(sum(sizes.values()) + n_biases, dtype=np.float32)
    pool -= np.float32(0.5)
    pool *= np.float32(sqrt(12))
    gains = _unit_gains(graph)
    weights: dict[str, NDArray[np.float32]] = {}
    start = 0
    for node in nodes:
        shape = node.weight_shape
        assert shape is not None
        weight = pool[start : start + sizes[node.name]].reshape(shape)
        start += sizes[node.name]
        if node.op == "batch_norm":
            weight[:] = gains[node.name]
        else:
            weight *= np.float32(gains[node.name])
        weights[weight_name(node)] = weight
        if node.has_folded_bias:
            bias = pool[start : start + node.shape[0]]
            start += node.shape[0]
            bias *= np.float32(BIAS_SCALE)
            weights[bias_name(node)] = bias
    return weights


def check_weights(graph: Graph, weights: Weights) -> None:
    """Check that ``weights`` are those of ``graph``.

    Raises:
        ModelError: an array is missing, superfluous or of the wrong shape.
    """
    expected: dict[str, tuple[int, ...] | None] = {}
    for node in graph.weighted_nodes:
        expected[weight_name(node)] = node.weight_shape
        if node.has_folded_bias:
            expected[bias_name(node)] = (node.shape[0],)
    if stray := sorted(set(expected) ^ set(weights)):
        state = "missing from" if stray[0] in expected else "not expected in"
        raise ModelError(
            f"{stray[0]!r} is {state} the weights of {graph.name}; expected the "
            f"{len(expected)} arrays that random_weights(graph) gives"
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ModelError(
                f"{name!r} has the shape {weights[name].shape}; {graph.name} expects {shape}"
            )


def _unit_gains(graph: Graph) -> dict[str, float]:
    """Return by node the standard deviation of weights that gives unit output variance.

    A tensor is followed as a linear combination of independent unit sources, one for each
    operator that mixes channels, so that a tensor added to itself (skips of a cell) counts as
    doubled rather than as two independent summands.
    """
    mixes: dict[str, dict[str, float]] = {t.name: {t.name: 1.0} for t in graph.inputs}
    gains: dict[str, float] = {}
    for node in graph.nodes:
        inputs = [mixes[name] for name in node.inputs]
        if node.weight_shape is not None:
            fan_in = prod(node.weight_shape[1:])
            gains[node.name] = 1.0 / sqrt(fan_in * (_second_moment(inputs[0]) or 1.0))
            mixes[node.name] = {node.name: 1.0}
        elif node.op == "add":
            a, b = inputs
            mixes[node.name] = {key: a.get(key, 0.0) + b.get(key, 0.0) for key in a | b}
        elif node.op == "zeros":
            mixes[node.name] = {}
        elif node.op in _MOMENT_OF:
            moment = _MOMENT_OF[node.op](*map(_second_moment, inputs))
            mixes[node.name] = {node.name: sqrt(moment)}
        else:
            mixes[node.name] = inputs[0]
    return gains


def _second_moment(mix: Mapping[str, float]) -> float:
    return sum(coefficient**2 for coefficient in mix.values())


_MOMENT_OF: Mapping[str, Callable[..., float]] = {
    "relu": lambda m: m / 2,
    "relu6": lambda m: m / 2,
    # Of x(x + 3)/6 and x/6 + 1/2 for normal x: both clips lie in the tails.
    "hswish": lambda m: (3 * m * m + 9 * m) / 36,
    "hsigmoid": lambda m: m / 36 + 1 / 4,
    "mul": lambda m, gate: m * gate,
}
"""Second moment of the output from those of the inputs."""
