"""The supernets that once-for-all published, read into networks of this package.

Source: Cai et al., ICLR 2020, and the layout of the released files ``ofa_mbv3_d234_e346_k357_w1.0``,
``…_w1.2``, ``ofa_proxyless_d234_e346_k357_w1.3`` and ``ofa_supernet_resnet50``: one state dict
(bare, or under ``state_dict``) of the largest network. A smaller network takes

- the first layers of every unit,
- the first channels of every tensor: training has sorted them by importance,
- for a kernel of 5, the middle 5×5 of the 7×7 one, flattened, times ``7to5_matrix``; for 3 the
  middle 3×3 of *that*, times ``5to3_matrix``; one pair of matrices a layer.

Batch norm statistics in the file are those of the largest network: recalibrate before judging.
Files differ in spelling (``mobile_inverted_conv`` for ``conv``; layers of a fixed width without
the inner ``.conv`` or ``.bn``); all spellings that the public loader takes are read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hwprof.errors import DataError, IncompatibleRunError
from hwprof.graph import Graph, network_graph, to_torch
from hwprof.graph.ir import Node
from hwprof.graph.torch_net import module_path
from hwprof.space import Architecture, DesignSpace, Slot, get_space
from hwprof.torch_import import refuse_too_large

SHRINKS = ((7, 5), (5, 3))
"""The kernels that one matrix leads from and to."""
COUNTER = ".num_batches_tracked"
"""Ends the names of the tensors that no network takes: they count steps of training."""

_MBCONV = {
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "se/reduce": "depth_conv.se.fc.reduce",
    "se/expand": "depth_conv.se.fc.expand",
    "project": "point_linear",
}
_BOTTLENECK = {
    "reduce": "conv1",
    "conv": "conv2",
    "expand": "conv3",
    "shortcut/conv": "downsample",
}
_FIXED = {
    "stem/conv": "first_conv",
    "stem/conv1": "input_stem.0",
    "stem/conv2": "input_stem.1.conv",
    "stem/conv3": "input_stem.2",
    "head/last": "feature_mix_layer",
    "head/classifier": "classifier",
}


class _Source(NamedTuple):
    """Where a parameter of ours comes from: the spellings of its name in a file."""

    spellings: tuple[str, ...]
    parameter: str
    """Its name in our module, below the operator's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfaSupernet:
    """A published supernet: all its tensors, and the space whose networks it holds."""

    space: DesignSpace
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> OfaSupernet:
        """Read a published file.

        Raises:
            DataError: it is no such file, a tensor is missing, of another shape or unknown.
        """
        tensors = _read(Path(path))
        if tensors is None or not _is_published(tensors):
            raise DataError(
                f"{str(path)!r} is no supernet that once-for-all published; expected a file such "
                "as ofa_mbv3_d234_e346_k357_w1.2"
            )
        named = {_spelt(name): tensor for name, tensor in tensors.items()}
        space = _space_of(path, named)
        _require_layout(path, space, named)
        return cls(space=space, tensors=named)

    def network(self, arch: Architecture) -> nn.Module:
        """Return ``arch`` with the supernet's weights, in evaluation mode, not recalibrated.

        ``module.graph`` is its graph, as of :func:`hwprof.graph.to_torch`.

        Raises:
            IncompatibleRunError: the network is of another space.
            SpaceError: it is not one of the space's.
        """
        if arch.space != self.space.name:
            raise IncompatibleRunError(
                f"the supernet holds networks of {self.space.name!r}; this one is of "
                f"{arch.space!r}: use a supernet of that space"
            )
        space = self.space.at_resolution(arch.resolution_px)
        space.require_searchable(arch)
        graph = network_graph(space, arch)
        module = to_torch(graph)
        # Shares memory with the module.
        state = module.state_dict()
        for node in graph.weighted_nodes:
            prefix = _prefix(space, node)
            for source in _sources(node, prefix):
                name = f"{module_path(node)}.{source.parameter}"
                found = self.tensors[_first_known(source, self.tensors)]
                state[name].copy_(self._cut(found, state[name].shape, prefix))
        return module.eval()

    def _cut(self, tensor: Tensor, shape: torch.Size, prefix: str) -> Tensor:
        """Return the part of a tensor that a smaller network takes."""
        if len(shape) == 4 and tensor.shape[-1] > shape[-1]:
            # The matrices mix within a channel, so that channels may be cut first.
            tensor = self._shrunk(tensor[: shape[0]], shape[-1], prefix)
        return tensor[tuple(slice(size) for size in shape)]

    def _shrunk(self, kernels: Tensor, side: int, prefix: str) -> Tensor:
        """Return ``[channels, 1, side, side]`` from ``[channels, 1, 7, 7]``."""
        for large, small in SHRINKS:
            if kernels.shape[-1] > side:
                edge = (large - small) // 2
                middle = kernels[..., edge:-edge, edge:-edge]
                matrix = self.tensors[_matrix_name(prefix, large, small)]
                kernels = (middle.flatten(2) @ matrix.T).reshape(middle.shape)
        return kernels


def is_published(path: str | Path) -> bool:
    """Say whether a file looks like a published once-for-all supernet."""
    tensors = _read(Path(path))
    return tensors is not None and _is_published(tensors)


