"""Architecture parameters: a categorical distribution over every decision of a space.

A decision is the block of a slot, or the depth of a unit where depth may vary (the ``ofa-``
spaces and ``mobile-mini``, which have no skip), or the level of a factor (widths and the stem's
depth in ``ofa-resnet50``). Parameters are logits α in float64 on the CPU:
there are a few hundred, and what is tested against closed forms should not be rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwprof.errors import SpaceError
from hwprof.space import Architecture, DesignSpace, Factor, Slot

Floats = NDArray[np.float64]

Where = Slot | int | Factor
"""A decision: a slot (its block), the index of a unit (its depth), or a factor (its level)."""

ALPHA_SD = 1e-3
"""Standard deviation of fresh logits (mit-han-lab/proxylessnas)."""


def options_of(space: DesignSpace) -> dict[Where, tuple[str, ...] | tuple[int, ...]]:
    """Return the options of every decision of a layer-wise space that has more than one."""
    blocks: dict[Where, tuple[str, ...] | tuple[int, ...]] = {
        slot: space.choices(slot) for slot in space.slots
    }
    levels: dict[Where, tuple[str, ...] | tuple[int, ...]] = {
        **{unit: space.depths(unit) for unit in range(space.n_units)},
        **{factor: factor.levels for factor in space.factors},
    }
    return {where: found for where, found in (blocks | levels).items() if len(found) > 1}


@dataclass(frozen=True, kw_only=True)
class Path:
    """One option for every decision, as an index into its options; a network of the space."""

    space: DesignSpace
    picks: Mapping[Where, int]

    def block(self, slot: Slot) -> str:
        """Return the block at ``slot``."""
        return self.space.choices(slot)[self.picks.get(slot, 0)]

    def depth(self, unit: int) -> int:
        """Return the number of layers of ``unit``."""
        return self.space.depths(unit)[self.picks.get(unit, 0)]

    def level(self, factor: Factor) -> int:
        """Return the level of a factor."""
        return factor.levels[self.picks.get(factor, 0)]

    def holds(self, where: Where) -> bool:
        """Say whether the network depends on this decision: its layer is there."""
        return not isinstance(where, Slot) or where.layer < self.depth(where.unit)

    @property
    def arch(self) -> Architecture:
        """The network."""
        units = [
            tuple(self.block(Slot(unit, layer)) for layer in range(self.depth(unit)))
            for unit in range(self.space.n_units)
        ]
        return self.space.assemble(units, [self.level(factor) for factor in self.space.factors])


class Choices:
    """Logits of every decision, and what is read off them.

    Attributes:
        space: a layer-wise space.
        options: of every decision with more than one.
        alpha: ``float64[n_options]`` logits of each, leaves that take gradients.
    """

    def __init__(self, space: DesignSpace, *, seed: int) -> None:
        """Draw logits near zero from ``seed``.

        Raises:
            SpaceError: nothing is left to decide.
        """
        self.space = space
        self.options = options_of(space)
        if not self.options:
            raise SpaceError(
                f"this {space.name!r} space holds one network: there is nothing to search; "
                "reduce it less"
            )
        rng = np.random.default_rng(seed)
        self.alpha: dict[Where, Tensor] = {
            where: torch.tensor(rng.normal(0.0, ALPHA_SD, len(found)), requires_grad=True)
            for where, found in self.options.items()
        }

    def probabilities(self) -> dict[Where, Tensor]:
        """Return the softmax of every decision's logits, differentiable."""
        return {where: alpha.softmax(dim=0) for where, alpha in self.alpha.items()}

    def draw(self, rng: np.random.Generator) -> Path:
        """Draw a network: every decision independently from its distribution."""
        return Path(
            space=self.space,
            picks={where: _pick(p, rng) for where, p in self._plain().items()},
        )

    def draw_pairs(self, rng: np.random.Generator) -> dict[Where, tuple[int, int]]:
        """Draw two different options of every decision, without replacement, from p.

        A pair {i, j} comes up with probability p_i p_j (1/(1 − p_i) + 1/(1 − p_j)).
        """
        pairs: dict[Where, tuple[int, int]] = {}
        for where, p in self._plain().items():
            first = _pick(p, rng)
            rest = p.copy()
            if p.sum() > p[first]:
                rest[first] = 0.0
            else:  # p is one-hot to the last bit: the others are alike
                rest = np.ones_like(p)
                rest[first] = 0.0
            pairs[where] = (first, _pick(rest, rng))
        return pairs

    def best(self) -> Path:
        """Return the most probable network: the argmax of every decision (the first of equals)."""
        return Path(
            space=self.space,
            picks={where: int(alpha.argmax()) for where, alpha in self.alpha.items()},
        )

    def entropy_nat(self) -> dict[str, float]:
        """Return the entropy of every decision in nat, by :func:`name_of` it."""
        found = {}
        for where, p in self._plain().items():
            kept = p[p > 0.0]
            found[name_of(where)] = max(0.0, float(-(kept * np.log(kept)).sum()))
        return found

    def log_probability(self, path: Path) -> Tensor:
        """Return log p of a network, differentiable: the sum over the decisions it depends on."""
        terms = [
            self.alpha[where].log_softmax(dim=0)[pick]
            for where, pick in path.picks.items()
            if path.holds(where)
        ]
        return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the logits by decision's name."""
        return {name_of(where): alpha.detach().clone() for where, alpha in self.alpha.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the logits of another instance of the same space."""
        with torch.no_grad():
            for where, alpha in self.alpha.items():
                alpha.copy_(state[name_of(where)])

    def _plain(self) -> dict[Where, Floats]:
        return {where: p.detach().numpy() for where, p in self.probabilities().items()}


def name_of(where: Where) -> str:
    """Return ``u0.l1`` for a slot, ``u0`` for the depth of a unit, a factor's own name."""
    if isinstance(where, Factor):
        return where.name
    return str(where) if isinstance(where, Slot) else f"u{where}"


def _pick(weights: Floats, rng: np.random.Generator) -> int:
    """Return an index with probability in proportion to its weight."""
    sums = weights.cumsum()
    return int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
