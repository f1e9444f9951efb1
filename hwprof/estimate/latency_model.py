"""Latency of a network as a constant plus what stands in every slot, learnt from whole networks.

The model is :mod:`hwprof.estimate.design_matrix`'s. Effects are shrunk towards a guess of their
pattern (:mod:`hwprof.estimate.prior`), as far as generalised cross-validation says. Without a guess
it is ordinary least squares where networks are plenty, and a ridge penalty on all effects where they
are not, or where some block was never seen (:mod:`hwprof.estimate.latency_fit`). What was never seen
is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hwprof.errors import IncompatibleRunError, SpaceError
from hwprof.estimate.crossval import HeldOut, holdout_figures
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.expectation import Draws
from hwprof.estimate.interactions import PAIRS, UNUSED, Interactions, InteractionTest
from hwprof.estimate.latency_fit import additive, encoded, inverse_errors, with_interactions
from hwprof.estimate.least_squares import square_root, t_quantile
from hwprof.estimate.level_tables import LevelTables
from hwprof.estimate.pair_terms import PairTable
from hwprof.estimate.session_levels import levels_of
from hwprof.interval import NORMAL_975
from hwprof.measure.records import Fingerprint
from hwprof.results import Holdout, Sample
from hwprof.space import Architecture, DesignSpace, Slot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

CHUNK_ROWS = 8192
"""Networks predicted at a time, so that what is needed for them stays in the cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditiveLatencyModel:
    """A fitted model of one device.

    Attributes:
        coefficients: ``float64[p + k]`` free coefficients, seconds; the first is the mean over
            the space's random networks (as if all their blocks ran, where the device leaves some
            out), the last k are those of the interaction terms.
        inverse: ``float64[p + k, p + k]``, (XᵀX + penalty)⁻¹.
        residual_sd_s: residual standard deviation.
        degrees: residual degrees of freedom.
        seen: for every decision, in how many fitted networks each row of its coding stood.
        holdout: ten-fold cross-validation, by the folds that chose the interaction terms too;
            None where too few networks can be predicted from the others.
        heldout: the networks behind ``holdout``; empty in a model read from a file.
        tested: the families of interactions that were tried, and which one pays.
        drops_unused: whether the device leaves out blocks whose output nothing uses
            (:meth:`DesignSpace.used_codes`); effects are then those of blocks that run.
        common_sd: standard deviation of what all fitted networks are off by alike, as a share of
            the latency; they were timed within minutes of each other, so that it did not average
            out, and no residual shows it.
    """

    space: DesignSpace
    coefficients: Floats = field(repr=False)
    inverse: Floats = field(repr=False)
    residual_sd_s: float
    degrees: float
    penalty: float
    n_networks: int
    seen: tuple[NDArray[np.int64], ...] = field(repr=False)
    fingerprint: Fingerprint | None
    holdout: Holdout | None
    heldout: tuple[HeldOut, ...] = field(default=(), repr=False)
    tested: tuple[InteractionTest, ...] = field(default=(), repr=False)
    drops_unused: bool = False
    common_sd: float = 0.0

    @classmethod
    def fit(
        cls,
        space: DesignSpace,
        samples: Sequence[Sample],
        fingerprint: Fingerprint | None = None,
        *,
        interactions: bool = True,
        guess: Floats | None = None,
        shares: Floats | None = None,
        common_sd: float = 0.0,
    ) -> Self:
        """Fit the model to measured networks; those without a latency are left aside.

        Args:
            space: the space the networks are of.
            samples: measured networks.
            fingerprint: the device and runtime they were measured on.
            interactions: whether terms beyond the sum of effects are tried.
            guess: what effects look like beforehand (:func:`hwprof.estimate.prior.directions`).
            shares: ``float64[n]``, the standard error of every latency as a share of it. Networks
                that are known better count more.
            common_sd: :attr:`common_sd`.

        Raises:
            DataError: fewer than ten networks have a latency.
            SpaceError: a network is not of the space.
        """
        design = DesignMatrix(space)
        codes, y = encoded(design, samples)
        sessions = [s.session for s in samples if s.latency_s is not None]
        levels = levels_of(design, codes, y, sessions, guess)
        y = y if levels is None else y / levels.factors
        weights = None if shares is None else inverse_errors(shares)
        chosen = additive(design, codes, y, guess, weights)
        if interactions:
            chosen = with_interactions(chosen, y)
        fit = chosen.fit(y)
        # Factors of sessions were fitted too.
        n_factors = 0 if levels is None else levels.n_sessions - 1
        degrees = max(1.0, fit.degrees - n_factors)
        return cls(
            space=space,
            coefficients=fit.coefficients,
            inverse=fit.inverse,
            residual_sd_s=fit.residual_sd * float(np.sqrt(1.0 + n_factors / degrees)),
            degrees=degrees,
            penalty=fit.penalty,
            n_networks=len(y),
            seen=tuple(design.levels_seen(chosen.codes)),
            fingerprint=fingerprint,
            holdout=holdout_figures(chosen.heldout, 0.0 if levels is None else levels.sd),
            heldout=chosen.heldout,
            tested=chosen.tested,
            drops_unused=chosen.drops_unused,
            common_sd=common_sd,
        )

    @property
    def interaction(self) -> str | None:
        """The family of interaction terms in the model; None where it is additive."""
        return next((t.family for t in self.tested if t.taken and t.family != UNUSED), None)

    @cached_property
    def design(self) -> DesignMatrix:
        """The design matrix of the space."""
        return DesignMatrix(self.space)

    def predict_s(self, arch: Architecture) -> tuple[float, float]:
        """Return latency and half the width of its 95 % prediction interval, both seconds.

        Raises:
            SpaceError: the network is of another space, or holds a block never measured.
        """
        latency_s, half_width_s = self.predict_many([arch])
        return float(latency_s[0]), float(half_width_s[0])

    def predict_many(self, archs: Sequence[Architecture]) -> tuple[Floats, Floats]:
        """Return ``float64[n]`` latencies and half widths, as :meth:`predict_s`."""
        return self.predict_encoded(self.design.encode(archs))

    def predict_encoded(self, codes: Codes) -> tuple[Floats, Floats]:
        """Predict from ``int64[n, n_decisions]`` codes (:meth:`DesignSpace.encode`).

        The half width is t · s · √(1 + xᵀ (XᵀX + penalty)⁻¹ x), residual variance and leverage,
        and in quadrature what all fitted networks may be off by alike.

        Raises:
            SpaceError: a network holds a block that the space lacks or that was never measured.
        """
        self.design.require_valid(codes)
        if self.drops_unused:
            codes = self.space.used_codes(codes)
        self._require_seen(codes)
        latency = np.empty(len(codes))
        half = np.empty(len(codes))
        scale = t_quantile(0.975, self.degrees) * self.residual_sd_s
        for start in range(0, len(codes), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            latency[part], leverage = self._look_up(codes[part])
            common = NORMAL_975 * self.common_sd * latency[part]
            half[part] = np.hypot(scale * np.sqrt(1.0 + leverage), common)
        return latency, half

    def _look_up(self, codes: Codes) -> tuple[Floats, Floats]:
        """Return latency and leverage of networks: from tables, unless decisions interact."""
        if self.interaction is None:
            return self._tables.look_up(codes)
        terms = self._interactions.columns(self.interaction, codes)
        mapped = np.hstack([self.design.rows(codes), terms]) @ self._maps
        return mapped[:, 0], np.einsum("ij,ij->i", mapped[:, 1:], mapped[:, 1:])

    @cached_property
    def _maps(self) -> Floats:
        return np.column_stack([self.coefficients, square_root(self.inverse)])

    @cached_property
    def _tables(self) -> LevelTables:
        return LevelTables.of(self.design, self.coefficients, self.inverse)

    @cached_property
    def _interactions(self) -> Interactions:
        return Interactions(self.design)

    @cached_property
    def constant_s(self) -> float:
        """What remains of every network once :meth:`table` and the factors are taken away."""
        absent = sum(values[0] for values in self._levels)
        return float(self.coefficients[0] + absent)

    def table(self) -> dict[tuple[Slot, str], float]:
        """Return seconds of every live block at every slot.

        ``constant_s`` plus the entries of a network's blocks (plus :meth:`factor_table`) is its
        prediction, but for interaction terms. Where a layer is optional the entry is the whole
        layer's cost; where it is always there only differences within the slot mean something,
        and they sum to zero. Blocks never measured have no entry.
        """
        entries: dict[tuple[Slot, str], float] = {}
        for decision, values, seen in zip(
            self.design.decisions, self._levels, self.seen, strict=True
        ):
            if decision.slot is None:
                continue
            for code, name in enumerate(decision.names):
                if decision.valid[code + 1] and seen[code + 1]:
                    entries[decision.slot, name] = float(values[code + 1] - values[0])
        return entries

    def factor_table(self) -> dict[tuple[str, int], float]:
        """Return seconds of every level of every factor, against the factor's mean.

        Levels never measured have no entry.
        """
        return {
            (decision.factor.name, level): float(values[code + 1])
            for decision, values, seen in zip(
                self.design.decisions, self._levels, self.seen, strict=True
            )
            if decision.factor is not None
            for code, level in enumerate(decision.factor.levels)
            if seen[code + 1]
        }

    def expected_s(
        self,
        probabilities: Mapping[Slot, Any],
        *,
        depths: Mapping[int, Any] | None = None,
        factors: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the expected latency of independently drawn decisions, seconds.

        Exact for the sum of effects and for block x block terms. Other interaction terms
        (:attr:`interaction`), whose mean over the space's random networks is zero, are left out:
        :meth:`predict_s` has them. Blocks that nothing uses count as if they ran.

        Plain sums and products only (:mod:`hwprof.estimate.expectation`), so numpy arrays, lists
        and torch tensors serve alike and gradients flow through.

        Args:
            probabilities: for every slot one probability per live candidate, in the space's
                order; a slot with one candidate may be left out.
            depths: for a unit one probability per depth; uniform where left out.
            factors: for a factor one probability per level; uniform where left out.

        Raises:
            SpaceError: a slot is missing, the lengths do not match, or a block or level that was
                never measured has a probability above zero.
        """
        draws = Draws(
            space=self.space, blocks=probabilities, depths=depths or {}, factors=factors or {}
        )
        total: Any = self.constant_s
        table = self.table()
        for slot in self.space.slots:
            reach, shares = draws.reach(slot), draws.of_blocks(slot)
            for block, share in zip(self.space.choices(slot), shares, strict=True):
                if (slot, block) in table:
                    total = total + reach * share * table[slot, block]
                elif float(share) > 0.0:
                    raise SpaceError(self._never_measured(f"{block} at {slot}"))
        costs = self.factor_table()
        for factor in self.space.factors:
            shares = draws.of_factor(factor)
            for level, share in zip(factor.levels, shares, strict=True):
                if (factor.name, level) in costs:
                    total = total + share * costs[factor.name, level]
                elif float(share) > 0.0:
                    raise SpaceError(self._never_measured(f"{factor.name}={level}"))
        if self.interaction == PAIRS:
            total = total - self._pair_mean_s
            for pair in self.pair_tables():
                total = total + draws.pair(pair, *self._slots_of(pair))
        return total

    def pair_tables(self) -> tuple[PairTable, ...]:
        """Return what pairs of blocks add; empty unless block x block terms pay."""
        if self.interaction != PAIRS:
            return ()
        return self._interactions.pairs.tables(self.coefficients[self.design.n_coefficients :])

    def require_fingerprint(self, other: Fingerprint) -> None:
        """Refuse to speak for another device, runtime or set of options.

        Raises:
            IncompatibleRunError: a stable fact differs.
        """
        if self.fingerprint is not None and self.fingerprint.digest == other.digest:
            return
        ways = (
            "profile there, rescale the model from a few networks (hwprof adapt), or allow "
            "another device (--allow-other-device)"
        )
        if self.fingerprint is None:
            raise IncompatibleRunError(
                f"the latency model does not say where it was measured; {ways}"
            )
        found = self.fingerprint.differences(other)
        what = "; ".join(f"{name} {mine!r}, not {yours!r}" for name, (mine, yours) in found.items())
        raise IncompatibleRunError(f"the latency model was fitted for {what}: {ways}")

    @cached_property
    def _levels(self) -> list[Floats]:
        return self.design.level_values(self.coefficients)

    @cached_property
    def _pair_mean_s(self) -> float:
        terms = self.coefficients[self.design.n_coefficients :]
        return float(self._interactions.means(PAIRS) @ terms)

    def _slots_of(self, pair: PairTable) -> tuple[Slot, Slot]:
        slots = [self.design.decisions[i].slot for i in (pair.first, pair.second)]
        assert slots[0] is not None
        assert slots[1] is not None
        return slots[0], slots[1]

    def _require_seen(self, codes: Codes) -> None:
        for column, decision, seen in zip(codes.T, self.design.decisions, self.seen, strict=True):
            unknown = column[seen[column + 1] == 0]
            if unknown.size:
                raise SpaceError(self._never_measured(decision.describe(int(unknown[0]) + 1)))

    def _never_measured(self, what: str) -> str:
        return (
            f"{what} stood in none of the {self.n_networks} networks that the latency model "
            "was fitted to; profile more networks (--networks)"
        )
