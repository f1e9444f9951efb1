"""How many networks differ, where layers may be skipped."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from hwprof.space.architecture import SKIP

Layers = Sequence[Sequence[str]]


def n_sequences(layers: Layers, depths: Collection[int]) -> int:
    """Count the sequences of blocks that a unit can show once its skips are left out.

    A walk over the words of a nondeterministic automaton whose states are "so many layers
    used"; following the *set* of reachable states counts every word once. Without skips this
    is the number of encodings; six blocks, with skip in layers 1 to 3 of 4, give
    6 · (1 + 6 + 36 + 216) = 6 · 259 (ProxylessNAS: 6⁶ · 259⁵ networks).

    Args:
        layers: the candidates of every layer, :data:`SKIP` among them where it may be empty.
        depths: the depths that the unit may have.
    """
    blocks = {block for layer in layers for block in layer} - {SKIP}

    @cache
    def count(states: frozenset[int]) -> int:
        total = int(any(_may_end(layers, depths, used) for used in states))
        for block in blocks:
            reached = frozenset(n for used in states for n in _after(layers, used, block))
            total += count(reached) if reached else 0
        return total

    return count(frozenset({0}))


def _may_end(layers: Layers, depths: Collection[int], used: int) -> bool:
    """Return whether nothing but skips may follow the first ``used`` layers."""
    return any(
        depth >= used and all(SKIP in layer for layer in layers[used:depth]) for depth in depths
    )


def _after(layers: Layers, used: int, block: str) -> list[int]:
    """Return how many layers may be used once ``block`` is next, skips before it included."""
    reached = []
    for index in range(used, len(layers)):
        if block in layers[index]:
            reached.append(index + 1)
        if SKIP not in layers[index]:
            break
    return reached
