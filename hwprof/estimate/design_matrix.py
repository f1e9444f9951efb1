"""Networks as rows of a regression: effect coding of any design space.

The model of one metric (block-profiling estimator) is

    y = μ + Σ_u Σ_{d>min} δ_ud (1[d_u ≥ d] − P(d_u ≥ d)) + Σ_{u,l} 1[d_u ≥ l] β_ulb + factors,

with Σ_b β_ulb = 0 at every slot and every factor's levels summing to zero. P is the space's
uniform depth distribution, so that μ is the mean over the space's own random networks. A unit
whose depth is no decision has no δ, a slot with one candidate has no β. The free coefficients
leave out the last candidate of every slot; :attr:`DesignMatrix.expansion` maps them linearly
to all effects, so that covariances of any effect are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError, SpaceError
from hwprof.estimate.least_squares import column_rank
from hwprof.results import EffectKind
from hwprof.space import Architecture, DesignSpace, Factor, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One effect of the model, addressed as :class:`hwprof.results.Effect` is."""

    kind: EffectKind
    unit: int | None = None
    layer: int | None = None
    depth: int | None = None
    block: str | None = None

    def __str__(self) -> str:
        if self.kind == "depth":
            return f"depth {self.depth} of unit {self.unit}"
        if self.kind == "block":
            return f"{self.block} at u{self.unit}.l{self.layer}"
        return f"{self.block} everywhere" if self.kind == "network" else f"{self.block}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """One column of :meth:`hwprof.space.DesignSpace.encode` and the coefficients it moves.

    ``coding`` is ``float64[1 + n_codes, n_columns]``: row 0 for an absent layer (code -1), row
    1 + c for code c. ``valid`` says which rows a network of the space can have. ``names`` has a
    name for every code.
    """

    slot: Slot | None
    factor: Factor | None
    names: tuple[str, ...]
    columns: slice
    coding: Floats
    valid: NDArray[np.bool_]
    has_depth: bool

    @property
    def n_columns(self) -> int:
        """Number of free coefficients."""
        return int(self.coding.shape[1])

    def term(self, code: int) -> Term:
        """Return the effect of a code: its block at the slot, or its level of the factor."""
        unit, layer = self.slot or (None, None)
        kind: EffectKind = "factor" if self.slot is None else "block"
        return Term(kind=kind, unit=unit, layer=layer, block=self.names[code])

    def describe(self, row: int) -> str:
        """Return what a row of the coding stands for, in words."""
        if self.factor is not None:
            return self.names[row - 1]
        return f"no layer at {self.slot}" if row == 0 else f"{self.names[row - 1]} at {self.slot}"


def n_coefficients(space: DesignSpace) -> int:
    """Return the number of free coefficients, the mean included (171 for OFA-MobileNetV3)."""
    depths = sum(len(space.depths(unit)) - 1 for unit in range(space.n_units))
    blocks = sum(len(space.choices(slot)) - 1 for slot in space.slots)
    factors = sum(len(factor.levels) - 1 for factor in space.factors)
    return 1 + depths + blocks + factors


def depth_probability(space: DesignSpace, unit: int, depth: int) -> float:
    """Return P(d_u ≥ depth) where every depth of the unit is equally likely."""
    depths = space.depths(unit)
    return sum(d >= depth for d in depths) / len(depths)


class DesignMatrix:
    """The design matrix of a space.

    Attributes:
        space: the design space.
        decisions: one per column of the encoding, slots first, then factors.
        terms: all effects: blocks in slot order, depths, blocks everywhere, factors.
        expansion: ``float64[len(terms), n_coefficients]``, free coefficients → effects.
    """

    def __init__(self, space: DesignSpace) -> None:
        self.space = space
        self.n_coefficients = n_coefficients(space)
        decisions: list[Decision] = []
        first = 1
        for slot in space.slots:
            decisions.append(_slot_decision(space, slot, first))
            first = decisions[-1].columns.stop
        for factor in space.factors:
            decisions.append(_factor_decision(factor, first))
            first = decisions[-1].columns.stop
        self.decisions = tuple(decisions)
        self.terms, self.expansion = self._expand()

    @cached_property
    def index(self) -> dict[Term, int]:
        """Position of every term."""
        return {term: position for position, term in enumerate(self.terms)}

    def encode(self, archs: Sequence[Architecture]) -> Codes:
        """Return ``int64[n, n_decisions]`` codes.

        Raises:
            SpaceError: a network belongs to another space, or has literal widths.
        """
        space = self.space
        for arch in archs:
            if (arch.space, arch.resolution_px) != (space.name, space.resolution_px):
                raise SpaceError(
                    f"the network is of {arch.space} at {arch.resolution_px} px; expected "
                    f"{space.name} at {space.resolution_px} px"
                )
        return space.encode_many(archs)

    def rows(self, codes: Codes) -> Floats:
        """Return ``float64[n, n_coefficients]``, one row a network.

        Args:
            codes: ``int64[n, n_decisions]`` from :meth:`encode`.

        Raises:
            SpaceError: a network holds a block that the space no longer has.
        """
        self.require_valid(codes)
        out = np.empty((codes.shape[0], self.n_coefficients))
        out[:, 0] = 1.0
        for column, decision in zip(codes.T, self.decisions, strict=True):
            if decision.n_columns:
                out[:, decision.columns] = decision.coding[column + 1]
        return out

    def level_values(self, coefficients: Floats) -> list[Floats]:
        """Return what every row of every decision adds to the prediction, ``float64[1 + codes]``.

        A network's value is ``coefficients[0]`` plus one entry of each.
        """
        return [d.coding @ coefficients[d.columns] for d in self.decisions]

    def predictions(self, coefficients: Floats, codes: Codes) -> Floats:
        """Return ``float64[n]``, the model's value for every network; codes are not checked."""
        total = np.full(len(codes), coefficients[0])
        for column, values in zip(codes.T, self.level_values(coefficients), strict=True):
            total += values[column + 1]
        return total

    def levels_seen(self, codes: Codes) -> list[NDArray[np.int64]]:
        """Return in how many networks every row of every decision stands."""
        return [
            np.bincount(column + 1, minlength=decision.valid.size)
            for column, decision in zip(codes.T, self.decisions, strict=True)
        ]

    def counts(self, codes: Codes) -> NDArray[np.int64]:
        """Return for every term the number of networks in which it is active."""
        present: dict[Term, NDArray[np.bool_]] = {}
        for column, decision in zip(codes.T, self.decisions, strict=True):
            for code, name in enumerate(decision.names):
                here = column == code
                present[decision.term(code)] = here
                everywhere = Term(kind="network", block=name)
                present[everywhere] = present.get(everywhere, False) | here
            if decision.slot is not None and decision.has_depth:
                unit, layer = decision.slot
                present[Term(kind="depth", unit=unit, depth=layer + 1)] = column >= 0
        return np.array([int(present[term].sum()) for term in self.terms], dtype=np.int64)

    def require_valid(self, codes: Codes) -> None:
        """Check that every code is one the space has.

        Raises:
            SpaceError: naming the block and the slot.
        """
        if codes.ndim != 2 or codes.shape[1] != len(self.decisions):
            raise SpaceError(
                f"encoded networks have the shape {codes.shape}; expected "
                f"(n, {len(self.decisions)}) as {self.space.name} encodes them"
            )
        for column, decision in zip(codes.T, self.decisions, strict=True):
            unknown = column[(column < -1) | (column >= len(decision.names))]
            wrong = unknown if unknown.size else column[~decision.valid[column + 1]]
            if wrong.size:
                bad = int(wrong[0])
                what = f"code {bad}" if unknown.size else decision.describe(bad + 1)
                alive = np.array(decision.names)[decision.valid[1:]].tolist()
                raise SpaceError(f"{what} is not in this {self.space.name} space; it has {alive}")

    def require_identifiable(self, codes: Codes) -> None:
        """Check that the networks determine every coefficient, with something left for noise.

        Raises:
            DataError: too few networks, a block never seen, or decisions that always go together.
        """
        n, p = codes.shape[0], self.n_coefficients
        ask = f"profile at least {max(100, 3 * p)} (--networks)"
        if n <= p:
            raise DataError(
                f"{n} networks cannot price the {p} coefficients of {self.space.name}: "
                f"more than {p} are needed; {ask}"
            )
        unseen = self.unseen(codes)
        if unseen:
            more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
            raise DataError(
                f"{unseen[0]}{more}: in none of the {n} networks, so its effect is unknown; {ask}"
            )
        rank = column_rank(self.rows(codes))
        if rank < p:
            raise DataError(
                f"the {n} networks tell only {rank} of {p} coefficients of {self.space.name} "
                f"apart, because some decisions always go together in them; {ask}"
            )

    def unseen(self, codes: Codes) -> list[str]:
        """Return in words what the space allows but no network has."""
        found = []
        for decision, seen in zip(self.decisions, self.levels_seen(codes), strict=True):
            rows = np.flatnonzero(decision.valid & (seen == 0))
            found += [decision.describe(int(row)) for row in rows]
        return found

    def _expand(self) -> tuple[tuple[Term, ...], Floats]:
        blocks: dict[Term, Floats] = {}
        depths: dict[Term, Floats] = {}
        networks: dict[Term, Floats] = {}
        factors: dict[Term, Floats] = {}
        for decision in self.decisions:
            skip = int(decision.has_depth)
            if decision.slot is not None and decision.has_depth:
                unit, layer = decision.slot
                row = np.zeros(self.n_coefficients)
                row[decision.columns.start] = 1.0
                depths[Term(kind="depth", unit=unit, depth=layer + 1)] = row
            for code in np.flatnonzero(decision.valid[1:]).tolist():
                row = np.zeros(self.n_coefficients)
                row[decision.columns.start + skip : decision.columns.stop] = decision.coding[
                    code + 1, skip:
                ]
                if decision.slot is None:
                    factors[decision.term(code)] = row
                    continue
                unit, layer = decision.slot
                blocks[decision.term(code)] = row
                everywhere = Term(kind="network", block=decision.names[code])
                reach = depth_probability(self.space, unit, layer + 1)
                networks[everywhere] = networks.get(everywhere, 0.0) + reach * row
        merged = {**blocks, **depths, **networks, **factors}
        return tuple(merged), np.array(list(merged.values()))


