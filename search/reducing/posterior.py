"""What the true accuracy effects may be, given noisy estimates of them: a normal hierarchy.

Estimates β̂ ~ N(β, V) with V from the fit. Choosing among noisy estimates flatters the chosen:
the best-looking block of a slot is partly the luckiest, and a loss computed from β̂ is off in
either direction. So β_ulb = m_b + s_ulb, both centred per slot: the block anywhere, and what is
special about it here. s_ulb ~ N(0, τ²), with τ averaged over a grid by marginal likelihood
(Rubin 1981). m_b has a flat prior: it is well measured, being seen in every slot, and shrinking
it would err in the same direction in all of them at once (bigger blocks taken for useless).
Draws of β then carry all that is not known. Depth and factor effects, few and well measured,
keep their estimates and a flat prior too.

V is the covariance of even noise, s² (XᵀX)⁻¹. HC3's, right for the interval of one contrast, is
too noisy as a whole matrix: inverted, it takes the directions that chance made small for well
known ones, and shrinks them too little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.responses import Response

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SCALES = tuple(0.1 * i for i in range(13))
"""Grid of τ, in units of the estimates' own root mean square: from nothing to beyond all.
Even steps, because a flat prior on τ (not on log τ) is the one that lets few groups speak."""
FLAT = 10.0
"""Standard deviation of m_b's prior in the same units: no more than rounding from flat."""


def draw_effects(
    design: DesignMatrix, response: Response, n_draws: int, rng: np.random.Generator
) -> Floats:
    """Return ``float64[n_draws, n_terms]`` possible truths.

    Terms of kind ``network`` are left at their estimates: nothing downstream adds them up.
    """
    covariance = response.even_covariance
    draws = np.repeat(response.values[None, :], n_draws, axis=0)
    others = [i for i, t in enumerate(design.terms) if t.kind in ("depth", "factor")]
    if others:
        root = _root(covariance[np.ix_(others, others)])
        draws[:, others] += rng.standard_normal((n_draws, len(others))) @ root.T
    blocks = [i for i, t in enumerate(design.terms) if t.kind == "block"]
    basis = _contrasts(design, blocks)
    noise = basis.T @ covariance[np.ix_(blocks, blocks)] @ basis
    if basis.shape[1] and np.trace(noise) > 0.0:
        estimate = basis.T @ response.values[blocks]
        main = basis.T @ _same_block(design, blocks)
        draws[:, blocks] = _draw_blocks(estimate, noise, main @ main.T, n_draws, rng) @ basis.T
    return draws


def _draw_blocks(
    estimate: Floats, noise: Floats, main: Floats, n_draws: int, rng: np.random.Generator
) -> Floats:
    """Return ``float64[n_draws, k]`` from the posterior of the contrasts.

    Each draw takes a scale by weight, then a prior draw corrected by what the estimate says
    against it (Matheron's rule). ``main`` is the covariance of unit m_b.
    """
    k = len(estimate)
    unit = float(np.sqrt(np.mean(estimate**2)))
    jitter = 1e-9 * max(float(np.trace(noise)) / k, unit**2) * np.eye(k)
    priors = [unit**2 * (FLAT**2 * main + scale**2 * np.eye(k)) for scale in SCALES]
    evidence = np.array([_log_evidence(estimate, noise + jitter + prior) for prior in priors])
    weights = np.exp(evidence - evidence.max())
    picks = np.sort(rng.choice(len(priors), size=n_draws, p=weights / weights.sum()))
    draws = np.empty((n_draws, k))
    noise_root = _root(noise)
    for pick in np.unique(picks):
        rows = np.flatnonzero(picks == pick)
        prior = priors[pick]
        gain = np.linalg.solve(prior + noise + jitter, prior).T
        truth = rng.standard_normal((len(rows), k)) @ _root(prior).T
        seen = truth + rng.standard_normal((len(rows), k)) @ noise_root.T
        draws[rows] = truth + (estimate - seen) @ gain.T
    return draws


def _log_evidence(estimate: Floats, covariance: Floats) -> float:
    """Return the log density of the estimate, constants apart."""
    root = np.linalg.cholesky(covariance)
    standard = np.linalg.solve(root, estimate)
    return float(-0.5 * standard @ standard - np.log(np.diag(root)).sum())


def _root(covariance: Floats) -> Floats:
    """Return R with R Rᵀ = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = vectors * np.sqrt(values.clip(min=0.0))
    return root


def _contrasts(design: DesignMatrix, blocks: list[int]) -> Floats:
    """Return an orthonormal basis, ``[n_blocks, k]``, of what sums to zero in every slot."""
    slots: dict[object, list[int]] = {}
    for position, i in enumerate(blocks):
        slots.setdefault((design.terms[i].unit, design.terms[i].layer), []).append(position)
    columns = []
    for members in slots.values():
        n = len(members)
        local = np.linalg.qr(np.eye(n) - 1.0 / n)[0][:, : n - 1]
        basis = np.zeros((len(blocks), n - 1))
        basis[members] = local
        columns.append(basis)
    return np.concatenate(columns, axis=1)


def _same_block(design: DesignMatrix, blocks: list[int]) -> Floats:
    """Return ``[n_blocks, n_names]``: 1 where the term is of that block."""
    names = sorted({str(design.terms[i].block) for i in blocks})
    return np.array([[float(design.terms[i].block == name) for name in names] for i in blocks])
