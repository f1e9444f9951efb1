"""The surrogate against the textbook, and expected gains against sampling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from hwprof.pareto import hypervolume
from hwprof.search.strategies import surrogate
from hwprof.search.strategies.improvement import Staircase
from hwprof.search.strategies.surrogate import Coding, Features, Surrogate
from hwprof.space import get_space


def networks(name: str, n: int, seed: int = 0) -> tuple[Coding, Features]:
    space = get_space(name)
    rng = np.random.default_rng(seed)
    coding = Coding(space)
    codes = space.encode_many([space.sample(rng) for _ in range(n)])
    return coding, coding.features(codes, rng.uniform(1.0, 5.0, n))


def weights_of(coding: Coding, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(-1.0, 0.5, coding.n_decisions + 6)


def covariance(coding: Coding, a: Features, b: Features, weights: np.ndarray) -> np.ndarray:
    """Return the covariance as the module's docstring writes it, pair by pair."""
    n = coding.n_decisions
    w, (s1, s2, s3, v, r) = np.exp(weights[:n]), np.exp(weights[n : n + 5])
    found = np.empty((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            same = [bool((a.ones[i] * b.ones[j])[coding.decision_of == d].sum()) for d in range(n)]
            counts = ((a.counts[i] - b.counts[j]) ** 2).sum()
            times = (a.log_time[i] - b.log_time[j]) ** 2
            found[i, j] = (
                s1 * np.exp(-w[~np.array(same)].sum())
                + s2 * np.exp(-v * counts)
                + s3 * np.exp(-r * times)
            )
    return found


@pytest.mark.parametrize("name", ["mobile-mini", "nasbench201", "ofa-resnet50"])
def test_belief_is_the_textbook_posterior(name: str) -> None:
    """Rasmussen & Williams 2006, eq. 2.25 and 2.26, solved directly."""
    coding, known = networks(name, 12)
    _, new = networks(name, 5, seed=9)
    weights = weights_of(coding)
    y = np.random.default_rng(2).normal(70.0, 3.0, 12)
    noise = np.exp(weights[-1])
    K = covariance(coding, known, known, weights) + noise * np.eye(12)
    k = covariance(coding, new, known, weights)
    total = np.diag(covariance(coding, new, new, weights))
    standard = (y - y.mean()) / y.std()
    belief = Surrogate.fit(coding, known, y, weights).belief(new)
    mean = y.mean() + y.std() * k @ np.linalg.solve(K, standard)
    variance = total - (k * np.linalg.solve(K, k.T).T).sum(axis=1)
    np.testing.assert_allclose(belief.mean, mean, rtol=1e-9)
    np.testing.assert_allclose(belief.sd, y.std() * np.sqrt(variance), rtol=1e-9)


def test_supposing_a_network_is_conditioning_on_its_expected_value() -> None:
    coding, known = networks("mobile-mini", 10)
    _, new = networks("mobile-mini", 4, seed=9)
    weights = weights_of(coding)
    y = np.random.default_rng(2).normal(0.0, 1.0, 10)
    y = (y - y.mean()) / y.std()
    belief = Surrogate.fit(coding, known, y, weights).belief(new)
    before = belief.mean.copy()
    belief.suppose(1)
    all_known = Features(
        ones=np.vstack([known.ones, new.ones[[1]]]),
        counts=np.vstack([known.counts, new.counts[[1]]]),
        log_time=np.append(known.log_time, new.log_time[1]),
    )
    K = covariance(coding, all_known, all_known, weights) + np.exp(weights[-1]) * np.eye(11)
    k = covariance(coding, new, all_known, weights)
    total = np.diag(covariance(coding, new, new, weights))
    variance = total - (k * np.linalg.solve(K, k.T).T).sum(axis=1)
    np.testing.assert_allclose(belief.sd, np.sqrt(variance), rtol=1e-8)
    # What happened as expected changes no expectation.
    np.testing.assert_allclose(k @ np.linalg.solve(K, np.append(y, before[1])), before, rtol=1e-8)
    np.testing.assert_allclose(belief.mean, before)


@pytest.mark.parametrize("name", ["mobile-mini", "nasbench201", "ofa-resnet50"])
def test_gradient_of_the_likelihood_is_exact(name: str) -> None:
    coding, known = networks(name, 15)
    y = np.random.default_rng(3).normal(size=15)
    weights = weights_of(coding)
    _, gradient = surrogate._cost(weights, coding, known, y)

    def cost(w: np.ndarray) -> float:
        return surrogate._cost(w, coding, known, y)[0]

    numeric = approx_fprime(weights, cost, 1e-7)
    np.testing.assert_allclose(gradient, numeric, rtol=2e-4, atol=2e-5)


def test_it_learns_which_slot_matters() -> None:
    """Only the first edge decides the score: its weight comes out above all others."""
    space = get_space("nasbench201")
    rng = np.random.default_rng(0)
    codes = space.encode_many([space.sample(rng) for _ in range(80)])
    coding = Coding(space)
    fitted = Surrogate.fit(
        coding, coding.features(codes, np.ones(80)), np.array([0.0, 3, 1, 4, 2])[codes[:, 0]]
    )
    slots = fitted.weights[:6]
    assert slots.argmax() == 0
    new = space.encode_many([space.sample(rng) for _ in range(40)])
    expected = np.array([0.0, 3, 1, 4, 2])[new[:, 0]]
    found = fitted.belief(coding.features(new, np.ones(40)))
    assert np.abs(found.mean - expected).max() < 0.3


def test_expected_gain_is_the_mean_hypervolume_gain() -> None:
    latency, score = np.array([1.0, 2.0, 3.0, 2.5]), np.array([1.0, 2.0, 4.0, 0.5])
    end, floor = 5.0, 0.5
    stairs = Staircase(latency, score, end=end)
    before = hypervolume(latency, score, (end, floor))
    rng = np.random.default_rng(0)
    for t, mean, sd in [(0.5, 1.0, 1.0), (1.5, 1.8, 0.3), (2.5, 5.0, 0.1), (4.0, 3.0, 2.0)]:
        draws = rng.normal(mean, sd, 20_000)
        gains = [
            hypervolume([*latency, t], [*score, draw], (end, floor)) - before for draw in draws
        ]
        (found,) = stairs.expected_gain(np.array([t]), np.array([mean]), np.array([sd]))
        error = np.std(gains) / np.sqrt(len(draws))
        assert found == pytest.approx(np.mean(gains), abs=4 * error)
    # A point of the front beyond the end adds no width.
    longer = Staircase([*latency, 9.0], [*score, 7.0], end=end)
    for candidate in (2.5, 4.0):
        sure = (np.array([candidate]), np.array([5.0]), np.array([1e-9]))
        assert longer.expected_gain(*sure) == pytest.approx(stairs.expected_gain(*sure))
    beyond = stairs.expected_gain(np.array([6.0]), np.array([9.0]), np.array([1.0]))
    assert beyond == pytest.approx([0.0])


def test_a_point_taken_in_is_no_longer_gained() -> None:
    stairs = Staircase([1.0], [1.0], end=4.0)
    sure = (np.array([2.0]), np.array([3.0]), np.array([1e-6]))
    # Two wide and two high.
    assert stairs.expected_gain(*sure) == pytest.approx([4.0])
    stairs.add(2.0, 3.0)
    assert stairs.expected_gain(*sure) == pytest.approx([0.0], abs=1e-5)