def _read(path: Path) -> Mapping[str, Tensor] | None:
    """Return the tensors of a file; None where it is not a plain dict of them.

    Raises:
        DataError: the file cannot be opened, or does not fit into memory.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(
            f"cannot read the checkpoint {str(path)!r}: {error.strerror or error}; expected a "
            "file of `hwprof train --out` or a published once-for-all supernet"
        ) from error
    except Exception as error:  # noqa: BLE001 - on other files the unpickler raises anything
        refuse_too_large(path, error)
        return None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        return None
    plain = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    return content if plain else None


def _is_published(tensors: Mapping[str, Tensor]) -> bool:
    return "classifier.linear.weight" in tensors or "classifier.linear.linear.weight" in tensors


def _spelt(name: str) -> str:
    return name.replace(".mobile_inverted_conv.", ".conv.")


def _space_of(path: str | Path, tensors: Mapping[str, Tensor]) -> DesignSpace:
    """Tell the spaces apart by the layers that only they have, then by width."""
    if any(name.startswith("input_stem.") for name in tensors):
        return get_space("ofa-resnet50")
    if "final_expand_layer.conv.weight" not in tensors:
        return get_space("ofa-proxylessnas-w1.3")
    width = len(tensors["final_expand_layer.conv.weight"])
    widths = {960: "ofa-mbv3-w1.0", 1152: "ofa-mbv3-w1.2"}
    if width not in widths:
        raise DataError(
            f"{str(path)!r} is an OFA-MobileNetV3 whose last layer has {width} channels; "
            f"expected {' or '.join(f'{w} ({name})' for w, name in widths.items())}"
        )
    return get_space(widths[width])


def _require_layout(path: str | Path, space: DesignSpace, tensors: Mapping[str, Tensor]) -> None:
    """Check that a file holds the whole layout and no more."""
    used = set()
    for source, shape in _layout(space):
        name = _first_known(source, tensors)
        if name not in tensors:
            raise DataError(
                f"{str(path)!r} lacks the tensor {source.spellings[-1]!r}, which {space.name} "
                "needs; expected the file as published"
            )
        if tensors[name].shape != shape:
            raise DataError(
                f"{name!r} of {str(path)!r} has the shape {tuple(tensors[name].shape)}; the "
                f"largest network of {space.name} expects {tuple(shape)}"
            )
        used.add(name)
    for name in tensors.keys() - used:
        if not name.endswith(COUNTER):
            raise DataError(
                f"{str(path)!r} holds {name!r}, which no network of {space.name} has; expected "
                "the file as published"
            )


def _layout(space: DesignSpace) -> Iterator[tuple[_Source, torch.Size]]:
    """Yield every tensor of a published file with its shape: those of the largest network."""
    for node in _largest(space).weighted_nodes:
        assert node.weight_shape is not None
        prefix = _prefix(space, node)
        for source in _sources(node, prefix):
            is_weight = source.parameter in ("weight", "conv.weight")
            yield source, torch.Size(node.weight_shape if is_weight else node.shape[:1])
        if node.op == "conv" and node.kernel == SHRINKS[0][0]:
            for large, small in SHRINKS:
                name = _matrix_name(prefix, large, small)
                yield _Source((name,), ""), torch.Size((small**2, small**2))


def _largest(space: DesignSpace) -> Graph:
    """Return the network of all layers, the last (largest) candidate and widths everywhere."""
    units = [
        [space.base_choices(Slot(unit, layer))[-1] for layer in range(depth)]
        for unit, depth in enumerate(space.max_depth)
    ]
    data: dict[str, Any] = {
        "space": space.name,
        "resolution_px": space.resolution_px,
        "units": units,
    }
    if space.factors:
        stem_depth, *widths = (factor.levels[-1] for factor in space.factors)
        data |= {"stem_depth": stem_depth, "widths": widths}
    return network_graph(space, Architecture.from_json(data))


def _prefix(space: DesignSpace, node: Node) -> str:
    """Return what the file calls the layer of an operator."""
    scope, _, role = node.name.partition("/")
    if node.name in _FIXED:
        return _FIXED[node.name]
    if node.name == "head/features":
        # OFA-MobileNetV3 has two layers after the last unit, OFA-ProxylessNAS one.
        two = space.name.startswith("ofa-mbv3")
        return "final_expand_layer" if two else "feature_mix_layer"
    if scope == "first":
        return f"blocks.0.conv.{_MBCONV[role]}"
    unit, layer = (int(part[1:]) for part in scope.split("."))
    index = sum(space.max_depth[:unit]) + layer
    if space.name == "ofa-resnet50":
        return f"blocks.{index}.{_BOTTLENECK[role]}"
    # Block 0 is the fixed first one.
    return f"blocks.{index + 1}.conv.{_MBCONV[role]}"


def _sources(node: Node, prefix: str) -> Iterator[_Source]:
    """Yield where the parameters of an operator come from."""
    if node.op == "linear":
        for part in ("weight", "bias"):
            names = (f"{prefix}.linear.linear.{part}", f"{prefix}.linear.{part}")
            yield _Source(names, part)
    elif node.bias:
        for part in ("weight", "bias"):
            yield _Source((f"{prefix}.{part}",), part)
    else:
        weight = "weight" if node.norm_eps is None else "conv.weight"
        yield _Source((f"{prefix}.conv.conv.weight", f"{prefix}.conv.weight"), weight)
        for part in ("weight", "bias", "running_mean", "running_var") if node.norm_eps else ():
            yield _Source((f"{prefix}.bn.bn.{part}", f"{prefix}.bn.{part}"), f"norm.{part}")


def _matrix_name(prefix: str, large: int, small: int) -> str:
    return f"{prefix}.conv.{large}to{small}_matrix"


def _first_known(source: _Source, tensors: Mapping[str, Tensor]) -> str:
    """Return the spelling that a file has, or the last one where it has none."""
    known = (name for name in source.spellings if name in tensors)
    return next(known, source.spellings[-1])
