"""Block friendliness: what every block and depth does to a whole network's latency and accuracy.

One shared random sample of networks prices every (slot, block, depth) at once: ordinary least
squares on :mod:`hwprof.estimate.design_matrix` per metric, HC3 covariance, 95 % intervals by t. The fit
is unweighted on purpose: what is left over is mostly lack of additivity, which the standard
errors of single measurements do not know, so weighting by them would favour the wrong networks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.least_squares import (
    Fit,
    hc3_covariance,
    ordinary_fit,
    r_squared,
    t_quantile,
    two_sided_p,
)
from hwprof.estimate.responses import Friendliness, LackOfFit, Response
from hwprof.estimate.session_levels import SessionLevels, session_levels
from hwprof.interval import Interval
from hwprof.results import Sample
from hwprof.space import DesignSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def fit_friendliness(space: DesignSpace, samples: Sequence[Sample]) -> Friendliness:
    """Estimate all effects from whole networks.

    Args:
        space: the space the networks were drawn from.
        samples: networks; each metric uses those that have it.

    Raises:
        DataError: the networks with a latency do not determine the effects.
        SpaceError: a network is not of the space.
    """
    design = DesignMatrix(space)
    timed = [s for s in samples if s.latency_s is not None]
    codes = design.encode([s.arch for s in timed])
    y = np.array([s.latency_s for s in timed], dtype=np.float64)
    levels = session_levels(design.rows(codes), y, [s.session for s in timed])
    latency = _fit_response(design, codes, y, levels)
    accuracy, notes = _fit_accuracy(design, [s for s in samples if s.accuracy_pct is not None])
    counts = design.counts(codes)
    notes += (*_lone_notes(design, counts), *([str(levels)] if levels else []))
    return Friendliness.of(design, latency, accuracy, counts, notes)


def _fit_accuracy(
    design: DesignMatrix, scored: Sequence[Sample]
) -> tuple[Response | None, tuple[str, ...]]:
    """Fit the accuracies, or say why the ones there are cannot be used."""
    if not scored:
        return None, ()
    values = np.array([s.accuracy_pct for s in scored], dtype=np.float64)
    codes = design.encode([s.arch for s in scored])
    try:
        return _fit_response(design, codes, values), ()
    except DataError as error:
        return None, (f"accuracy left out: {error}",)


def _lone_notes(design: DesignMatrix, counts: NDArray[np.int64]) -> tuple[str, ...]:
    """Name the effects that rest on one network, whose interval borrows the others' noise."""
    lone = [str(term) for term, count in zip(design.terms, counts, strict=True) if count == 1]
    if not lone:
        return ()
    more = f" and {len(lone) - 1} more" if len(lone) > 1 else ""
    note = (
        f"{lone[0]}{more} stood in a single network: the interval takes its noise to be that of "
        "the other networks; profile more (--networks)"
    )
    return (note,)


def _fit_response(
    design: DesignMatrix,
    codes: NDArray[np.int64],
    y: Floats,
    levels: SessionLevels | None = None,
) -> Response:
    """Fit one metric and map coefficients and covariance to all terms.

    Factors of sessions are taken out, and estimated once more beside the effects: what is not known
    of them widens the intervals.
    """
    if not np.isfinite(y).all():
        raise DataError(f"{int((~np.isfinite(y)).sum())} values are not finite; remove them first")
    design.require_identifiable(codes)
    X = design.rows(codes)
    p_effects = X.shape[1]
    if levels is not None:
        X, y = np.hstack([X, levels.columns]), y / levels.factors
    fit = ordinary_fit(X, y)
    covariance = hc3_covariance(X, fit)[:p_effects, :p_effects]
    inverse = fit.inverse[:p_effects, :p_effects]
    half = t_quantile(0.975, fit.degrees) * float(np.sqrt(covariance[0, 0]))
    mean = float(fit.coefficients[0])
    if levels is not None:  # of effects sessions are taken out; the mean is that of a few of them
        half = math.hypot(half, mean * levels.half_width)
    return Response(
        values=design.expansion @ fit.coefficients[:p_effects],
        covariance=design.expansion @ covariance @ design.expansion.T,
        even_covariance=fit.residual_sd**2 * (design.expansion @ inverse @ design.expansion.T),
        degrees=fit.degrees,
        n_networks=len(y),
        mean=Interval(mean, mean - half, mean + half),
        r2=r_squared(y, fit.residuals),
        residual_sd=fit.residual_sd,
        lack_of_fit=_lack_of_fit(X, y, fit),
    )


def _lack_of_fit(X: Floats, y: Floats, fit: Fit) -> LackOfFit | None:
    """Test the squared prediction as one more regressor (Tukey 1949, RESET).

    By Frisch and Waugh the added coefficient comes from residuals on residuals.
    """
    predicted = y - fit.residuals
    squared = (predicted - predicted.mean()) ** 2
    unexplained = squared - X @ (fit.inverse @ (X.T @ squared))
    strength = float(unexplained @ unexplained)
    degrees = fit.degrees - 1.0
    if degrees < 1.0 or strength <= 1e-20 * float(squared @ squared):
        return None
    # What is left over is rounding, in which a squared term may find anything.
    if float(np.linalg.norm(fit.residuals)) <= 1e-10 * float(np.linalg.norm(y - y.mean())):
        return LackOfFit(curvature_p=1.0, r2_curved=1.0)
    slope = float(unexplained @ fit.residuals) / strength
    left = fit.residuals - slope * unexplained
    variance = float(left @ left) / degrees / strength
    p_value = two_sided_p(slope / np.sqrt(variance), degrees) if variance > 0.0 else 1.0
    return LackOfFit(curvature_p=p_value, r2_curved=r_squared(y, left), curvature=slope)
