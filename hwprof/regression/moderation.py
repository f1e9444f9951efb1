"""Standard deviations of few values each, steadied by those of their like.

Three sessions know a standard deviation badly, a list of workloads knows well what standard
deviations are usual on the machine. Taking the usual one for each would hide the noisy workload;
the compromise is the posterior of an inverse-gamma prior that is fitted to the list: many like
values pull strongly, unlike ones hardly.

Source: Smyth (2004), Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments, Statistical Applications in Genetics and Molecular Biology
3(1), §3 and §6.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FEWEST = 3
"""Fewer standard deviations say nothing of how they scatter."""
LEAST_SD = 1e-6
"""Below it a standard deviation is the clock's resolution, whose logarithm means nothing."""


def moderated(sds: Sequence[float], dfs: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return steadied standard deviations and their degrees of freedom.

    Args:
        sds: standard deviations, each of ``dfs[i] + 1`` values.
        dfs: degrees of freedom, at least 1.

    Returns:
        The same, unchanged where there are too few to learn from. Degrees of freedom are infinite
        where the given ones scatter no more than one common value would let them.
    """
    if len(sds) < FEWEST:
        return list(sds), [float(df) for df in dfs]
    prior_sd, prior_df = _prior(sds, dfs)
    if math.isinf(prior_df):
        return [prior_sd] * len(sds), [math.inf] * len(sds)
    total = [prior_df + df for df in dfs]
    steadied = [
        math.sqrt((prior_df * prior_sd**2 + df * sd**2) / both)
        for sd, df, both in zip(sds, dfs, total, strict=True)
    ]
    return steadied, total


def _prior(sds: Sequence[float], dfs: Sequence[int]) -> tuple[float, float]:
    """Return the prior's scale and degrees of freedom, by the moments of ln(sd²) (eq. in §6.2)."""
    from scipy.special import digamma, polygamma

    half = 0.5 * np.asarray(dfs, dtype=np.float64)
    logs = 2.0 * np.log(np.maximum(sds, LEAST_SD)) - digamma(half) + np.log(half)
    n = logs.size
    middle = float(logs.mean())
    beyond = float(((logs - middle) ** 2).sum() / (n - 1) - polygamma(1, half).mean())
    if beyond <= 0.0:
        return math.exp(0.5 * middle), math.inf
    half_prior = trigamma_inverse(beyond)
    scale = middle + float(digamma(half_prior)) - math.log(half_prior)
    return math.exp(0.5 * scale), 2.0 * half_prior


def trigamma_inverse(value: float) -> float:
    """Return the y of trigamma(y) = ``value`` > 0, by Newton's method on 1 / trigamma."""
    from scipy.special import polygamma

    if value > 1e7:  # trigamma(y) → 1 / y² for y → 0
        return 1.0 / math.sqrt(value)
    if value < 1e-6:  # and 1 / y for large y
        return 1.0 / value
    y = 0.5 + 1.0 / value
    while True:
        here = float(polygamma(1, y))
        step = here * (1.0 - here / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            return y
