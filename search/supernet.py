"""A single-path supernet: one module per candidate and slot, one path through it at a time.

Sources: weight sharing over uniformly sampled single paths, with batch norm recalibrated for
every network that is judged, is SPOS (Guo et al., ECCV 2020); one set of weights per candidate
is ProxylessNAS (Cai et al., ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwprof.errors import SpaceError
from hwprof.graph import network_graph, piece_graph, to_torch
from hwprof.search.initial import initialise, start_alike
from hwprof.space import SKIP, Architecture, DesignSpace, Placed, Slot
from hwprof.space.mbconv import MBConvSpace
from hwprof.space.pieces import MBConvPiece


@dataclass(frozen=True, kw_only=True)
class GatePlan:
    """Which candidate runs in every slot; a slot that is not named hands its input on."""

    run: Mapping[Slot, str]

    @classmethod
    def single_path(cls, arch: Architecture) -> GatePlan:
        """Return the plan that runs exactly the blocks of ``arch``."""
        return cls(
            run={
                Slot(unit, layer): block
                for unit, blocks in enumerate(arch.units)
                for layer, block in enumerate(blocks)
                if block != SKIP
            }
        )


class Supernet(nn.Module):
    """All networks of a layer-wise space in one module.

    Stem, first block and head are shared; every live candidate of every slot has its own
    weights. Only what a plan runs takes part: candidates that do not run get no gradient
    (``grad`` stays None), so an optimiser leaves them as they are.

    Running statistics of batch norm mean nothing here, where every network has its own: judge
    networks inside :func:`private_statistics`, or :meth:`extract` them and recalibrate.
    """

    def __init__(self, space: DesignSpace, *, seed: int) -> None:
        """Build the supernet with weights drawn from ``seed``.

        Raises:
            SpaceError: the space is not made of inverted bottlenecks in slots.
        """
        super().__init__()
        if not isinstance(space, MBConvSpace):
            raise SpaceError(
                f"{space.name!r} has no supernet; expected a space of MBConv blocks such as "
                "'mobile-mini' or 'proxylessnas' (take accuracies from a table instead)"
            )
        self.space = space
        *entry, head = space.fixed_parts()
        self.entry = nn.ModuleDict(
            {part.scope: to_torch(piece_graph(part.piece)) for part in entry}
        )
        self.candidates = nn.ModuleDict(
            {
                _slot_key(slot): nn.ModuleDict(
                    {
                        block: to_torch(piece_graph(space.block_pieces(slot, block)[0][0]))
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
        """Return logits [N, n_classes] of images [N, 3, side, side] on the plan's path."""
        for module in self.path(plan):
            x = module(x)
        return x

    def path(self, plan: GatePlan) -> Iterator[nn.Module]:
        """Yield the modules that a plan runs, in order.

        Raises:
            SpaceError: the plan names a slot or candidate that this supernet does not have.
        """
        slots = self.space.slots
        if stray := sorted(set(plan.run) - set(slots)):
            raise SpaceError(
                f"the supernet has no layer {stray[0].layer} in unit {stray[0].unit}; its units "
                f"have up to {list(self.space.max_depth)} layers"
            )
        yield from self.entry.values()
        for slot in slots:
            if slot in plan.run:
                yield self._candidate(slot, plan.run[slot])
        yield self.head

    def extract(self, arch: Architecture) -> nn.Module:
        """Return a copy of one network, as ``to_torch(network_graph(space, arch))`` would name it.

        Its batch norms are not recalibrated yet. ``module.graph`` is its graph, for
        :func:`hwprof.graph.to_onnx` and :func:`hwprof.graph.weights_from_torch`.
        """
        network = to_torch(network_graph(self.space, arch))
        state: dict[str, Tensor] = {}
        for placed in self.space.pieces(arch):
            for name, tensor in self._part(placed).items():
                # Alone, a piece is named after its kind; in a network after its place.
                _, _, rest = name.partition(".")
                state[f"{placed.scope}.{rest}"] = tensor
        network.load_state_dict(state)
        return channels_last(network)

    def _initialise(self, generator: torch.Generator) -> None:
        initialise(self, generator)
        for slot in self.space.slots:
            pieces = {b: self.space.block_pieces(slot, b)[0][0] for b in self.space.choices(slot)}
            start_alike(
                [
                    (piece, self._candidate(slot, block))
                    for block, piece in pieces.items()
                    if isinstance(piece, MBConvPiece)
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
        if block not in choices:
            raise SpaceError(
                f"the supernet has no {block!r} in unit {slot.unit} layer {slot.layer}; expected "
                f"one of {list(choices)}"
            )
        return choices[block]


def channels_last(module: nn.Module) -> nn.Module:
    """Lay the module's weights out channels last, in place: twice as fast to train on a CPU."""
    # The stubs of ``to`` do not know its documented ``memory_format``.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


def norms_of(modules: Iterable[nn.Module]) -> list[nn.BatchNorm2d]:
    """Return every batch norm inside ``modules``."""
    return [n for module in modules for n in module.modules() if isinstance(n, nn.BatchNorm2d)]


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
