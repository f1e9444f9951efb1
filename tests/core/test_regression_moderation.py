"""Steadied standard deviations: against the closed forms, a published fit's limits, simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import polygamma

from hwprof.regression.moderation import moderated, trigamma_inverse


@pytest.mark.parametrize("y", [1e-4, 0.05, 0.5, 1.0, 7.0, 300.0, 2e6])
def test_trigamma_is_inverted(y: float) -> None:
    assert trigamma_inverse(float(polygamma(1, y))) == pytest.approx(y, rel=1e-5)


def test_few_stay_as_they_are() -> None:
    assert moderated([0.01, 0.03], [2, 4]) == ([0.01, 0.03], [2.0, 4.0])


def test_alike_ones_become_one_that_is_known() -> None:
    # Equal sample variances scatter less than any common variance would let them.
    sds, dfs = moderated([0.01] * 6, [2] * 6)
    assert dfs == [math.inf] * 6
    # ln σ² = ln s² − digamma(1) + ln(1), and digamma(1) is minus Euler's constant.
    assert sds == pytest.approx([0.01 * math.exp(0.5 * np.euler_gamma)] * 6)


def test_the_prior_that_variances_were_drawn_from_is_found() -> None:
    rng = np.random.default_rng(3)
    prior_df, scale, df = 6.0, 0.01, 4
    true_variance = prior_df * scale**2 / rng.chisquare(prior_df, 4000)
    sds = np.sqrt(true_variance * rng.chisquare(df, 4000) / df)
    steadied, dfs = moderated(sds.tolist(), [df] * 4000)
    assert dfs[0] == pytest.approx(prior_df + df, rel=0.1)
    # The weighted mean of both variances, by hand.
    expected = math.sqrt((prior_df * scale**2 + df * sds[0] ** 2) / (prior_df + df))
    assert steadied[0] == pytest.approx(expected, rel=0.05)


def test_a_noisy_one_among_quiet_ones_stays_noisy() -> None:
    quiet = [0.002, 0.003, 0.0025, 0.004, 0.0015, 0.003, 0.002, 0.0035]
    steadied, _ = moderated([*quiet, 0.08], [4] * 9)
    assert steadied[-1] > 0.04
    assert max(steadied[:-1]) < 0.01


def test_none_at_all_is_no_logarithm_of_nothing() -> None:
    steadied, dfs = moderated([0.0, 0.0, 0.0, 0.01], [2] * 4)
    assert all(0.0 < sd < 0.02 for sd in steadied)
    assert all(df >= 2.0 for df in dfs)
