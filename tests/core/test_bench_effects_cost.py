"""The benchmark of what effects cost: its bootstrap, and the seconds that it counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.pinned_effects import fit_pinned, pinned_latencies, pinned_response
from hwprof.estimate.pinning import in_rounds, pinned_networks
from hwprof.results import Sample
from hwprof.space import Architecture, get_space
from tests.bench import bench_effects_cost as bench
from tests.bench.waiting import burst_seconds, waited_seconds
from tests.core.pinned_truth import additive, design_of

SPACE = get_space("mobile-mini")
DESIGN = design_of("mobile-mini")
NOISE_S = 1e-4


def noisy(archs: list[Architecture], seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    values = DESIGN.predictions(additive(DESIGN), DESIGN.encode(archs))
    values = values + rng.normal(0.0, NOISE_S, len(archs))
    return [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, values, strict=True)]


def test_the_bootstrap_of_the_shared_design_spreads_as_its_degrees_of_freedom_say() -> None:
    n = 4 * DESIGN.n_coefficients
    rng = np.random.default_rng(0)
    samples = noisy([SPACE.sample(rng) for _ in range(n)], seed=1)
    drawn = bench.shared_draws(DESIGN, samples, rng, n=300)
    found = bench.mean_variance(DESIGN, fit_friendliness(SPACE, samples).latency.covariance)
    assert drawn.mean() == pytest.approx(found, rel=0.1)
    # A variance from ν normal residuals has the relative standard deviation √(2/ν).
    degrees = n - DESIGN.n_coefficients
    assert drawn.std() / drawn.mean() == pytest.approx(np.sqrt(2.0 / degrees), rel=0.4)


def test_the_bootstrap_of_the_pinned_design_is_about_its_own_variance() -> None:
    n_per_pin, seed = 3, 0
    networks = pinned_networks(SPACE, seed, n_per_pin)
    samples = noisy(in_rounds(SPACE, networks), seed=2)
    values = pinned_latencies(SPACE, samples, n_per_pin=n_per_pin, seed=seed)
    response = pinned_response(DESIGN, values)
    whole = fit_pinned(SPACE, samples, n_per_pin=n_per_pin, seed=seed)
    np.testing.assert_array_equal(response.covariance, whole.latency.covariance)
    drawn = bench.pinned_draws(DESIGN, values, np.random.default_rng(0), n=300)
    found = bench.mean_variance(DESIGN, response.covariance)
    assert drawn.mean() == pytest.approx(found, rel=0.1)
    degrees = (n_per_pin - 1) * len(networks)
    assert drawn.std() / drawn.mean() == pytest.approx(np.sqrt(2.0 / degrees), rel=0.5)


def test_seconds_waited_for_leave_out_the_pause_between_two_calls() -> None:
    def burst(start_s: float, *durations_s: float) -> object:
        starts = np.array([start_s * 1e9], dtype=np.int64)
        durations = (np.array(durations_s) * 1e9).astype(np.int64)
        return SimpleNamespace(burst=SimpleNamespace(start_ns=starts, duration_ns=durations))

    first = SimpleNamespace(bursts=[burst(0.0, 0.5, 0.25), burst(20.0, 1.0)])
    second = SimpleNamespace(bursts=[burst(10.0, 2.0), burst(500.0, 1.0), burst(530.0, 1.0)])
    networks = cast("Any", [first, second])
    assert waited_seconds(networks) == pytest.approx(10.0 + 10.0 + 30.0)
    assert burst_seconds(networks) == pytest.approx(5.75)
