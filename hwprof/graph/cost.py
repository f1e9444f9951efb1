"""Exact costs: multiply-accumulates and parameters, summed over the pieces of a network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hwprof.graph.build import piece_graph
from hwprof.space.architecture import Architecture
from hwprof.space.pieces import Piece
from hwprof.space.space import DesignSpace


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one forward pass of one image; a convolution's bias and activations are free."""

    macs: int
    params: int


@lru_cache(maxsize=65_536)
def piece_cost(piece: Piece) -> Cost:
    """Return the cost of a piece; equal pieces are counted once and remembered.

    Raises:
        SpaceError: the piece's fields contradict each other.
    """
    graph = piece_graph(piece)
    return Cost(macs=graph.macs, params=graph.params)


def architecture_cost(space: DesignSpace, arch: Architecture) -> Cost:
    """Return the cost of a network, equal to its graph's but without building it.

    Raises:
        SpaceError: the architecture is not one of the space's.
    """
    costs = [piece_cost(placed.piece) for placed in space.pieces(arch)]
    return Cost(macs=sum(c.macs for c in costs), params=sum(c.params for c in costs))
