"""What a layer costs as a difference: a network with it, less the same network without it.

One base network, and for every layer that may be absent each of its blocks added to the base:
networks that differ in nothing else. It needs a network a block and says nothing of layers that
are always there; in exchange it assumes no additivity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import SpaceError
from hwprof.interval import Interval
from hwprof.space import SKIP, Architecture, DesignSpace, Slot

if TYPE_CHECKING:
    from hwprof.store import Run

STREAM = 3
"""Keeps the base network's random stream apart from the profile's own."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``block`` at ``slot``: the network that has it, and the one without the layer."""

    slot: Slot
    block: str
    with_it: Architecture
    without: Architecture


def differential_pairs(space: DesignSpace, seed: int) -> list[Pair]:
    """Return a pair for every block of every layer that may be absent, given the layers before it.

    The base of a layer has its unit cut just before the layer (or ``skip`` in its place);
    everywhere else it is one network of random blocks, with every layer that there may be.

    Raises:
        SpaceError: no layer of the space may be absent.
    """
    whole = space.sample(np.random.default_rng([seed, STREAM]))
    full = space.encode(whole)
    columns = {slot: i for i, slot in enumerate(space.slots)}
    rng = np.random.default_rng([seed, STREAM, 1])
    for slot, column in columns.items():
        # Layers beyond the random network's depth are filled.
        if full[column] < 0:
            full[column] = space.base_choices(slot).index(_pick(space, slot, rng))
    pairs = []
    for slot in space.slots:
        choices, names = space.choices(slot), space.base_choices(slot)
        without = full.copy()
        if SKIP in choices:
            without[columns[slot]] = names.index(SKIP)
        elif slot.layer >= space.min_depth[slot.unit]:
            for later, column in columns.items():
                if later.unit == slot.unit and later.layer >= slot.layer:
                    without[column] = -1
        else:
            continue
        base = space.decode(without)
        for block in choices:
            if block != SKIP:
                codes = without.copy()
                codes[columns[slot]] = names.index(block)
                pairs.append(
                    Pair(slot=slot, block=block, with_it=space.decode(codes), without=base)
                )
    if not pairs:
        raise SpaceError(
            f"no layer of {space.name} may be absent, so nothing is a difference; leave out "
            "--differential"
        )
    return pairs


def differential_networks(space: DesignSpace, seed: int) -> list[Architecture]:
    """Return every network of the pairs once."""
    archs = [a for pair in differential_pairs(space, seed) for a in (pair.without, pair.with_it)]
    return list({arch.arch_id: arch for arch in archs}.values())


def differentials(run: Run, space: DesignSpace, seed: int) -> dict[tuple[Slot, str], Interval]:
    """Return ``differential_s`` of every pair of which both networks were measured."""
    from hwprof.parts.comparison import difference

    known = {m.workload.arch.arch_id: m for m in run.measurements() if m.workload.arch is not None}
    found = {}
    for pair in differential_pairs(space, seed):
        more, less = known.get(pair.with_it.arch_id), known.get(pair.without.arch_id)
        if more is not None and less is not None:
            found[pair.slot, pair.block] = difference(more, less)
    return found


def _pick(space: DesignSpace, slot: Slot, rng: np.random.Generator) -> str:
    blocks = [b for b in space.choices(slot) if b != SKIP] or list(space.choices(slot))
    return blocks[int(rng.integers(len(blocks)))]
