"""Least squares with intervals that hold when the noise is uneven, and ridge where data is short."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FULL_LEVERAGE = 1.0 - 1e-8
"""At or above this leverage a network fixes a coefficient alone and has no residual to judge by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A linear fit of ``y[n]`` on ``X[n, p]``.

    Attributes:
        coefficients: ``float64[p]``.
        inverse: ``float64[p, p]``, (XᵀX + penalty)⁻¹, which gives the leverage of a new row.
        residuals: ``float64[n]``, in the unit of y.
        leverage: ``float64[n]``, diagonal of the hat matrix.
        degrees: residual degrees of freedom, n minus the trace of the hat matrix.
        penalty: weight of the ridge term; 0 for ordinary least squares.
    """

    coefficients: Floats
    inverse: Floats
    residuals: Floats
    leverage: Floats
    degrees: float
    penalty: float = 0.0

    @property
    def residual_sd(self) -> float:
        """Residual standard deviation, in the unit of y."""
        return float(np.sqrt(self.residuals @ self.residuals / self.degrees))


def column_rank(X: Floats) -> int:
    """Return the rank of ``X[n, p]``, from the p eigenvalues of XᵀX (ten times cheaper than SVD).

    Squaring costs half the digits; effect-coded columns, whose entries are -1, 0, 1 or a
    probability, are so far from or so exactly at dependence that it does not matter.
    """
    eigenvalues = np.linalg.eigvalsh(X.T @ X)
    return int((eigenvalues > 1e-10 * eigenvalues[-1]).sum())


def ordinary_fit(X: Floats, y: Floats) -> Fit:
    """Fit by ordinary least squares; ``X`` must have full column rank and n > p."""
    n, p = X.shape
    q, r = np.linalg.qr(X)
    r_inverse = np.linalg.inv(r)
    coefficients = r_inverse @ (q.T @ y)
    return Fit(
        coefficients=coefficients,
        inverse=r_inverse @ r_inverse.T,
        residuals=y - X @ coefficients,
        leverage=np.einsum("ij,ij->i", q, q),
        degrees=float(n - p),
    )


def hc3_covariance(X: Floats, fit: Fit) -> Floats:
    """Return the ``float64[p, p]`` covariance of the coefficients that needs no equal variances.

    HC3 (MacKinnon and White 1985): (XᵀX)⁻¹ Xᵀ diag(e²/(1−h)²) X (XᵀX)⁻¹. A row of full leverage
    has no residual of its own and takes the pooled variance of the others.
    """
    own = fit.leverage < FULL_LEVERAGE
    error = np.full(len(own), fit.residual_sd)
    error[own] = fit.residuals[own] / (1.0 - fit.leverage[own])
    half = (X * error[:, None]) @ fit.inverse
    covariance: Floats = half.T @ half
    return covariance


def guided_ridge_fit(X: Floats, y: Floats, root: Floats, directions: Floats) -> Fit:
    """Fit with a ridge penalty on what sets coefficients apart from a guess of their pattern.

    Minimises ‖y − Xc‖² + k‖R (c₁… − B s)‖² over c and s, the first coefficient (the mean) free:
    the general form of ridge regression towards a target (Swindel 1976), whose scale is fitted
    too. ``root`` is R, ``float64[p - 1, p - 1]``, upper triangular; ``directions`` is B,
    ``float64[p, m]`` with a first row of zeros, where m is 0 without a guess. The first column of X
    is the mean's: ones, or the weights that rows and values bear. k is chosen as in
    :func:`partial_ridge_fit`, but finite.
    """
    p, m = directions.shape
    # c = T θ, where θ is the mean, s, and what R weighs: an ordinary partial ridge in θ.
    T = np.zeros((p, p + m))
    T[0, 0] = 1.0
    T[:, 1 : 1 + m] = directions
    T[1:, 1 + m :] = np.linalg.inv(root)
    fit = partial_ridge_fit(X @ T, y, 1 + m, may_vanish=False)
    return replace(fit, coefficients=T @ fit.coefficients, inverse=T @ fit.inverse @ T.T)


def partial_ridge_fit(X: Floats, y: Floats, n_free: int, *, may_vanish: bool = True) -> Fit:
    """Fit with a ridge penalty on all but the first ``n_free`` coefficients.

    Minimises ‖y − Xc‖² + k‖c from n_free on‖². k is the one of 61 logarithmic steps over twelve
    decades around the data's own scale, or (``may_vanish``) infinity, with the least score of
    generalised cross-validation, n·RSS/(n − tr H)² (Golub et al. 1979). At infinity those
    coefficients are zero, and so is their variance.
    """
    n, p = X.shape
    free = X[:, :n_free]
    back = np.linalg.pinv(free)
    onto = back @ X[:, n_free:]
    u, s, vt = np.linalg.svd(X[:, n_free:] - free @ onto, full_matrices=False)
    rest = y - free @ (back @ y)
    projected = u.T @ rest
    n_kept = float(np.einsum("ij,ji->", free, back))
    grid = float(s[0] ** 2) * np.logspace(-9, 3, 61)
    if may_vanish:
        grid = np.append(grid, np.inf)
    shrink = s**2 / (s**2 + grid[:, None])
    outside = float(rest @ rest - projected @ projected)
    rss = ((1.0 - shrink) ** 2 * projected**2).sum(axis=1) + max(outside, 0.0)
    left = n - n_kept - shrink.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(left > 0.5, n * rss / left**2, np.inf)
    best = int(np.argmin(score))
    penalty = float(grid[best])
    slopes = vt.T @ (s / (s**2 + penalty) * projected)
    coefficients = np.concatenate([back @ y - onto @ slopes, slopes])
    # What the free columns leave of a new row is judged by the shrunk part alone.
    spread = (vt.T / (s**2 + penalty)) @ vt
    if np.isfinite(penalty):
        spread += (np.eye(p - n_free) - vt.T @ vt) / penalty
    corner = onto @ spread
    inverse = np.block([[back @ back.T + corner @ onto.T, -corner], [-corner.T, spread]])
    residuals = y - X @ coefficients
    leverage = np.einsum("ij,ji->i", free, back) + (u**2) @ shrink[best]
    return Fit(
        coefficients=coefficients,
        inverse=inverse,
        residuals=residuals,
        leverage=leverage,
        degrees=float(left[best]),
        penalty=penalty,
    )


def square_root(inverse: Floats) -> Floats:
    """Return R with R·Rᵀ = ``inverse``, ``float64[p, p]``.

    Where a block was never seen nothing is known of its column: the inverse is singular there, and
    rounding decides whether Cholesky's method, the faster one, still goes.
    """
    try:
        return np.asarray(np.linalg.cholesky(inverse))
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(inverse)
        return np.asarray(vectors * np.sqrt(values.clip(0.0)))


def t_quantile(probability: float, degrees: float) -> float:
    """Return Student's t quantile; the normal one for infinite ``degrees``."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))


def two_sided_p(t: float, degrees: float) -> float:
    """Return the two-sided p-value of a t statistic."""
    return 2.0 * upper_p(abs(t), degrees)


def upper_p(t: float, degrees: float) -> float:
    """Return the one-sided p-value against values this large, for t or (infinite) normal."""
    from scipy import special

    return float(special.stdtr(degrees, -t))


def upper_f_p(ratio: float, between: int, within: float) -> float:
    """Return the p-value of an F ratio this large, of ``between`` and ``within`` degrees."""
    from scipy import special

    return float(special.fdtrc(between, within, ratio))


def r_squared(y: Floats, residuals: Floats) -> float:
    """Return the share of the variance that is explained; 0 where there is none to explain."""
    centred = y - y.mean()
    total = float(centred @ centred)
    return 1.0 - float(residuals @ residuals) / total if total > 0.0 else 0.0
