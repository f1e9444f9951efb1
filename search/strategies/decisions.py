"""Networks as an index into the options of every decision: slots, then depths, then factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.space import Architecture, DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.integer[Any]]


class Decisions:
    """The decisions of a space, those with one option included.

    Attributes:
        options: of every decision, ascending: codes of the live blocks of a slot, depths of a
            unit, indices of a factor's levels.
    """

    def __init__(self, space: DesignSpace) -> None:
        self._space = space
        self._unit = np.array([slot.unit for slot in space.slots])
        self._layer = np.array([slot.layer for slot in space.slots])
        blocks = [
            [space.base_choices(slot).index(block) for block in space.choices(slot)]
            for slot in space.slots
        ]
        depths = [list(space.depths(unit)) for unit in range(space.n_units)]
        levels = [list(range(len(factor.levels))) for factor in space.factors]
        self.options = [np.array(found) for found in (*blocks, *depths, *levels)]

    def network(self, picks: Ints) -> Architecture:
        """Return the network that takes option ``picks[d]`` of every decision d."""
        taken = [options[pick] for options, pick in zip(self.options, picks, strict=True)]
        n_slots = len(self._unit)
        blocks, depths, levels = np.split(np.array(taken), [n_slots, n_slots + self._space.n_units])
        present = self._layer < depths[self._unit]
        return self._space.decode(np.concatenate([np.where(present, blocks, -1), levels]))

    def picks(self, codes: Ints) -> Ints:
        """Return which option encoded networks take of every decision.

        Args:
            codes: ``int64[n, slots + factors]`` of networks of the space.

        Returns:
            ``int64[n, D]``; -1 at slots whose layer is absent.
        """
        blocks, levels = np.split(codes, [len(self._unit)], axis=1)
        units = range(self._space.n_units)
        depths = [(blocks[:, self._unit == unit] >= 0).sum(axis=1) for unit in units]
        values = np.hstack([blocks, np.stack(depths, axis=1), levels])
        found = [np.searchsorted(o, v) for o, v in zip(self.options, values.T, strict=True)]
        return np.where(values < 0, -1, np.stack(found, axis=1))
