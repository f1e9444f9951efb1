"""A supernet whose widths are decisions too: the networks of OFA-ResNet-50.

Every candidate of every slot has weights of its own at the largest width; a narrower network takes
the first channels of every tensor, as once-for-all (Cai et al., ICLR 2020) shares them. Batch norm
works channel by channel, so a narrow convolution is the beginning of a wide one.

The levels of a width are gated like the options of any decision: what depends on the width (a
whole unit, or the stem) is an option, and outputs of different widths become comparable by padding
with zeros to the widest that takes part (channel masks, as in FBNetV2, Wan et al., CVPR 2020). Zero
channels add nothing to the convolutions behind, so that the network that runs computes what it
computes alone.

Channels of a layer that runs, but that the width leaves out, have a gradient of zero, not None:
momentum and weight decay move them on, as in the released once-for-all code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwprof.errors import SpaceError
from hwprof.graph import piece_graph
from hwprof.graph.torch_net import function_of, last_uses, module_path
from hwprof.search.supernets.gates import GatePlan, Mix, mixed
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import DesignSpace, Placed, ResNet50Space, Slot
from hwprof.space.pieces import Piece

N_STEM_FACTORS = 3
"""Factors of the stem: its depth, its middle width, its output width; those of units follow."""


def supernet_of(space: DesignSpace, *, seed: int) -> Supernet:
    """Return the supernet of a layer-wise space, its weights drawn from ``seed``.

    Raises:
        SpaceError: the space is not made of layers in slots.
    """
    kind = ElasticSupernet if isinstance(space, ResNet50Space) else Supernet
    return kind(space, seed=seed)


class ElasticSupernet(Supernet):
    """The supernet of OFA-ResNet-50: blocks, depths, the stem's depth and six widths."""

    space: ResNet50Space
    takes: ClassVar[type[DesignSpace]] = ResNet50Space

    def _fixed_parts(self) -> tuple[Placed, ...]:
        # Levels rise, so that the last stem and the last head are the widest.
        by_scope = {part.scope: part for part in self.space.fixed_parts()}
        return tuple(by_scope.values())

    def _piece(self, slot: Slot, block: str, level: int | None = None) -> Piece:
        """Return a block at a level of its unit's width, by default the widest."""
        widest = [factor.levels[-1] for factor in self.space.factors[1:]]
        if level is not None:
            widest[N_STEM_FACTORS - 1 + slot.unit] = level
        return self.space.block_pieces(slot, block, tuple(widest))[0][0]

    def _require_known(self, plan: GatePlan) -> None:
        super()._require_known(plan)
        for factor in self.space.factors:
            if factor.name not in plan.factors:
                raise SpaceError(
                    f"the plan says nothing of {factor.name}; expected one of {list(factor.levels)}"
                )

    def _enter(self, plan: GatePlan, x: Tensor) -> Tensor:
        depths, middles, outs = (
            plan.factors[factor.name] for factor in self.space.factors[:N_STEM_FACTORS]
        )
        (stem,) = self.entry.values()

        def of_depth(out: int, middle: int, depth: int, x: Tensor) -> Tensor:
            return run_narrow(stem, self.space.stem(depth, middle, out), x)

        def of_middle(out: int, middle: int, x: Tensor) -> Tensor:
            return mixed(x, depths, partial(of_depth, out, middle))

        def of_out(out: int, x: Tensor) -> Tensor:
            return mixed(x, middles, partial(of_middle, out))

        return self._mixed_widths(
            x, outs, of_out, lambda out: self.space.stem(0, 0, out).out_channels
        )

    def _unit(self, plan: GatePlan, unit: int, x: Tensor) -> Tensor:
        widths = plan.factors[self.space.factors[N_STEM_FACTORS + unit].name]
        first = Slot(unit, 0)

        def of_width(level: int, x: Tensor) -> Tensor:
            return self._layers(plan, unit, partial(self._narrow_block, level), x)

        def channels(level: int) -> int:
            return self._piece(first, self.space.choices(first)[0], level).n_out_channels

        return self._mixed_widths(x, widths, of_width, channels)

    def _leave(self, x: Tensor) -> Tensor:
        return run_narrow(self.head, self._fixed_parts()[-1].piece, x)

    def _narrow_block(self, level: int, slot: Slot, block: str, x: Tensor) -> Tensor:
        return run_narrow(self._candidate(slot, block), self._piece(slot, block, level), x)

    def _mixed_widths(
        self,
        x: Tensor,
        mix: Mix[int],
        apply: Callable[[int, Tensor], Tensor],
        channels: Callable[[int], int],
    ) -> Tensor:
        """Mix outputs of different widths, each padded to the widest that takes part."""
        widest = max(channels(level) for level in mix.options)

        def padded(level: int, x: Tensor) -> Tensor:
            y = apply(level, x)
            missing = widest - y.shape[1]
            return functional.pad(y, (0, 0, 0, 0, 0, missing)) if missing else y

        return mixed(x, mix, padded)


