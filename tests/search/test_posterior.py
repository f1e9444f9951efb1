"""What is believed of effects that were estimated with noise."""

from __future__ import annotations

import numpy as np

from hwprof.search.reducing.posterior import draw_effects
from tests.search.planted import noisy, random_truth


def test_posterior_believes_exact_estimates_and_doubts_noisy_ones() -> None:
    exact = noisy(0, noise_pct=0.0)
    assert exact.accuracy is not None
    draws = draw_effects(exact.design, exact.accuracy, 50, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=0), exact.accuracy.values, atol=1e-6)
    rough = noisy(0, noise_pct=5.0)
    assert rough.accuracy is not None
    draws = draw_effects(rough.design, rough.accuracy, 400, np.random.default_rng(0))
    blocks = [i for i, t in enumerate(rough.design.terms) if t.kind == "block"]
    believed = draws[:, blocks].mean(axis=0)
    truth = rough.design.expansion[blocks] @ random_truth(0)[2]
    raw_error = np.mean((rough.accuracy.values[blocks] - truth) ** 2)
    assert np.mean((believed - truth) ** 2) < 0.5 * raw_error