def _slot_decision(space: DesignSpace, slot: Slot, first: int) -> Decision:
    """Code a slot: where the layer is optional, its depth column comes before its blocks."""
    names = space.base_choices(slot)
    alive = space.choices(slot)
    has_depth = slot.layer >= space.min_depth[slot.unit]
    reach = depth_probability(space, slot.unit, slot.layer + 1)
    skip = int(has_depth)
    coding = np.zeros((1 + len(names), skip + len(alive) - 1))
    if has_depth:
        coding[0, 0] = -reach
        coding[1:, 0] = 1.0 - reach
    effect = _effect_coding(len(alive))
    for position, name in enumerate(alive):
        coding[1 + names.index(name), skip:] = effect[position]
    valid = np.array([has_depth, *(name in alive for name in names)])
    return Decision(
        slot=slot,
        factor=None,
        names=names,
        columns=slice(first, first + coding.shape[1]),
        coding=coding,
        valid=valid,
        has_depth=has_depth,
    )


def _factor_decision(factor: Factor, first: int) -> Decision:
    n = len(factor.levels)
    return Decision(
        slot=None,
        factor=factor,
        names=tuple(f"{factor.name}={level}" for level in factor.levels),
        columns=slice(first, first + n - 1),
        coding=np.vstack([np.zeros((1, n - 1)), _effect_coding(n)]),
        valid=np.array([False] + [True] * n),
        has_depth=False,
    )


def _effect_coding(n: int) -> Floats:
    """Return ``float64[n, n - 1]``: unit vectors, and -1 everywhere for the last level."""
    return np.vstack([np.eye(n - 1), -np.ones((1, n - 1))])
