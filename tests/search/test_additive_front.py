"""Losses over prices against every network of a small space."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.search.reducing.additive_front import Alternatives, PriceSweep
from hwprof.space import get_space
from tests.search.planted import BLOCKS, MINI, coefficients


def test_loss_equals_that_of_all_networks_enumerated() -> None:
    """Every network of a small space, concave envelopes over a fine grid of latencies."""
    base = get_space(MINI).restrict({}, (2, 1, 1))
    space = base.restrict({s: base.choices(s)[:3] for s in base.slots})
    design = DesignMatrix(space)
    rng = np.random.default_rng(3)
    blocks = {b: i * 1e-3 for i, b in enumerate(BLOCKS[:3])}
    seconds = coefficients(design, 10e-3, 2e-3, blocks, rng, 0.3e-3)
    points = coefficients(design, 70.0, 1.0, {b: 1e3 * v for b, v in blocks.items()}, rng, 0.8)
    whole = Alternatives(alive=dict(space.alive), max_depth=(2, 1, 1))
    # The fastest candidate of every slot, the first, stays: then prices and latencies agree.
    left = Alternatives(
        alive={s: (b[0], b[1]) for s, b in space.alive.items()}, max_depth=(2, 1, 1)
    )

    def networks(alive) -> tuple[np.ndarray, np.ndarray]:
        layers = [[(b,) for b in alive[s]] for s in space.slots]
        firsts = [*layers[0], *(a + b for a in layers[0] for b in layers[1])]
        archs = [space.assemble(u, ()) for u in itertools.product(firsts, *layers[2:])]
        X = design.rows(design.encode(archs))
        return X @ seconds, X @ points

    def envelope(latency, accuracy, at) -> np.ndarray:
        prices = np.concatenate([[0.0], np.logspace(1, 5, 2000)])
        best = (accuracy - prices[:, None] * latency).max(axis=1)
        return np.asarray((best[:, None] + prices[:, None] * at).min(axis=0))

    full, reduced = networks(whole.alive), networks(left.alive)
    assert reduced[0].min() == pytest.approx(full[0].min())
    at = np.linspace(full[0].min(), full[0].max(), 1000)
    expected = (envelope(*full, at) - envelope(*reduced, at)).max()
    sweep = PriceSweep(design, design.expansion @ seconds, (design.expansion @ points)[None])
    loss = sweep.loss(sweep.support(whole), sweep.support(left))[0]
    assert expected > 1.0
    assert loss == pytest.approx(expected, rel=0.02)
