"""Bounds of percentiles against closed forms and against known distributions."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.measure.tails import upper_bound_s


@pytest.mark.parametrize(("quantile", "fewest"), [(0.9, 44), (0.99, 459)])
def test_fewest_calls_that_bound_anything(quantile: float, fewest: int) -> None:
    # The slowest of n lies above the quantile with 1 - quantile**n: 0.99 is reached at ``fewest``.
    samples_s = np.random.default_rng(0).permutation(np.arange(1.0, fewest + 1.0))
    assert 1 - quantile**fewest >= 0.99 > 1 - quantile ** (fewest - 1)
    assert upper_bound_s(samples_s, quantile) == fewest
    assert upper_bound_s(samples_s[:-1], quantile) is None


def test_median_of_ten_as_tabled() -> None:
    # Sign test: of 10 calls fewer than 9 lie below the median with 1 - 11/1024, fewer than 8 with
    # 1 - 56/1024.
    samples_s = np.arange(1.0, 11.0)
    assert upper_bound_s(samples_s, 0.5, confidence=0.989) == 9.0
    assert upper_bound_s(samples_s, 0.5, confidence=0.990) == 10.0
    assert upper_bound_s(samples_s, 0.5, confidence=0.94) == 8.0


def test_nothing_bounds_nothing() -> None:
    assert upper_bound_s(np.empty(0), 0.9) is None


def test_holds_as_often_as_stated() -> None:
    rng = np.random.default_rng(5)
    true_s = -np.log(0.1)  # the ninetieth percentile of the unit exponential
    held = sum(upper_bound_s(rng.exponential(size=200), 0.9) >= true_s for _ in range(2000))
    assert 0.985 <= held / 2000 <= 0.999
