"""A torch module of the user's own as operators of the builder: traced, not run.

``torch.fx`` records what ``forward`` calls; every call is one operator of the neutral graph, so
that the block is costed, exported and trained like any other. Weights are drawn anew: only the
structure is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwprof.errors import ModelError
from hwprof.graph.ir import Act, GraphBuilder, pooled_size
from hwprof.space.pieces import out_size

if TYPE_CHECKING:
    from torch import fx, nn


def emit_module(builder: GraphBuilder, module: nn.Module, x: str) -> str:
    """Add a torch module to a builder; return the output tensor.

    Takes square "same"-padded convolutions, batch norm, ReLU, ReLU6, Hardswish, Hardsigmoid,
    "same"-padded average and max pools, ``AdaptiveAvgPool2d(1)``, ``Identity``, ``Dropout``,
    sums, and products with a factor per channel.

    Args:
        builder: what is added to.
        module: one input, one output; its ``forward`` may not branch on values.
        x: the input tensor.

    Raises:
        ModelError: naming the module or function that has no operator, and what is known.
        SpaceError: shapes do not fit.
    """
    return _Tracer(builder, module).run(x)


class _Tracer:
    """Walks a traced graph; a batch norm right after a convolution becomes part of it."""

    def __init__(self, builder: GraphBuilder, module: nn.Module) -> None:
        from torch import fx, nn

        self._builder = builder
        self._name = type(module).__name__
        try:
            # Of torch's own modules only the calls are traced, not what is inside.
            is_leaf = fx.Tracer().is_leaf_module(module, "")
            traced = fx.symbolic_trace(nn.Sequential(module) if is_leaf else module)
        except Exception as error:
            raise ModelError(
                f"{self._name} cannot be traced ({error}); expected a forward that calls modules, "
                "without branching on values"
            ) from error
        self._nodes = list(traced.graph.nodes)
        self._modules = dict(traced.named_modules())
        self._tensors: dict[fx.Node, str] = {}

    def run(self, x: str) -> str:
        """Emit every call in order."""
        output = x
        for node in self._nodes:
            if node.op == "placeholder":
                self._tensors[node] = x
            elif node.op == "output":
                output = self._input(node)
            elif node.op == "call_module":
                self._tensors[node] = self._module(node)
            else:
                self._tensors[node] = self._function(node)
        return output

    def _input(self, node: fx.Node, position: int = 0) -> str:
        from torch import fx

        if len(node.args) <= position:
            raise ModelError(
                f"{self._name} calls {node.target} with {dict(node.kwargs)}; expected tensors in "
                "their order, without names"
            )
        given = node.args[position]
        if not isinstance(given, fx.Node):
            raise ModelError(f"{self._name} uses the constant {given!r}; expected tensors only")
        return self._tensors[given]

    def _module(self, node: fx.Node) -> str:
        from torch import nn

        target = str(node.target)
        module, x = self._modules[target], self._input(node)
        name = target.replace(".", "_")
        if isinstance(module, nn.Conv2d):
            norm = self._norm_after(node)
            self._require_same(module, target)
            return self._builder.conv(
                x,
                name,
                module.out_channels,
                kernel=module.kernel_size[0],
                stride=module.stride[0],
                groups=module.groups,
                bias=module.bias is not None,
                norm_eps=norm.eps if norm is not None else None,
            )
        if isinstance(module, nn.BatchNorm2d):
            if not module.affine:
                raise ModelError(
                    f"{self._name}.{target} is {module}; expected affine=True: its factor and shift "
                    "are trained and counted"
                )
            source = node.args[0]
            merged = self._norm_after(source) if _is_call(source) else None
            return x if merged is module else self._builder.batch_norm(x, name, module.eps)
        if isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
            return self._pool(module, target, x, name)
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            return self._builder.global_pool(x, name)
        if isinstance(module, nn.Identity | nn.Dropout | nn.Dropout2d):
            return x
        for kind, act in _activations().items():
            if isinstance(module, kind):
                return self._builder.act(x, act)
        raise ModelError(
            f"{self._name}.{target} is a {type(module).__name__}, which has no operator; expected "
            "convolutions, batch norms, pools and ReLU, ReLU6, Hardswish or Hardsigmoid"
        )

    def _function(self, node: fx.Node) -> str:
        import operator

        import torch

        called = node.target if node.op == "call_function" else getattr(torch, str(node.target), 0)
        if called in (operator.add, operator.iadd, torch.add):
            self._require_plain(node)
            return self._builder.add(self._input(node), self._input(node, 1), node.name)
        if called in (operator.mul, operator.imul, torch.mul):
            self._require_plain(node)
            a, b = self._input(node), self._input(node, 1)
            if self._builder.shape(a)[1:] == (1, 1):
                a, b = b, a
            whole, factor = self._builder.shape(a), self._builder.shape(b)
            if factor not in (whole, (whole[0], 1, 1)):
                raise ModelError(
                    f"{self._name} multiplies {whole} by {factor}; expected a factor per channel"
                )
            return self._builder.scale(a, b, node.name)
        for act, functions in _functional().items():
            if called in functions:
                return self._builder.act(self._input(node), act)
        raise ModelError(
            f"{self._name} calls {node.target}, which has no operator; expected sums, products "
            "and activations, all else as modules"
        )

    def _norm_after(self, node: Any) -> nn.BatchNorm2d | None:
        """Return the batch norm that alone takes a convolution's output, or None."""
        from torch import nn

        if not _is_call(node) or not isinstance(self._modules[str(node.target)], nn.Conv2d):
            return None
        users = list(node.users)
        if len(users) != 1 or not _is_call(users[0]):
            return None
        found = self._modules[str(users[0].target)]
        return found if isinstance(found, nn.BatchNorm2d) else None

    def _require_same(self, module: nn.Conv2d, target: str) -> None:
        kernel = module.kernel_size[0]
        square = len({*module.kernel_size}) == len({*module.stride}) == 1
        padded = module.padding in ("same", (kernel // 2, kernel // 2))
        zeros = module.padding_mode == "zeros"
        if not square or not padded or not zeros or set(module.dilation) != {1}:
            raise ModelError(
                f"{self._name}.{target} has kernel {module.kernel_size}, stride {module.stride}, "
                f"padding {module.padding} ({module.padding_mode}) and dilation {module.dilation}; "
                "expected a square kernel, padding kernel // 2 with zeros and no dilation"
            )

    def _pool(self, module: Any, target: str, x: str, name: str) -> str:
        from torch import nn

        average = isinstance(module, nn.AvgPool2d)
        sizes = [_pair(v) for v in (module.kernel_size, module.stride, module.padding)]
        kernel, stride, padding = (size[0] for size in sizes)
        sides = self._builder.shape(x)[1:]
        plain = (
            all(a == b for a, b in sizes)
            and padding == (kernel - 1) // 2
            and all(
                pooled_size(s, kernel, stride, padding, ceil_mode=module.ceil_mode)
                == out_size(s, stride)
                for s in sides
            )
        )
        if average:
            uncounted = not padding or not module.count_include_pad
            plain = plain and uncounted and module.divisor_override is None
        else:
            plain = plain and set(_pair(module.dilation)) == {1}
        if not plain:
            raise ModelError(
                f"{self._name}.{target} is {module} on {sides}; expected a square pool with padding "
                "(kernel - 1) // 2 and no dilation, whose output has the input's side over the "
                "stride, rounded up; averages with count_include_pad=False and no divisor_override"
            )
        return self._builder.pool(
            x, name, "avg_pool" if average else "max_pool", kernel=kernel, stride=stride
        )

    def _require_plain(self, node: fx.Node) -> None:
        """Refuse a sum or product with more to it than two tensors."""
        if node.kwargs:
            raise ModelError(
                f"{self._name} calls {node.target} with {dict(node.kwargs)}; expected two tensors "
                "and nothing else"
            )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _is_call(node: Any) -> bool:
    return getattr(node, "op", None) == "call_module"


def _activations() -> dict[type[nn.Module], Act]:
    from torch import nn

    return {
        nn.ReLU6: "relu6",
        nn.ReLU: "relu",
        nn.Hardswish: "hswish",
        nn.Hardsigmoid: "hsigmoid",
    }


def _functional() -> dict[Act, tuple[Any, ...]]:
    import torch
    from torch.nn import functional as f

    return {
        "relu": (f.relu, torch.relu, torch.relu_),
        "relu6": (f.relu6,),
        "hswish": (f.hardswish,),
        "hsigmoid": (f.hardsigmoid,),
    }
