"""E-divisive against its definition, computed pair by pair, and the rule round it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

from hwprof.regression import change_points as cp


def energy(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Ê(X, Y; 1) of Matteson and James (2014), equation 5."""
    n, m = len(x), len(y)
    across = sum(abs(a - b) for a in x for b in y)
    in_x = sum(abs(a - b) for a, b in itertools.combinations(x, 2))
    in_y = sum(abs(a - b) for a, b in itertools.combinations(y, 2))
    return 2 / (n * m) * across - in_x / math.comb(n, 2) - in_y / math.comb(m, 2)


def brute_force(z: Sequence[float], fewest: int) -> tuple[int, float]:
    """Return (τ, Q̂) that is largest over all τ and κ (their equations 6 and 7)."""
    found = []
    for tau in range(fewest, len(z) - fewest + 1):
        for kappa in range(tau + fewest, len(z) + 1):
            n, m = tau, kappa - tau
            found.append((tau, n * m / (n + m) * energy(z[:tau], z[tau:kappa])))
    return max(found, key=lambda f: f[1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fewest", [2, 3, 5])
def test_the_best_split_is_the_definitions(seed: int, fewest: int) -> None:
    rng = np.random.default_rng(seed)
    # Up and down again in half of the cases: there κ lies before the end.
    z = rng.standard_normal(16) + np.repeat([0, 2, 0 if seed % 2 else 3], [5, 6, 5])
    tau, q = cp.best_split(z, fewest)
    expected_tau, expected_q = brute_force(z.tolist(), fewest)
    assert tau == expected_tau
    assert q == pytest.approx(expected_q, rel=1e-10)


def test_a_stretch_too_short_has_no_split() -> None:
    assert cp.best_split(np.arange(9.0), 5) == (0, -math.inf)


def test_p_is_the_share_of_orders_that_split_as_well() -> None:
    # Two values, four times each: 70 orders, each as likely as any other.
    z = np.array([0.0, 0, 0, 1, 0, 1, 1, 1])
    largest = brute_force(z.tolist(), 2)[1]
    orders = [[float(i in ones) for i in range(8)] for ones in itertools.combinations(range(8), 4)]
    exact = np.mean([brute_force(o, 2)[1] >= largest - 1e-12 for o in orders])
    n = 4000
    found = cp.significant_splits(
        z, np.random.default_rng(0), fewest=2, significance=1.0, permutations=n
    )
    first = found[brute_force(z.tolist(), 2)[0]]
    assert 0.01 < exact < 0.5
    assert first == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / n))


def levels(*stretches: tuple[int, float], noise: float = 0.002, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [s * math.exp(noise * rng.standard_normal()) for n, s in stretches for _ in range(n)]


def changed(series: Sequence[float], seed: int = 1) -> list[int]:
    return [c.index for c in cp.change_points(series, np.random.default_rng(seed))]


class TestRule:
    def test_a_change_is_found_where_it_is_and_as_large_as_it_is(self) -> None:
        (found,) = cp.change_points(levels((12, 1.0), (10, 1.05)), np.random.default_rng(0))
        assert found.index == 12
        assert found.shift == pytest.approx(0.05, abs=0.003)
        assert found.p < 0.001

    def test_a_slowdown_and_its_repair_are_two(self) -> None:
        assert changed(levels((12, 1.0), (9, 1.08), (11, 1.0))) == [12, 21]

    def test_less_than_two_percent_is_no_change(self) -> None:
        assert changed(levels((15, 1.0), (15, 1.015))) == []
        assert changed(levels((15, 1.0), (15, 1.025))) == [15]

    def test_small_steps_are_joined_to_the_large_one(self) -> None:
        # 1 % is significant among so little noise; with 5 % behind it only that is told.
        series = levels((12, 1.0), (12, 1.01), (12, 1.06), noise=0.001)
        assert changed(series) == [24]

    def test_either_side_has_five_sessions(self) -> None:
        # Four of a new level are told with the session before them; three among many are not yet.
        assert changed(levels((20, 1.0), (5, 1.5))) == [20]
        assert changed(levels((20, 1.0), (4, 1.5))) == [19]
        assert changed(levels((20, 1.0), (2, 1.5))) == []

    def test_the_least_number_of_points(self) -> None:
        # C(13, 6) = 1716 and C(14, 7) = 3432 orders, two of them the clearest.
        assert 2 / math.comb(13, 6) > cp.SIGNIFICANCE > 2 / math.comb(14, 7)
        assert changed(levels((6, 1.0), (7, 2.0))) == []
        # At 14 the draws decide whether p is told as below 0.001; from 16 on there is no doubt.
        assert changed(levels((8, 1.0), (8, 2.0))) == [8]

    def test_noise_is_no_change(self) -> None:
        # At p < 0.001 twenty series raise an alarm once in fifty such tests; the seeds are fixed.
        assert all(changed(levels((20, 1.0), noise=0.03, seed=s)) == [] for s in range(20))

    def test_the_last_change_resets_the_baseline(self) -> None:
        rng = np.random.default_rng(0)
        assert cp.since_change(levels((12, 1.0), (9, 1.08), (11, 1.0)), rng) == 21
        assert cp.since_change(levels((20, 1.0)), rng) == 0


def test_of_thousands_of_points_the_latest_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def looked_at(values: np.ndarray, rng: np.random.Generator) -> dict[int, float]:
        sizes.append(values.size)
        return {150: 0.0002} if values[-1] > values[0] else {}

    monkeypatch.setattr(cp, "significant_splits", looked_at)
    rng = np.random.default_rng(0)
    (change,) = cp.change_points([1.0] * 1950 + [1.1] * 50, rng)
    assert change.index == 1950
    assert change.shift == pytest.approx(0.1)
    assert cp.since_change([1.0] * 1950 + [1.1] * 50, rng) == 1950
    assert cp.since_change([1.0] * 2000, rng) == 1800
    assert sizes == [200] * 3
