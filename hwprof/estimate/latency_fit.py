"""How a latency model is fitted: by least squares where the data carries it, shrunk where not.

Interaction terms come in only where they predict networks better that the fit has not seen
(:mod:`hwprof.estimate.interactions`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.crossval import HeldOut, cross_validate, require_networks
from hwprof.estimate.interactions import (
    PAIRS,
    UNUSED,
    Interactions,
    InteractionTest,
    choose,
    judge,
)
from hwprof.estimate.least_squares import (
    Fit,
    column_rank,
    guided_ridge_fit,
    ordinary_fit,
    partial_ridge_fit,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.estimate.design_matrix import DesignMatrix
    from hwprof.results import Sample

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

OLS_RATIO = 1.5
"""Networks per coefficient above which nothing is gained by shrinking (p = 171: 257 networks)."""

LEAST_SHARE = 0.01
"""Standard error below which knowing a latency better is no use: a sum of effects errs by as much."""


def encoded(design: DesignMatrix, samples: Iterable[Sample]) -> tuple[Codes, Floats]:
    """Return codes and latencies (s) of the networks that have one.

    Raises:
        DataError: fewer than ten have.
    """
    timed = [s for s in samples if s.latency_s is not None]
    require_networks(len(timed))
    return design.encode([s.arch for s in timed]), np.array(
        [s.latency_s for s in timed], dtype=np.float64
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """A regression of latencies: its rows, and what cross-validation says of it.

    Attributes:
        design: the design matrix.
        codes: ``int64[n, n_decisions]`` of what runs in every network.
        X: ``float64[n, p + k]``; the last k columns are interaction terms.
        shrunk: whether those k columns alone are shrunk, because they are many.
        heldout: what the folds predict.
        tested: the families that were tried.
        drops_unused: whether ``codes`` leave out what nothing uses.
        guess: ``float64[p, m]`` of :func:`hwprof.estimate.prior.directions`; shrinking goes there.
        weights: ``float64[n]``, in inverse proportion to how well each latency is known.
    """

    design: DesignMatrix
    codes: Codes
    X: Floats
    shrunk: bool = False
    heldout: tuple[HeldOut, ...] = ()
    tested: tuple[InteractionTest, ...] = ()
    drops_unused: bool = False
    guess: Floats | None = None
    weights: Floats | None = None

    def fit(self, y: Floats) -> Fit:
        """Fit to ``float64[n]`` latencies; residuals are those of a network of weight 1."""
        w = np.ones(len(y)) if self.weights is None else self.weights
        return self._fit(self.X * w[:, None], y * w)

    def cross_validated(self, y: Floats) -> Chosen:
        """Return this with what ten-fold cross-validation predicts for every network."""
        heldout = cross_validate(self.X, y, self._fit, self._known, self.weights)
        return replace(self, heldout=heldout)

    def _fit(self, X: Floats, y: Floats) -> Fit:
        if self.shrunk:
            return partial_ridge_fit(X, y, self.design.n_coefficients)
        return fit_rows(self.design, X, y, self.guess)

    def _known(self, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say which held-out networks hold only what the others have."""
        can = np.ones(int(test.sum()), dtype=np.bool_)
        seen = self.design.levels_seen(self.codes[train])
        for column, times in zip(self.codes[test].T, seen, strict=True):
            can &= times[column + 1] > 0
        return can


def fit_rows(design: DesignMatrix, X: Floats, y: Floats, guess: Floats | None = None) -> Fit:
    """Fit shrunk towards a guess; without one by least squares where the data carries it."""
    n, p = X.shape
    if guess is None:
        guess = np.zeros((design.n_coefficients, 0))
    if not guess.shape[1] and n > OLS_RATIO * p and column_rank(X) == p:
        return ordinary_fit(X, y)
    own = [t.kind != "network" for t in design.terms]
    effects = design.expansion[own, 1:]
    # A QR of the expansion penalises every block alike, also the one the coding leaves out.
    root = np.linalg.qr(effects)[1]
    extra = p - design.n_coefficients
    if extra:
        root = np.block(
            [[root, np.zeros((len(root), extra))], [np.zeros((extra, len(root))), np.eye(extra)]]
        )
    return guided_ridge_fit(X, y, root, np.pad(guess, ((0, extra), (0, 0))))


def additive(
    design: DesignMatrix,
    codes: Codes,
    y: Floats,
    guess: Floats | None = None,
    weights: Floats | None = None,
) -> Chosen:
    """Return the sum of effects, cross-validated."""
    made = Chosen(design=design, codes=codes, X=design.rows(codes), guess=guess, weights=weights)
    return made.cross_validated(y)


def with_interactions(plain: Chosen, y: Floats) -> Chosen:
    """Return what predicts unseen networks best, and only by more than chance: see `PAYS`.

    First whether blocks that nothing uses run at all, then one family of terms beside the
    effects of those that run. Nothing is tried on too few networks to judge by.
    """
    if len(y) <= OLS_RATIO * plain.design.n_coefficients:
        return plain
    base, tests = _without_unused(plain, y)
    interactions = Interactions(plain.design)
    tried: dict[str, Chosen] = {"": base}
    found = []
    for family in interactions.families:
        terms = interactions.columns(family, base.codes)
        candidate = replace(base, X=np.hstack([base.X, terms]), shrunk=family == PAIRS)
        if not terms.shape[1] or not _can_be_fitted(candidate, y):
            continue
        tried[family] = candidate.cross_validated(y)
        found.append(judge(family, terms.shape[1], base.heldout, tried[family].heldout))
    tested = choose(found)
    taken = next((t.family for t in tested if t.taken), "")
    return replace(tried[taken], tested=(*tests, *tested))


def _without_unused(plain: Chosen, y: Floats) -> tuple[Chosen, tuple[InteractionTest, ...]]:
    """Return the networks as they are written, or without unused blocks, and the test of it."""
    design = plain.design
    used = design.space.used_codes(plain.codes)
    if np.array_equal(used, plain.codes):
        return plain, ()
    pruned = replace(plain, codes=used, X=design.rows(used), drops_unused=True)
    pruned = pruned.cross_validated(y)
    if _judged(pruned) != _judged(plain):
        # Some blocks are unused wherever they stand: what they cost where used is not known.
        return plain, ()
    test = judge(UNUSED, 0, plain.heldout, pruned.heldout)
    return (pruned if test.taken else plain), (test,)


def _judged(chosen: Chosen) -> list[float]:
    """Return the latencies of the networks that the folds predict: these tell them apart."""
    return [h.actual_s for h in chosen.heldout]


def _can_be_fitted(candidate: Chosen, y: Floats) -> bool:
    if candidate.shrunk:
        # Ten folds cost a second in a large space: only where all networks together see a gain.
        return math.isfinite(candidate.fit(y).penalty)
    p = int(candidate.X.shape[1])
    return len(y) > OLS_RATIO * p and column_rank(candidate.X) == p


def inverse_errors(shares: Floats) -> Floats:
    """Return weights in inverse proportion to standard errors; their squares have a mean of 1."""
    weights = 1.0 / np.hypot(shares, LEAST_SHARE)
    return np.asarray(weights / np.sqrt(np.mean(weights**2)))
