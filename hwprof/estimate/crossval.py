"""How well a linear model predicts networks it has not seen: ten-fold cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwprof.errors import DataError
from hwprof.estimate.least_squares import Fit, t_quantile
from hwprof.results import Holdout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

FOLDS = 10
"""Usual; each fold's model then has 90 % of the networks that the final one has."""
SEED = 0
"""Of the split."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One network, predicted by a model that had not seen it; seconds."""

    actual_s: float
    predicted_s: float
    half_s: float
    """Half the width of the 95 % prediction interval."""


def require_networks(n: int) -> None:
    """Refuse a model of fewer networks than folds.

    Raises:
        DataError: naming how many are needed.
    """
    if n < FOLDS:
        raise DataError(
            f"{n} measured networks make no latency model; at least {FOLDS} are needed, 3 per "
            "coefficient are good: profile more (--networks)"
        )


def cross_validate(
    X: Floats,
    y: Floats,
    fit: Callable[[Floats, Floats], Fit],
    predictable: Callable[[Mask, Mask], Mask],
    weights: Floats | None,
) -> tuple[HeldOut, ...]:
    """Predict every network from the folds it is not in.

    Args:
        X: ``float64[n, p]`` design matrix.
        y: ``float64[n]`` latencies, seconds.
        fit: makes a model of rows and values.
        predictable: of masks ``bool[n]`` (train, test), which of the test networks a model of
            the training ones may predict at all; the others are refused in use, and left out
            here.
        weights: ``float64[n]``, what rows and values are multiplied by before they are fitted.

    Returns:
        The networks that could be predicted, in their order.
    """
    n = len(y)
    w = np.ones(n) if weights is None else weights
    fold = np.random.default_rng(SEED).permutation(n) % FOLDS
    predicted, half = np.full(n, np.nan), np.full(n, np.nan)
    for k in range(FOLDS):
        test = fold == k
        chosen = np.flatnonzero(test)[predictable(~test, test)]
        if chosen.size == 0:
            continue
        model = fit(X[~test] * w[~test, None], y[~test] * w[~test])
        rows = X[chosen]
        predicted[chosen] = rows @ model.coefficients
        leverage = np.einsum("ij,jk,ik->i", rows, model.inverse, rows, optimize=True)
        scale = t_quantile(0.975, model.degrees) * model.residual_sd
        half[chosen] = scale * np.sqrt(1.0 + leverage)
    return tuple(
        HeldOut(actual_s=float(y[i]), predicted_s=float(predicted[i]), half_s=float(half[i]))
        for i in np.flatnonzero(np.isfinite(predicted))
    )


def holdout_figures(heldout: Sequence[HeldOut], sessions_apart: float = 0.0) -> Holdout | None:
    """Sum up predictions of held-out networks; None where fewer than two were predicted."""
    if len(heldout) < 2:
        return None
    actual, predicted, half = np.array([(h.actual_s, h.predicted_s, h.half_s) for h in heldout]).T
    error = np.abs(predicted - actual)
    relative = error / actual
    return Holdout(
        n=len(heldout),
        median_rel_error=float(np.median(relative)),
        within_5pct=float(np.mean(relative <= 0.05)),
        within_10pct=float(np.mean(relative <= 0.10)),
        spearman=spearman(predicted, actual),
        # A perfect fit has intervals of rounding's width: do not count rounding as a miss.
        coverage95=float(np.mean(error <= half + 1e-9 * np.abs(actual))),
        sessions_apart=sessions_apart,
    )


def spearman(a: Floats, b: Floats) -> float:
    """Return Spearman's rank correlation, ties averaged; 0 where one side is constant."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    ranks_a, ranks_b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    norm = float(np.sqrt((ranks_a @ ranks_a) * (ranks_b @ ranks_b)))
    return float(ranks_a @ ranks_b) / norm if norm > 0.0 else 0.0


def _ranks(values: Floats) -> Floats:
    """Return average ranks, from 1."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2.0)[inverse]
    return ranks
