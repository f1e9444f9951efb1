"""Sessions of a run that lie apart: their factors are found, and taken out of what is judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.insights import insights
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.session_levels import SessionLevels, levels_of, session_levels
from hwprof.results import Sample
from hwprof.space import Architecture, get_space

MINI = get_space("mobile-mini")
DESIGN = DesignMatrix(MINI)
FACTORS = np.array([0.96, 1.03, 1.0, 1.02])
"""Of four sessions; the mean is not quite 1, and so is no network's."""


def truth_s(archs: list[Architecture]) -> np.ndarray:
    """Latencies of an additive device around 10 ms."""
    coefficients = np.random.default_rng(0).normal(0.0, 0.3e-3, DESIGN.n_coefficients)
    coefficients[0] = 10e-3
    return np.asarray(DESIGN.rows(DESIGN.encode(archs)) @ coefficients)


def timed(n: int, seed: int, *, noise: float, factors: np.ndarray = FACTORS) -> list[Sample]:
    """Time random networks in sessions of equal size, one after the other."""
    rng = np.random.default_rng(seed)
    archs = [MINI.sample(rng) for _ in range(n)]
    member = np.arange(n) * len(factors) // n
    y = truth_s(archs) * factors[member] * np.exp(rng.normal(0.0, noise, n))
    return [
        Sample(arch=a, latency_s=float(v), session=f"w{3 * m}")
        for a, v, m in zip(archs, y, member, strict=True)
    ]


def levels(samples: list[Sample]) -> SessionLevels | None:
    rows = DESIGN.rows(DESIGN.encode([s.arch for s in samples]))
    y = np.array([s.latency_s for s in samples])
    return session_levels(rows, y, [s.session for s in samples])


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_factors_are_those_that_the_sessions_had(noise: float) -> None:
    found = levels(timed(200, 1, noise=noise))
    assert found is not None
    expected = np.repeat(FACTORS / FACTORS.mean(), 50)
    # Of 50 networks each, and of what the effects take from them.
    assert found.factors == pytest.approx(expected, abs=max(1e-6, 4 * noise / np.sqrt(30)))
    assert found.factors.mean() == pytest.approx(1.0)
    assert found.n_sessions == 4
    assert found.sd == pytest.approx(np.std(expected), rel=0.1)


def test_sessions_that_are_alike_are_left_alone() -> None:
    found = [levels(timed(150, seed, noise=0.01, factors=np.ones(4))) for seed in range(200)]
    # At p < 0.01 two of 200 by chance; more than seven in one case of a thousand.
    assert sum(f is not None for f in found) <= 7


@pytest.mark.parametrize("case", ["one session", "unknown", "too few"])
def test_without_sessions_to_compare_there_are_no_factors(case: str) -> None:
    samples = timed(200, 1, noise=0.003)
    if case == "one session":
        samples = [replace(s, session="w0") for s in samples]
    elif case == "unknown":
        samples = [replace(s, session=None) if i == 7 else s for i, s in enumerate(samples)]
    else:
        samples = samples[:: 200 // (DESIGN.n_coefficients + 8)][: DESIGN.n_coefficients + 8]
    assert levels(samples) is None


def test_few_networks_are_judged_beside_what_blocks_take_alone() -> None:
    samples = timed(DESIGN.n_coefficients, 3, noise=0.003)
    codes = DESIGN.encode([s.arch for s in samples])
    y = np.array([s.latency_s for s in samples])
    names = [s.session for s in samples]
    assert levels_of(DESIGN, codes, y, names, None) is None
    # A guess that is right but for its scale.
    coefficients = np.random.default_rng(0).normal(0.0, 0.3e-3, (DESIGN.n_coefficients, 1))
    coefficients[0] = 0.0
    found = levels_of(DESIGN, codes, y, names, 0.5 * coefficients)
    assert found is not None
    expected = FACTORS[[int(name[1:]) // 3 for name in names if name]]
    assert found.factors == pytest.approx(expected / expected.mean(), abs=0.004)


def test_effects_are_known_as_well_as_within_one_session() -> None:
    def widths(samples: list[Sample]) -> np.ndarray:
        effects = fit_friendliness(MINI, samples).effects
        return np.array([e.latency.half_width for e in effects if e.latency is not None])

    apart = timed(250, 5, noise=0.003)
    alike = timed(250, 5, noise=0.003, factors=np.ones(4))
    unknown = [replace(s, session=None) for s in apart]
    assert np.median(widths(apart) / widths(alike)) == pytest.approx(1.0, abs=0.05)
    assert np.median(widths(unknown) / widths(alike)) > 4.0


def test_effects_hold_the_truth_in_95_of_100_intervals() -> None:
    rng = np.random.default_rng(11)
    archs = [MINI.sample(rng) for _ in range(100)]
    exact = fit_friendliness(
        MINI,
        [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, truth_s(archs), strict=True)],
    )
    true = np.array([e.latency.value for e in exact.effects if e.latency])
    held = []
    for seed in range(40):
        found = fit_friendliness(MINI, timed(240, 100 + seed, noise=0.01)).effects
        held += [
            e.latency.lo <= t <= e.latency.hi for e, t in zip(found, true, strict=True) if e.latency
        ]
    # HC3 is on the safe side where effects are many.
    assert 0.93 < np.mean(held) < 0.985


def test_the_mean_is_one_of_few_sessions() -> None:
    apart = fit_friendliness(MINI, timed(240, 5, noise=0.003)).mean_latency
    assert apart is not None
    # Student's t of 4 sessions, 3.182, times their standard error.
    half = 3.182 * np.std(FACTORS, ddof=1) / 2.0
    assert apart.half_width / apart.value == pytest.approx(half, rel=0.05)


def test_what_was_taken_out_is_said() -> None:
    (said,) = (
        text
        for text in insights(fit_friendliness(MINI, timed(200, 1, noise=0.003)))
        if "sessions" in text
    )
    assert "the run's 4 sessions lay 2.7 % apart" in said


def test_a_model_predicts_the_mean_of_the_sessions() -> None:
    apart = timed(200, 1, noise=0.003)
    model = AdditiveLatencyModel.fit(MINI, apart)
    assert model.holdout is not None
    assert model.holdout.sessions_apart == pytest.approx(0.026, rel=0.1)
    assert model.holdout.median_rel_error < 0.004
    rng = np.random.default_rng(77)
    new = [MINI.sample(rng) for _ in range(100)]
    predicted, _ = model.predict_many(new)
    expected = truth_s(new) * FACTORS.mean()
    assert predicted == pytest.approx(expected, rel=0.006)
    unknown = AdditiveLatencyModel.fit(MINI, [replace(s, session=None) for s in apart])
    assert unknown.residual_sd_s > 4.0 * model.residual_sd_s
    assert unknown.holdout is not None
    assert unknown.holdout.sessions_apart == 0.0
