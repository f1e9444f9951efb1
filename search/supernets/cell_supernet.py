"""All cells of NAS-Bench-201 in one small untrained network, mixed as a gate plan says.

For indicators that need no training (:mod:`hwprof.search.scoring.zero_cost`): one cell a stage and few
channels, as in the code of TE-NAS (Chen et al., ICLR 2021).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from hwprof.graph import piece_graph, to_torch
from hwprof.search.supernets.gates import GatePlan, Mix, mixed
from hwprof.space import DesignSpace, Slot
from hwprof.space.nasbench201 import BN_EPS, ENDS
from hwprof.space.pieces import CellOpPiece, ConvPiece, HeadPiece, ReductionPiece


def even_plan(space: DesignSpace) -> GatePlan:
    """Return the plan that mixes all live candidates of every slot in equal parts."""
    live = {slot: space.choices(slot) for slot in space.slots}
    return GatePlan(
        blocks={
            slot: Mix(run=found, gate=torch.full((len(found),), 1.0 / len(found)))
            for slot, found in live.items()
        }
    )


class MixedCell(nn.Module):
    """One cell, with an operator of its own for every live candidate of every edge."""

    def __init__(self, space: DesignSpace, *, channels: int, size_px: int) -> None:
        """Build it for inputs [n, channels, size_px, size_px]; its output has the same shape."""
        super().__init__()
        self._slots = space.slots

        def operator(op: str) -> nn.Module:
            piece = CellOpPiece(in_channels=channels, size_px=size_px, op=op, bn_eps=BN_EPS)
            return to_torch(piece_graph(piece))

        self.edges = nn.ModuleList(
            nn.ModuleDict({op: operator(op) for op in space.choices(slot)}) for slot in space.slots
        )

    def forward(self, x: Tensor, plan: GatePlan) -> Tensor:
        """Return the cell's last node under a plan that names every edge."""
        nodes = {0: x}
        # Edges into a node come before all that leave it.
        for slot, (source, target) in zip(self._slots, ENDS, strict=True):
            y = mixed(nodes[source], plan.blocks[slot], partial(self._run, slot))
            nodes[target] = nodes[target] + y if target in nodes else y
        return nodes[ENDS[-1][1]]

    def _run(self, slot: Slot, op: str, x: Tensor) -> Tensor:
        candidates = self.edges[slot.layer]
        assert isinstance(candidates, nn.ModuleDict)
        output: Tensor = candidates[op](x)
        return output


class CellSupernet(nn.Module):
    """Stem, three stages of one mixed cell with a residual block between them, and head."""

    def __init__(self, space: DesignSpace, *, channels: int) -> None:
        """Build it with ``channels`` in the first stage, twice and four times those behind.

        Args:
            space: NAS-Bench-201, or what is left of it.
            channels: the benchmark's networks have 16.
        """
        super().__init__()
        stem, first, second, head = (part.piece for part in space.fixed_parts())
        assert isinstance(stem, ConvPiece)
        assert isinstance(head, HeadPiece)
        modules: list[nn.Module] = [to_torch(piece_graph(replace(stem, out_channels=channels)))]
        for before in (stem, first, second):
            if isinstance(before, ReductionPiece):
                block = replace(before, in_channels=channels, out_channels=2 * channels)
                modules.append(to_torch(piece_graph(block)))
                channels *= 2
            modules.append(MixedCell(space, channels=channels, size_px=before.out_size_px))
        modules.append(to_torch(piece_graph(replace(head, in_channels=channels))))
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor, plan: GatePlan) -> Tensor:
        """Return logits [n, classes] of images [n, 3, side, side] under a plan."""
        for part in self.parts:
            x = part(x, plan) if isinstance(part, MixedCell) else part(x)
        return x


class Planned(nn.Module):
    """A supernet under one plan: a function of images alone, with the supernet's parameters."""

    def __init__(self, supernet: nn.Module, plan: GatePlan) -> None:
        """Wrap it; nothing is copied."""
        super().__init__()
        self.supernet = supernet
        self.plan = plan

    def forward(self, x: Tensor) -> Tensor:
        """Return what the supernet makes of ``x``."""
        output: Tensor = self.supernet(x, self.plan)
        return output
