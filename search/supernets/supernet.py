"""A supernet: one module per candidate and slot, run as a gate plan says.

Sources: weight sharing over uniformly sampled single paths, with batch norm recalibrated for
every network that is judged, is SPOS (Guo et al., ECCV 2020); one set of weights per candidate
is ProxylessNAS (Cai et al., ICLR 2019). There a block is shortcut plus mixed branches, here a
mix of whole blocks, ``skip`` being the identity: as gates sum to one the outputs are the same,
and every ∂L/∂g_j is larger by the same ⟨∂L/∂y, x⟩, which the softmax cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from hwprof.errors import SpaceError, either
from hwprof.graph import network_graph, piece_graph, to_torch
from hwprof.search.supernets.gates import GatePlan, mixed
from hwprof.search.supernets.initial import Branched, initialise, start_alike
from hwprof.space import SKIP, Architecture, DesignSpace, Placed, Slot
from hwprof.space.mbconv import MBConvSpace
from hwprof.space.pieces import Piece

Run = Callable[[Slot, str, Tensor], Tensor]
"""Runs a block of a slot on an input."""


class Supernet(nn.Module):
    """All networks of a space of MBConv blocks in one module.

    :func:`hwprof.search.supernets.elastic.supernet_of` makes that of any layer-wise space.

    Stem, first block and head are shared; every live candidate of every slot has its own
    weights. Only what a plan runs takes part: candidates that do not run, and those that are
    only probed, get no gradient (``grad`` stays None), so an optimiser leaves them as they are.

    Running statistics of batch norm mean nothing here, where every network has its own: judge
    networks inside :func:`private_statistics`, or :meth:`extract` them and recalibrate.
    """

    space: DesignSpace
    takes: ClassVar[type[DesignSpace]] = MBConvSpace

    def __init__(self, space: DesignSpace, *, seed: int) -> None:
        """Build the supernet with weights drawn from ``seed``.

        Raises:
            SpaceError: the space is not made of layers in slots.
        """
        super().__init__()
        if not isinstance(space, self.takes):
            raise SpaceError(
                f"{space.name!r} has no supernet; expected a layer-wise space such as "
                "'mobile-mini', 'proxylessnas' or 'ofa-resnet50' (take accuracies from a table "
                "instead)"
            )
        self.space = space
        *entry, head = self._fixed_parts()
        self.entry = nn.ModuleDict(
            {part.scope: to_torch(piece_graph(part.piece)) for part in entry}
        )
        self.candidates = nn.ModuleDict(
            {
                _slot_key(slot): nn.ModuleDict(
                    {
                        _block_key(block): to_torch(piece_graph(self._piece(slot, block)))
                        for block in space.choices(slot)
                        if block != SKIP
                    }
                )
                for slot in space.slots
            }
        )
        self.head = to_torch(piece_graph(head.piece))
        self._initialise(torch.Generator().manual_seed(seed))
        channels_last(self)

    def forward(self, x: Tensor, plan: GatePlan) -> Tensor:
        """Return logits [N, n_classes] of images [N, 3, side, side] under a plan.

        Raises:
            SpaceError: the plan names a slot or candidate that this supernet does not have.
        """
        self._require_known(plan)
        x = self._enter(plan, x)
        for unit in range(self.space.n_units):
            x = self._unit(plan, unit, x)
        return self._leave(x)

    def path(self, plan: GatePlan) -> Iterator[nn.Module]:
        """Yield the modules that take part in a plan, in order.

        Raises:
            SpaceError: the plan names a slot or candidate that this supernet does not have.
        """
        self._require_known(plan)
        yield from self.entry.values()
        for slot in self.space.slots:
            reach = plan.depths.get(slot.unit)
            if slot in plan.blocks and (reach is None or slot.layer < max(reach.options)):
                blocks = plan.blocks[slot].options
                yield from (self._candidate(slot, block) for block in blocks if block != SKIP)
        yield self.head

    def extract(self, arch: Architecture) -> nn.Module:
        """Return a copy of one network, as ``to_torch(network_graph(space, arch))`` would name it.

        Its batch norms are not recalibrated yet. ``module.graph`` is its graph, for
        :func:`hwprof.graph.to_onnx` and :func:`hwprof.graph.weights_from_torch`.
        """
        network = to_torch(network_graph(self.space, arch))
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        state: dict[str, Tensor] = {}
        for placed in self.space.pieces(arch):
            for name, tensor in self._part(placed).items():
                # Alone, a piece is named after its kind; in a network after its place.
                _, _, rest = name.partition(".")
                place = f"{placed.scope}.{rest}"
                # A narrower network has the first channels, and not all layers of the stem.
                if place in shapes:
                    state[place] = tensor[tuple(slice(size) for size in shapes[place])]
        network.load_state_dict(state)
        return channels_last(network)

    def _fixed_parts(self) -> tuple[Placed, ...]:
        """Return what stands in no slot, the head last; every scope once."""
        return self.space.fixed_parts()

    def _piece(self, slot: Slot, block: str) -> Piece:
        """Return what a candidate's module is made of."""
        return self.space.block_pieces(slot, block)[0][0]

    def _enter(self, plan: GatePlan, x: Tensor) -> Tensor:
        """Run what precedes the units."""
        for module in self.entry.values():
            x = module(x)
        return x

    def _unit(self, plan: GatePlan, unit: int, x: Tensor) -> Tensor:
        return self._layers(plan, unit, self._block, x)

    def _leave(self, x: Tensor) -> Tensor:
        """Run what follows the units."""
        logits: Tensor = self.head(x)
        return logits

    def _layers(self, plan: GatePlan, unit: int, run: Run, x: Tensor) -> Tensor:
        """Run the layers of a unit, or a mix of its depths."""
        mix = plan.depths.get(unit)
        prefix = partial(self._prefix, plan, unit, run)
        return prefix(self.space.max_depth[unit], x) if mix is None else mixed(x, mix, prefix)

    def _prefix(self, plan: GatePlan, unit: int, run: Run, depth: int, x: Tensor) -> Tensor:
        """Run the first ``depth`` layers of a unit."""
        for layer in range(depth):
            slot = Slot(unit, layer)
            if slot in plan.blocks:
                x = mixed(x, plan.blocks[slot], partial(run, slot))
        return x

    def _block(self, slot: Slot, block: str, x: Tensor) -> Tensor:
        if block == SKIP:
            return x
        output: Tensor = self._candidate(slot, block)(x)
        return output

    def _require_known(self, plan: GatePlan) -> None:
        if stray := sorted(set(plan.blocks) - set(self.space.slots)):
            raise SpaceError(
                f"the supernet has no layer {stray[0].layer} in unit {stray[0].unit}; its units "
                f"have up to {', '.join(map(str, self.space.max_depth))} layers"
            )

    def _initialise(self, generator: torch.Generator) -> None:
        initialise(self, generator)
        for slot in self.space.slots:
            pieces = {block: self._piece(slot, block) for block in self.space.choices(slot)}
            start_alike(
                [
                    (piece, self._candidate(slot, block))
                    for block, piece in pieces.items()
                    if isinstance(piece, Branched)
                ],
                generator,
            )

    def _part(self, placed: Placed) -> dict[str, Tensor]:
        if placed.slot is None:
            is_head = placed.scope not in self.entry
            fixed = self.head if is_head else self.entry[placed.scope]
            return fixed.state_dict()
        if placed.block is None or placed.block == SKIP:
            return {}
        return self._candidate(placed.slot, placed.block).state_dict()

    def _candidate(self, slot: Slot, block: str) -> nn.Module:
        choices = self.candidates[_slot_key(slot)]
        assert isinstance(choices, nn.ModuleDict)
        if _block_key(block) not in choices:
            raise SpaceError(
                f"the supernet has no {block!r} in unit {slot.unit} layer {slot.layer}; expected "
                f"{either(self.space.choices(slot))}"
            )
        return choices[_block_key(block)]


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the module's weights out channels last, in place: 1.1 to 1.8 times as fast on a CPU.

    Measured by ``tests/bench/bench_training_step.py``.
    """
    # The stubs of ``to`` do not know its documented ``memory_format``.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


@contextmanager
def private_statistics(norms: Iterable[nn.BatchNorm2d]) -> Iterator[None]:
    """Lend the norms fresh running statistics that average over batches; restore them after.

    Inside, batches seen in training mode count equally (``momentum`` None). Parameters, buffers,
    momentum and mode are afterwards what they were, bit by bit.
    """
    kept = [(n, dict(n.named_buffers()), n.momentum, n.training) for n in norms]
    try:
        for norm, buffers, _, _ in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, torch.empty_like(buffer))
            norm.reset_running_stats()
            norm.momentum = None
        yield
    finally:
        for norm, buffers, momentum, training in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
            norm.momentum = momentum
            norm.train(training)


def _slot_key(slot: Slot) -> str:
    """Name a slot as a module may be named: without a dot."""
    return f"u{slot.unit}_l{slot.layer}"


def _block_key(block: str) -> str:
    """Name a block as a module may be named: ``bottleneck_e0.2`` has a dot."""
    return block.replace(".", "_")
