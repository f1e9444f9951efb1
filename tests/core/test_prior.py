"""Shrinking towards what blocks cost alone: exact where they tell, harmless where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hwprof
from hwprof.api.runs import latency_model
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.least_squares import guided_ridge_fit
from hwprof.estimate.prior import directions
from hwprof.graph import architecture_cost
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Slot, get_space

SPACE = get_space("mobile-mini")
DESIGN = DesignMatrix(SPACE)
CONSTANT_S = 1e-3


def draw(space: DesignSpace, n: int, seed: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def samples(archs: list[Architecture], latency_s: np.ndarray) -> list[Sample]:
    return [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, latency_s, strict=True)]


def by_macs_s(space: DesignSpace, archs: list[Architecture]) -> np.ndarray:
    """Latency that is proportional to MACs, but for a constant."""
    return CONSTANT_S + 1e-9 * np.array([architecture_cost(space, a).macs for a in archs])


def alone_s(space: DesignSpace, seed: int) -> dict[tuple[Slot, str], float]:
    rng = np.random.default_rng(seed)
    return {(s, b): float(rng.uniform(1e-4, 1e-3)) for s in space.slots for b in space.choices(s)}


def summed_s(archs: list[Architecture], prices: dict[tuple[Slot, str], float]) -> np.ndarray:
    return np.array(
        [
            sum(
                prices[Slot(unit, layer), block]
                for unit, blocks in enumerate(arch.units)
                for layer, block in enumerate(blocks)
            )
            for arch in archs
        ]
    )


def predictable(model: AdditiveLatencyModel, archs: list[Architecture]) -> list[Architecture]:
    """Return the networks of which the model has seen every block."""
    codes = model.design.encode(archs)
    rows = zip(codes.T, model.seen, strict=True)
    known = np.all([seen[column + 1] > 0 for column, seen in rows], axis=0)
    assert known.sum() > 10
    return [arch for arch, is_known in zip(archs, known, strict=True) if is_known]


@pytest.mark.parametrize("name", ["mobile-mini", "ofa-mbv3-w1.0", "nasbench201"])
def test_latency_in_proportion_to_macs_is_learnt_from_a_few_networks(name: str) -> None:
    space = get_space(name)
    design = DesignMatrix(space)
    # Enough that most blocks were seen, far fewer than would fix the coefficients one by one.
    few = draw(space, max(10, design.n_coefficients // 2), 0)
    model = AdditiveLatencyModel.fit(
        space, samples(few, by_macs_s(space, few)), guess=directions(design)
    )
    new = predictable(model, draw(space, 400, 1))
    assert model.predict_many(new)[0] == pytest.approx(by_macs_s(space, new), rel=1e-5)


def test_where_widths_multiply_what_blocks_cost_a_guess_still_helps() -> None:
    space = get_space("ofa-resnet50")
    design = DesignMatrix(space)
    few = draw(space, design.n_coefficients, 0)
    errors = []
    for guess in (None, directions(design)):
        model = AdditiveLatencyModel.fit(space, samples(few, by_macs_s(space, few)), guess=guess)
        new = predictable(model, draw(space, 400, 1))
        errors.append(np.std(model.predict_many(new)[0] / by_macs_s(space, new)))
    assert errors[1] < errors[0]


def test_seconds_alone_are_told_apart_from_macs_and_scaled() -> None:
    prices = alone_s(SPACE, 1)
    few = draw(SPACE, 40, 2)
    assert len(few) < DESIGN.n_coefficients
    guess = directions(DESIGN, prices)
    assert guess.shape == (DESIGN.n_coefficients, 2)
    in_context_s = CONSTANT_S + 0.7 * summed_s(few, prices)
    model = AdditiveLatencyModel.fit(SPACE, samples(few, in_context_s), guess=guess)
    new = predictable(model, draw(SPACE, 200, 3))
    expected_s = CONSTANT_S + 0.7 * summed_s(new, prices)
    assert model.predict_many(new)[0] == pytest.approx(expected_s, rel=1e-5)


def test_a_guess_that_says_nothing_does_little_harm() -> None:
    prices, unrelated = alone_s(SPACE, 3), alone_s(SPACE, 4)
    rng = np.random.default_rng(5)
    archs, new = draw(SPACE, 200, 6), draw(SPACE, 200, 7)
    timed_s = summed_s(archs, prices)
    fit = samples(archs, timed_s * (1 + 0.01 * rng.standard_normal(200)))
    errors = []
    for guess in (None, directions(DESIGN, unrelated)):
        predicted, _ = AdditiveLatencyModel.fit(SPACE, fit, guess=guess).predict_many(new)
        errors.append(np.sqrt(np.mean((predicted / summed_s(new, prices) - 1) ** 2)))
    assert errors[1] < 1.1 * errors[0]


def test_figures_that_are_the_same_for_all_networks_or_incomplete_are_left_out() -> None:
    prices = alone_s(SPACE, 8)
    prices.pop(next(iter(prices)))
    assert directions(DESIGN, prices).shape[1] == 1
    cells = get_space("nasbench201")
    same = {(s, b): 1e-4 for s in cells.slots for b in cells.choices(s)}
    assert directions(DesignMatrix(cells), same).shape[1] == 1


def test_the_fit_minimises_what_it_says() -> None:
    rng = np.random.default_rng(9)
    n, p, m = 30, 12, 2
    X = np.column_stack([np.ones(n), rng.standard_normal((n, p - 1))])
    y = rng.standard_normal(n)
    root = np.triu(rng.uniform(0.5, 1.5, (p - 1, p - 1)))
    B = np.vstack([np.zeros((1, m)), rng.standard_normal((p - 1, m))])
    fit = guided_ridge_fit(X, y, root, B)
    # Solved directly for the mean, the other coefficients and s, at the penalty that was chosen.
    weight = np.sqrt(fit.penalty)
    below = np.column_stack([np.zeros(p - 1), weight * root, -weight * root @ B[1:]])
    rows = np.vstack([np.column_stack([X, np.zeros((n, m))]), below])
    direct = np.linalg.lstsq(rows, np.append(y, np.zeros(p - 1)), rcond=None)[0]
    assert fit.coefficients == pytest.approx(direct[:p], abs=1e-9)
    covariance = np.linalg.inv(rows.T @ rows)[:p, :p]
    assert fit.inverse == pytest.approx(covariance, abs=1e-9)
    hat = X @ covariance @ X.T
    assert fit.degrees == pytest.approx(n - np.trace(hat))
    assert fit.residuals == pytest.approx(y - hat @ y, abs=1e-9)


def test_a_weighted_ridge_is_least_squares_with_extra_rows() -> None:
    """The mean's column bears the weights too; the mean itself is not shrunk."""
    rng = np.random.default_rng(10)
    n, p = 30, 12
    w = rng.uniform(0.2, 3.0, n)
    X = np.column_stack([np.ones(n), rng.standard_normal((n, p - 1))]) * w[:, None]
    y = w * (5.0 + rng.standard_normal(n))
    root = np.triu(rng.uniform(0.5, 1.5, (p - 1, p - 1)))
    fit = guided_ridge_fit(X, y, root, np.zeros((p, 0)))
    below = np.column_stack([np.zeros(p - 1), np.sqrt(fit.penalty) * root])
    rows = np.vstack([X, below])
    direct = np.linalg.lstsq(rows, np.append(y, np.zeros(p - 1)), rcond=None)[0]
    assert fit.coefficients == pytest.approx(direct, abs=1e-9)
    hat = X @ np.linalg.inv(rows.T @ rows) @ X.T
    assert fit.leverage == pytest.approx(np.diag(hat), abs=1e-9)
    assert fit.degrees == pytest.approx(n - np.trace(hat))
    assert fit.residuals == pytest.approx(y - hat @ y, abs=1e-9)


def test_a_profile_of_a_few_networks_predicts_by_what_blocks_take_alone(tmp_path: Path) -> None:
    hwprof.profile(space="mobile-mini", device="null", out=tmp_path / "run", networks=20)
    model, _ = latency_model(tmp_path / "run")
    assert model.holdout is not None
    assert model.holdout.median_rel_error < 0.01
    assert model.n_networks < DESIGN.n_coefficients
