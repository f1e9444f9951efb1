"""Least squares against its definitions."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.estimate.least_squares import column_rank, hc3_covariance, ordinary_fit


def test_hc3_against_the_definition() -> None:
    """MacKinnon and White 1985, with every matrix written out."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(12), rng.standard_normal((12, 2))])
    y = rng.standard_normal(12)
    bread = np.linalg.inv(X.T @ X)
    hat = X @ bread @ X.T
    e = y - hat @ y
    meat = sum(e[i] ** 2 / (1.0 - hat[i, i]) ** 2 * np.outer(X[i], X[i]) for i in range(12))
    fit = ordinary_fit(X, y)
    np.testing.assert_allclose(hc3_covariance(X, fit), bread @ meat @ bread, rtol=1e-10)
    assert fit.residual_sd == pytest.approx(np.sqrt(e @ e / 9))


def test_rank_is_counted_at_any_scale() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4))
    twice = np.column_stack([X, X[:, 0] + X[:, 1]])
    for scale in (1e-7, 1.0, 1e7):
        assert column_rank(scale * X) == 4
        assert column_rank(scale * twice) == 4
