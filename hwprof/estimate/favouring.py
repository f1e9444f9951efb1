"""Networks drawn deeper than at random, so that blocks of last layers stand in more of them.

With every depth of a unit equally likely, the last of two to four layers is in a third of the
networks, and its blocks' effects are known √3 times worse than those of the first layer. Drawing
the greatest depth more often evens that out. Effects keep their meaning: they are coefficients of
a sum that is centred on the space's own law of depths, whatever networks it was fitted to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwprof.estimate.design_matrix import depth_probability

if TYPE_CHECKING:
    from hwprof.space import Architecture, DesignSpace, Slot

DEEPEST = 0.6
"""Share of the greatest depth; the others share the rest equally (.2 .2 .6 of three)."""


def depth_shares(space: DesignSpace, unit: int) -> dict[int, float]:
    """Return how often every depth of ``unit`` is drawn."""
    *shallower, deepest = space.depths(unit)
    if not shallower:
        return {deepest: 1.0}
    return {**dict.fromkeys(shallower, (1.0 - DEEPEST) / len(shallower)), deepest: DEEPEST}


def presence(space: DesignSpace, slot: Slot, *, favour_depth: bool) -> float:
    """Return how likely a network has the layer of ``slot``."""
    if not favour_depth:
        return depth_probability(space, slot.unit, slot.layer + 1)
    shares = depth_shares(space, slot.unit)
    return math.fsum(share for depth, share in shares.items() if depth > slot.layer)


def acceptance(space: DesignSpace, arch: Architecture) -> float:
    """Return with which probability to keep a network of the space's own law, for this one."""
    found = 1.0
    for unit in range(space.n_units):
        shares = depth_shares(space, unit)
        if len(shares) > 1:
            found *= shares[len(arch.units[unit])] / max(shares.values())
    return found
