"""How a latency model is fitted: by least squares where the data carries it, shrunk where not.

Interaction terms come in only where they predict networks better that the fit has not seen
(:mod:`hwprof.estimate.interactions`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.crossval import HeldOut, cross_validate, require_networks
from hwprof.estimate.interactions import Interactions, InteractionTest, choose, judge
from hwprof.estimate.least_squares import Fit, column_rank, ordinary_fit, ridge_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwprof.estimate.design_matrix import DesignMatrix
    from hwprof.results import Sample

    Floats = NDArray[np.float64]
    Codes = NDArray[np.int64]

OLS_RATIO = 1.5
"""Networks per coefficient above which nothing is gained by shrinking (p = 171: 257 networks)."""


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


def fit_rows(design: DesignMatrix, X: Floats, y: Floats) -> Fit:
    """Fit by least squares where the data carries it, shrunk where not."""
    n, p = X.shape
    if n > OLS_RATIO * p and column_rank(X) == p:
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
    return ridge_fit(X, y, root)


def with_interactions(
    design: DesignMatrix,
    codes: Codes,
    X: Floats,
    y: Floats,
    plain: tuple[HeldOut, ...],
    seed: int,
) -> tuple[Floats, tuple[HeldOut, ...], tuple[InteractionTest, ...]]:
    """Return rows, held-out networks and tests with the family that pays, where one does."""
    interactions = Interactions(design)
    tests, rows, heldout = [], {"": X}, {"": plain}
    for family in interactions.families:
        extended = np.hstack([X, interactions.columns(family, codes)])
        n_terms = extended.shape[1] - X.shape[1]
        if len(y) <= OLS_RATIO * extended.shape[1] or column_rank(extended) < extended.shape[1]:
            continue
        rows[family] = extended
        heldout[family] = held_out(design, codes, extended, y, seed)
        tests.append(judge(family, n_terms, plain, heldout[family]))
    tested = choose(tests)
    taken = next((t.family for t in tested if t.taken), "")
    return rows[taken], heldout[taken], tested


def held_out(
    design: DesignMatrix, codes: Codes, X: Floats, y: Floats, seed: int
) -> tuple[HeldOut, ...]:
    """Return what ten-fold cross-validation predicts for every network."""

    def known(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say which held-out networks hold only what the others have."""
        can = np.ones(int(test.sum()), dtype=np.bool_)
        for column, seen in zip(codes[test].T, design.levels_seen(codes[train]), strict=True):
            can &= seen[column + 1] > 0
        return can

    return cross_validate(
        X, y, lambda rows, values: fit_rows(design, rows, values), known, seed=seed
    )