def run_narrow(module: nn.Module, piece: Piece, x: Tensor) -> Tensor:
    """Run a piece with the first channels of a wider one's weights.

    Args:
        module: ``to_torch`` of the graph of a piece that differs in nothing but larger widths (and,
            for a stem, in more layers).
        piece: what to run.
        x: [N, C, H, W]; C may exceed what the piece takes, where the channels beyond are zero.
    """
    input_name, output_name, steps = _steps(piece)
    values = {input_name: x}
    for step in steps:
        inputs = [values[name] for name in step.inputs]
        if step.function is not None:
            values[step.output] = step.function(*inputs)
        else:
            values[step.output] = narrow(module.get_submodule(step.path), step.n_out, *inputs)
        for name in step.frees:
            del values[name]
    return values[output_name]


def narrow(layer: nn.Module, n_out: int, x: Tensor) -> Tensor:
    """Return the first ``n_out`` outputs of a layer for an input with as many channels as it has.

    A layer is linear, or a convolution without groups or bias and its batch norm.
    """
    if isinstance(layer, nn.Linear):
        return functional.linear(x, layer.weight[:n_out, : x.shape[1]], layer.bias[:n_out])
    conv, norm = layer.children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    weight = conv.weight[:n_out, : x.shape[1]]
    y = functional.conv2d(x, weight, stride=conv.stride, padding=conv.padding)
    return _narrow_norm(norm, y)


def _narrow_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Run a batch norm's first channels as its own ``forward`` runs all of them."""
    n = x.shape[1]
    mean, variance, count = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert mean is not None
    assert variance is not None
    assert count is not None
    momentum = norm.momentum
    if norm.training and norm.track_running_stats:
        count.add_(1)
        if momentum is None:
            momentum = 1.0 / count.item()
    keeps = norm.track_running_stats or not norm.training
    return functional.batch_norm(
        x,
        mean[:n] if keeps else None,
        variance[:n] if keeps else None,
        norm.weight[:n],
        norm.bias[:n],
        training=norm.training,
        momentum=0.0 if momentum is None else momentum,
        eps=norm.eps,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    """An operator; ``function`` is None where it has parameters."""

    inputs: tuple[str, ...]
    output: str
    path: str
    n_out: int
    function: Callable[..., torch.Tensor] | None
    frees: tuple[str, ...]


@lru_cache(maxsize=1024)
def _steps(piece: Piece) -> tuple[str, str, tuple[_Step, ...]]:
    """Return the names of a piece's input and output, and its operators in order."""
    graph = piece_graph(piece)
    frees = last_uses(graph)
    steps = tuple(
        _Step(
            inputs=node.inputs,
            output=node.name,
            path=module_path(node),
            n_out=node.shape[0],
            function=function_of(node) if node.weight_shape is None else None,
            frees=frees[node.name],
        )
        for node in graph.live_nodes
    )
    return graph.inputs[0].name, graph.output, steps
