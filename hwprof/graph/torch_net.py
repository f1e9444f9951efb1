"""From a graph to a trainable torch module, and its weights back.

torch is imported inside the functions: the core works without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import ModelError
from hwprof.graph.ir import Graph, Node
from hwprof.graph.weights import Weights, bias_name, random_weights, weight_name
from hwprof.torch_import import needs_torch

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn


def to_torch(graph: Graph, *, seed: int = 0) -> nn.Module:
    """Return a module that computes the graph: [N, C, H, W] in, the graph's output out.

    Batch norms stay apart from their convolutions (momentum 0.1, running mean 0 and variance
    1), so the module trains. In evaluation mode it computes what :func:`to_onnx` computes for
    the same seed. Parameters are named after nodes: node ``u0.l1/depthwise`` has
    ``u0.l1.depthwise.conv.weight`` and ``u0.l1.depthwise.norm.weight``. Any memory format goes;
    no step needs a contiguous tensor.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError: an operator with weights bears the name of the scope of another.
    """
    _require_apart(graph)
    with needs_torch("a torch module of a network"):
        module = _module_class()(graph)
    _load(graph, module, random_weights(graph, seed=seed))
    return module


def weights_from_torch(graph: Graph, module: nn.Module) -> Weights:
    """Return the weights of ``to_torch(graph)`` after training, batch norm folded.

    The running statistics are folded in, in float64: what the module computes in evaluation
    mode.

    Raises:
        ModelError: the module was made from another graph.
    """
    folded: dict[str, NDArray[np.float32]] = {}
    for node in graph.weighted_nodes:
        try:
            weight, bias = _fold(node, _state(node, module))
        except (AttributeError, KeyError) as error:
            raise ModelError(
                f"the module has no parameters for {node.name!r}; expected the module that "
                f"to_torch made of {graph.name}"
            ) from error
        if weight.shape != node.weight_shape:
            raise ModelError(
                f"{node.name!r} of the module has a weight of shape {weight.shape}; "
                f"{graph.name} expects {node.weight_shape}"
            )
        folded[weight_name(node)] = weight.astype(np.float32)
        if bias is not None:
            folded[bias_name(node)] = bias.astype(np.float32)
    return folded


def module_path(node: Node) -> str:
    """Return the dotted path of the submodule that holds the node's parameters."""
    return node.name.replace("/", ".")


def _require_apart(graph: Graph) -> None:
    """Refuse a layer inside of a layer: torch would run both where only the outer one is asked."""
    names = {node.name for node in graph.weighted_nodes}
    for name in names:
        for scope in accumulate(name.split("/")[:-1], "{}/{}".format):
            if scope in names:
                raise ModelError(
                    f"{scope!r} of {graph.name} is an operator and the scope of {name!r}; expected "
                    "names of their own: rename one of them"
                )


def _state(node: Node, module: nn.Module) -> dict[str, NDArray[np.float64]]:
    state = module.get_submodule(module_path(node)).state_dict()
    return {name: tensor.detach().cpu().double().numpy() for name, tensor in state.items()}


def _fold(
    node: Node, state: dict[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    if node.norm_eps is None:
        return state["weight"], state.get("bias")
    prefix = "norm." if node.op == "conv" else ""
    factor = state[f"{prefix}weight"] / np.sqrt(state[f"{prefix}running_var"] + node.norm_eps)
    shift = state[f"{prefix}bias"] - state[f"{prefix}running_mean"] * factor
    if node.op == "batch_norm":
        return factor, shift
    if node.bias:
        shift = shift + state["conv.bias"] * factor
    return state["conv.weight"] * factor[:, None, None, None], shift


def _load(graph: Graph, module: nn.Module, weights: Weights) -> None:
    """Write folded weights into fresh batch norms (mean 0, variance 1)."""
    import torch

    with torch.no_grad():
        for node in graph.weighted_nodes:
            layer: Any = module.get_submodule(module_path(node))
            weight = torch.from_numpy(weights[weight_name(node)])
            # sqrt(variance + eps) of a fresh norm: as its gamma, folding gives `weight` back.
            unit = (1.0 + (node.norm_eps or 0.0)) ** 0.5
            norm = layer
            if node.op == "batch_norm":
                norm.weight.copy_(weight * unit)
            elif node.norm_eps is None:
                layer.weight.copy_(weight)
            else:
                norm = layer.norm
                norm.weight.fill_(unit)
                layer.conv.weight.copy_(weight)
                if node.bias:
                    # The bias of the folded form is in the shift of the norm.
                    layer.conv.bias.zero_()
            if node.has_folded_bias:
                norm.bias.copy_(torch.from_numpy(weights[bias_name(node)]))


def _allocated(layer: nn.Module) -> nn.Module:
    """Give a layer made on the meta device memory for its parameters.

    ``to_empty`` does the same, but imports sympy for it: two seconds in every fresh process.
    """
    import torch
    from torch import nn

    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape)))
    return layer


