"""The neutral graph: operators and shapes of a network or block, no framework attached.

Layout is NCHW with the batch apart, so a shape is ``(C, H, W)``, or ``(C,)`` once flattened.
A tensor bears the name of the node that makes it. A convolution carries its batch norm
(``norm_eps``), so that folding is trivial; a norm that follows a sum stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, count
from math import prod
from typing import Literal

from hwprof.errors import SpaceError
from hwprof.space.pieces import Activation, out_size

Shape = tuple[int, ...]
Act = Activation | Literal["hsigmoid"]
Op = Literal[
    "conv",
    "linear",
    "batch_norm",
    "relu",
    "relu6",
    "hswish",
    "hsigmoid",
    "add",
    "mul",
    "avg_pool",
    "max_pool",
    "global_pool",
    "flatten",
    "zeros",
    "identity",
]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name and shape (batch apart) of a graph's input."""

    name: str
    shape: Shape


@dataclass(frozen=True, kw_only=True)
class Node:
    """One operator; ``name`` is also its output tensor's and begins with its scope.

    ``in_channels`` belongs to operators with weights, ``kernel``, ``stride``, ``padding`` and
    ``groups`` to convolutions and pools (square, the same on all sides). ``norm_eps`` is the
    epsilon of a standalone batch norm, or of the one that a convolution ends with.
    ``ceil_mode`` marks pools whose last window reaches over the edge (it averages what it sees).
    """

    op: Op
    name: str
    inputs: tuple[str, ...]
    shape: Shape
    in_channels: int = 0
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = False
    norm_eps: float | None = None
    ceil_mode: bool = False

    @property
    def weight_shape(self) -> Shape | None:
        """Shape of the weight: (out, in / groups, k, k), (out, in) or (channels,); or None."""
        if self.op == "conv":
            return (self.shape[0], self.in_channels // self.groups, self.kernel, self.kernel)
        if self.op == "linear":
            return (self.shape[0], self.in_channels)
        return (self.shape[0],) if self.op == "batch_norm" else None

    @property
    def has_folded_bias(self) -> bool:
        """Whether a bias stands beside the weight once batch norm is folded into it."""
        return self.bias or self.norm_eps is not None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass (convolutions and linear layers)."""
        if self.op == "conv":
            per_output = self.in_channels // self.groups * self.kernel**2
            return prod(self.shape) * per_output
        return self.shape[0] * self.in_channels if self.op == "linear" else 0

    @property
    def params(self) -> int:
        """Trainable parameters, unfolded: weight, bias, and gamma and beta of a batch norm."""
        channels = self.shape[0]
        norm = 2 * channels if self.norm_eps is not None else 0
        if self.op == "batch_norm" or self.weight_shape is None:
            return norm
        return prod(self.weight_shape) + (channels if self.bias else 0) + norm


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Operators in order of execution, from ``inputs`` to the tensor named ``output``."""

    name: str
    inputs: tuple[TensorSpec, ...]
    nodes: tuple[Node, ...]
    output: str

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of every tensor by name."""
        return {t.name: t.shape for t in self.inputs} | {n.name: n.shape for n in self.nodes}

    @property
    def output_shape(self) -> Shape:
        """Shape of the output, batch apart."""
        return self.shapes[self.output]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates for one image: convolutions and linear layers, SE included."""
        return sum(node.macs for node in self.nodes)

    @cached_property
    def params(self) -> int:
        """Trainable parameters: weights, biases, batch norm's gamma and beta."""
        return sum(node.params for node in self.nodes)

    @cached_property
    def live_nodes(self) -> tuple[Node, ...]:
        """The nodes that reach the output: what runs.

        The others (dead edges of a cell) count in the costs, as published ones do, but every
        exporter leaves them out, and encodings of one network must take the same time.
        """
        needed = {self.output}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        return tuple(node for node in self.nodes if node.name in needed)

    @property
    def weighted_nodes(self) -> tuple[Node, ...]:
        """The nodes that have weights."""
        return tuple(node for node in self.nodes if node.weight_shape is not None)


def pooled_size(side: int, kernel: int, stride: int, padding: int, *, ceil_mode: bool) -> int:
    """Return the side of a square pool's output, as torch and ONNX compute it."""
    beyond = side + 2 * padding - kernel
    if not ceil_mode:
        return beyond // stride + 1
    steps = -(-beyond // stride)
    # No window begins in the padding behind the input.
    return steps if steps * stride >= side + padding else steps + 1


class GraphBuilder:
    """Appends operators and works out shapes; every method returns the new tensor's name.

    Padding is "same" for odd kernels; an even pool takes no padding and covers the edge.
    """

    def __init__(self, name: str, input_shape: Shape) -> None:
        self.input = "input"
        self._name = name
        self._shapes: dict[str, Shape] = {self.input: input_shape}
        self._nodes: list[Node] = []
        self._scopes: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of what is added inside with ``name/``."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def shape(self, tensor: str) -> Shape:
        """Return the shape of a tensor."""
        return self._shapes[tensor]

    def conv(
        self,
        x: str,
        name: str,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm_eps: float | None = None,
    ) -> str:
        """Add a "same"-padded convolution, with the batch norm that follows it.

        Raises:
            SpaceError: the kernel is even, or the groups do not divide the channels.
        """
        channels, height, width = self.shape(x)
        if kernel % 2 == 0:
            raise SpaceError(
                f"{self._full(name)}: the kernel is {kernel}; expected an odd size such as 3 or 5"
            )
        if channels % groups or out_channels % groups:
            raise SpaceError(
                f"{self._full(name)}: {groups} groups do not divide {channels} input and "
                f"{out_channels} output channels"
            )
        return self._append(
            Node(
                op="conv",
                name=self._full(name),
                inputs=(x,),
                shape=(out_channels, out_size(height, stride), out_size(width, stride)),
                in_channels=channels,
                kernel=kernel,
                stride=stride,
                padding=kernel // 2,
                groups=groups,
                bias=bias,
                norm_eps=norm_eps,
            )
        )

    def linear(self, x: str, name: str, out_channels: int) -> str:
        """Add a fully connected layer with bias; ``x`` is flat."""
        (channels,) = self.shape(x)
        return self._append(
            Node(
                op="linear",
                name=self._full(name),
                inputs=(x,),
                shape=(out_channels,),
                in_channels=channels,
                bias=True,
            )
        )

    def batch_norm(self, x: str, name: str, eps: float) -> str:
        """Add a batch norm that no convolution precedes."""
        shape = self.shape(x)
        return self._append(
            Node(
                op="batch_norm",
                name=self._full(name),
                inputs=(x,),
                shape=shape,
                in_channels=shape[0],
                norm_eps=eps,
            )
        )

    def act(self, x: str, act: Act) -> str:
        """Add an activation, named after the tensor it follows; "none" adds nothing.

        Of a tensor from outside of the present scope it bears the scope's name alone, so that its
        time is not taken for that of the block before. A second one of a tensor is numbered.
        """
        if act == "none":
            return x
        name = f"{x}/{act}" if x.startswith(self._full("")) else self._full(act)
        names = chain((name,), (f"{name}_{i}" for i in count(2)))
        free = next(n for n in names if n not in self._shapes)
        return self._append(self._like(act, free, (x,)))

    def relu_before(self, x: str, name: str) -> str:
        """Add a ReLU under a name of the present scope (pre-activation)."""
        return self._append(self._like("relu", self._full(name), (x,)))

    def add(self, a: str, b: str, name: str) -> str:
        """Add two tensors of equal shape.

        Raises:
            SpaceError: the shapes differ (a shortcut over a change of width or size).
        """
        if self.shape(a) != self.shape(b):
            raise SpaceError(
                f"{self._full(name)}: cannot add {self.shape(b)} to {self.shape(a)}; a shortcut "
                "needs stride 1 and as many output as input channels"
            )
        return self._append(self._like("add", self._full(name), (a, b)))

    def scale(self, x: str, factor: str, name: str) -> str:
        """Multiply ``x`` by a factor per channel, shape (C, 1, 1)."""
        return self._append(self._like("mul", self._full(name), (x, factor)))

    def pool(
        self, x: str, name: str, op: Literal["avg_pool", "max_pool"], *, kernel: int, stride: int
    ) -> str:
        """Add a pool; padding is not counted in averages.

        Raises:
            SpaceError: no such pool has an output of the input's side over the stride (an even one
                with stride 1, say).
        """
        channels, height, width = self.shape(x)
        node = Node(
            op=op,
            name=self._full(name),
            inputs=(x,),
            shape=(channels, out_size(height, stride), out_size(width, stride)),
            kernel=kernel,
            stride=stride,
            padding=(kernel - 1) // 2,
        )
        for ceil_mode in (False, True):
            made = (
                pooled_size(side, kernel, stride, node.padding, ceil_mode=ceil_mode)
                for side in (height, width)
            )
            if node.shape[1:] == tuple(made):
                return self._append(replace(node, ceil_mode=ceil_mode))
        raise SpaceError(
            f"{node.name}: no pool of kernel {kernel} and stride {stride} makes {node.shape[1:]} of "
            f"{(height, width)}; expected an odd kernel, or a stride above 1"
        )

    def global_pool(self, x: str, name: str) -> str:
        """Average over height and width, to (C, 1, 1)."""
        shape = (self.shape(x)[0], 1, 1)
        return self._append(Node(op="global_pool", name=self._full(name), inputs=(x,), shape=shape))

    def flatten(self, x: str, name: str) -> str:
        """Flatten to one dimension."""
        shape = (prod(self.shape(x)),)
        return self._append(Node(op="flatten", name=self._full(name), inputs=(x,), shape=shape))

    def zeros(self, x: str, name: str) -> str:
        """Add zeros of the shape of ``x``."""
        return self._append(self._like("zeros", self._full(name), (x,)))

    def finish(self, output: str) -> Graph:
        """Return the graph; an output that no operator makes gets an identity of its own."""
        if output == self.input:
            output = self._append(self._like("identity", "identity", (output,)))
        return Graph(
            name=self._name,
            inputs=(TensorSpec(name=self.input, shape=self._shapes[self.input]),),
            nodes=tuple(self._nodes),
            output=output,
        )

    def _full(self, name: str) -> str:
        return "/".join((*self._scopes, name))

    def _like(self, op: Op, name: str, inputs: tuple[str, ...]) -> Node:
        return Node(op=op, name=name, inputs=inputs, shape=self.shape(inputs[0]))

    def _append(self, node: Node) -> str:
        if node.name in self._shapes:
            raise SpaceError(
                f"two operators are named {node.name!r}; give every piece of a network a scope "
                "of its own"
            )
        self._shapes[node.name] = node.shape
        self._nodes.append(node)
        return node.name
