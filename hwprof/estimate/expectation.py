"""The expected latency of independently drawn decisions, by plain sums and products.

Numpy arrays, lists and torch tensors serve alike, and gradients flow through. Blocks and factors
are drawn independently of each other and of the depths, depths of different units too. So two
slots of different units hold a pair of levels with the product of their probabilities; within a
unit a layer is there only where those before it are, and the product is taken given the depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwprof.errors import SpaceError
from hwprof.space import DesignSpace, Factor, Slot

if TYPE_CHECKING:
    from hwprof.estimate.pair_terms import PairTable


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Probabilities of every decision of a space, checked as they are asked for.

    Attributes:
        space: the space.
        blocks: for every slot one probability per live candidate, in the space's order; a slot
            with one candidate may be left out.
        depths: for a unit one probability per depth; uniform where left out.
        factors: for a factor one probability per level; uniform where left out.
    """

    space: DesignSpace
    blocks: Mapping[Slot, Any]
    depths: Mapping[int, Any]
    factors: Mapping[str, Any]

    def of_blocks(self, slot: Slot) -> Any:
        """Return one probability per live candidate, given that the layer is there.

        Raises:
            SpaceError: the slot is missing, or the lengths do not match.
        """
        choices = self.space.choices(slot)
        given = self.blocks.get(slot)
        if given is None and len(choices) == 1:
            given = (1.0,)
        return _checked(given, len(choices), f"the {len(choices)} candidates of {slot}")

    def of_factor(self, factor: Factor) -> Any:
        """Return one probability per level.

        Raises:
            SpaceError: the lengths do not match.
        """
        n = len(factor.levels)
        given = self.factors.get(factor.name)
        return _checked([1.0 / n] * n if given is None else given, n, factor.name)

    def reach(self, slot: Slot) -> Any:
        """Return the probability that the layer is there, of the type that was given.

        Raises:
            SpaceError: the lengths do not match.
        """
        depths = self.space.depths(slot.unit)
        given = self.depths.get(slot.unit)
        shares = _checked(
            [1.0 / len(depths)] * len(depths) if given is None else given,
            len(depths),
            f"the depths {list(depths)} of unit {slot.unit}",
        )
        if slot.layer < depths[0]:
            return 1.0
        return sum(share for depth, share in zip(depths, shares, strict=True) if depth > slot.layer)

    def pair(self, table: PairTable, first: Slot, second: Slot) -> Any:
        """Return the expectation of a table over the levels of two slots, seconds.

        ``first`` comes before ``second`` in the space.
        """
        reach_first, reach_second = self.reach(first), self.reach(second)
        together = reach_second if first.unit == second.unit else reach_first * reach_second
        both = self._spread(first, second, table.value_s) * together
        absent = table.value_s[0]
        alone_first = self._mean(first, table.value_s[:, 0]) * (reach_first - together)
        alone_second = self._mean(second, absent) * (reach_second - together)
        neither = 1.0 - reach_first - reach_second + together
        return both + alone_first + alone_second + float(absent[0]) * neither

    def _mean(self, slot: Slot, levels_s: Any) -> Any:
        values = levels_s[1 + self._codes(slot)].tolist()
        shares = self.of_blocks(slot)
        return sum(share * value for share, value in zip(shares, values, strict=True))

    def _spread(self, first: Slot, second: Slot, value_s: Any) -> Any:
        rows = value_s[1 + self._codes(first)]
        shares = self.of_blocks(first)
        return sum(share * self._mean(second, row) for share, row in zip(shares, rows, strict=True))

    def _codes(self, slot: Slot) -> Any:
        names = self.space.base_choices(slot)
        return np.array([names.index(name) for name in self.space.choices(slot)])


def _checked(given: Sequence[Any] | Any, n: int, what: str) -> Any:
    if given is None or len(given) != n:
        got = "nothing" if given is None else f"{len(given)} numbers"
        raise SpaceError(f"expected one probability for each of {what}, got {got}")
    return given