def _weighted_module(node: Node) -> nn.Module:
    """Return the layer of a node with parameters, whose values :func:`_load` sets.

    Made on the meta device, it skips torch's own initialisation and global random state.
    """
    from torch import nn

    channels = node.shape[0]
    if node.op == "linear":
        return _allocated(nn.Linear(node.in_channels, channels, device="meta"))
    if node.op == "batch_norm":
        return nn.BatchNorm2d(channels, eps=node.norm_eps or 0.0)
    conv = _allocated(
        nn.Conv2d(
            node.in_channels,
            channels,
            node.kernel,
            stride=node.stride,
            padding=node.padding,
            groups=node.groups,
            bias=node.bias,
            device="meta",
        )
    )
    if node.norm_eps is None:
        return conv
    norm = nn.BatchNorm2d(channels, eps=node.norm_eps)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm))


def function_of(node: Node) -> Callable[..., torch.Tensor]:
    """Return what computes a node without parameters."""
    import torch
    from torch.nn import functional

    simple: dict[str, Callable[..., torch.Tensor]] = {
        "relu": functional.relu,
        "relu6": functional.relu6,
        "hswish": functional.hardswish,
        "hsigmoid": functional.hardsigmoid,
        "add": torch.add,
        "mul": torch.mul,
        "global_pool": partial(functional.adaptive_avg_pool2d, output_size=1),
        "flatten": partial(torch.flatten, start_dim=1),
        "zeros": partial(torch.mul, other=0.0),
        "identity": torch.nn.Identity(),
    }
    if node.op in simple:
        return simple[node.op]
    window: dict[str, Any] = {
        "kernel_size": node.kernel,
        "stride": node.stride,
        "padding": node.padding,
    }
    if node.op == "max_pool":
        return partial(functional.max_pool2d, **window, ceil_mode=node.ceil_mode)
    return partial(
        functional.avg_pool2d, **window, ceil_mode=node.ceil_mode, count_include_pad=False
    )


def _attach(root: nn.Module, path: str, leaf: nn.Module) -> None:
    """Hang ``leaf`` into ``root`` at a dotted path, with plain modules on the way."""
    from torch import nn

    *scopes, name = path.split(".")
    for scope in scopes:
        if scope not in dict(root.named_children()):
            root.add_module(scope, nn.Module())
        root = root.get_submodule(scope)
    root.add_module(name, leaf)


def last_uses(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Return by node the tensors that nothing needs once it has run."""
    last_user = {tensor: node.name for node in graph.live_nodes for tensor in node.inputs}
    return {
        node.name: tuple(tensor for tensor, user in last_user.items() if user == node.name)
        for node in graph.live_nodes
    }


@cache
def _module_class() -> Callable[[Graph], nn.Module]:
    """Define the module on first use, when torch is imported."""
    import torch

    class GraphNet(torch.nn.Module):
        """Runs the operators of a graph in order, freeing tensors after their last use."""

        def __init__(self, graph: Graph) -> None:
            super().__init__()
            self.graph = graph
            for node in graph.weighted_nodes:
                _attach(self, module_path(node), _weighted_module(node))
            frees = last_uses(graph)
            self._steps = [
                (
                    function_of(node)
                    if node.weight_shape is None
                    else self.get_submodule(module_path(node)),
                    node.inputs,
                    node.name,
                    frees[node.name],
                )
                for node in graph.live_nodes
            ]

        def forward(
            self, x: torch.Tensor, before: Callable[[str], None] | None = None
        ) -> torch.Tensor:
            """Run; ``before`` is called with the name of every operator, before it."""
            values = {self.graph.inputs[0].name: x}
            for run, inputs, output, frees in self._steps:
                if before is not None:
                    before(output)
                values[output] = run(*[values[name] for name in inputs])
                for name in frees:
                    del values[name]
            return values[self.graph.output]

    return GraphNet
