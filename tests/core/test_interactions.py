"""Interaction terms: taken where they predict unseen networks better, and only there."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from hwprof.errors import SpaceError
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.interactions import Interactions
from hwprof.estimate.latency_fit import additive, with_interactions
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.latency_model_file import read_model, write_model
from hwprof.estimate.least_squares import partial_ridge_fit
from hwprof.results import Sample
from hwprof.space import Architecture, get_space
from hwprof.space.nasbench201 import OPERATORS

SPACE = get_space("mobile-mini")
DESIGN = DesignMatrix(SPACE)


def draw(n: int, seed: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def latencies(archs: list[Architecture], depth_product_s: float) -> np.ndarray:
    """Return 10 ms plus block effects, plus a product of the first two units' depths."""
    truth = np.random.default_rng(1).normal(0.0, 0.2e-3, DESIGN.n_coefficients)
    truth[0] = 10e-3
    depths = np.array([[len(unit) - 2.0 for unit in arch.units] for arch in archs])
    total = DESIGN.rows(DESIGN.encode(archs)) @ truth
    return np.asarray(total + depth_product_s * depths[:, 0] * depths[:, 1])


def model(depth_product_s: float, seed: int = 0, n: int = 200) -> AdditiveLatencyModel:
    archs = draw(n, 10 + seed)
    noise = np.random.default_rng(20 + seed).normal(0.0, 0.05e-3, n)
    samples = [
        Sample(arch=a, latency_s=float(y))
        for a, y in zip(archs, latencies(archs, depth_product_s) + noise, strict=True)
    ]
    return AdditiveLatencyModel.fit(SPACE, samples)


def test_columns_are_what_they_are_called() -> None:
    archs = draw(200, 3)
    codes = DESIGN.encode(archs)
    depths = np.array([[len(unit) - 2.0 for unit in arch.units] for arch in archs])
    interactions = Interactions(DESIGN)
    products = np.stack([depths[:, 0] * depths[:, 1], depths[:, 1] * depths[:, 2]], axis=1)
    np.testing.assert_array_equal(interactions.columns("depth x depth", codes), products)
    squared = interactions.columns("depth squared", codes)[:, 0]
    # Three depths of 1 to 3 have a variance of 2 together, here from random networks.
    offset = depths.sum(axis=1) ** 2 - squared
    np.testing.assert_allclose(offset, offset[0])
    assert offset[0] == pytest.approx(2.0, abs=0.3)
    from hwprof.graph import architecture_cost

    # What varies of the MACs, as a share of all blocks' mean, squared.
    macs = np.array([architecture_cost(SPACE, a).macs for a in archs], dtype=np.float64)
    work = interactions.columns("work squared", codes)[:, 0]
    differences = np.sqrt(work - work.min()) * np.sign(macs - np.median(macs))
    slope = np.polyfit(macs, differences, 1)
    assert np.corrcoef(macs, differences)[0, 1] > 0.99
    assert 0.9 < slope[0] * macs.mean() < 1.6


def test_a_depth_product_is_found_and_predicts_what_was_never_seen() -> None:
    found = model(0.4e-3)
    assert found.interaction == "depth x depth"
    (test,) = [t for t in found.tested if t.taken]
    assert test.gain > 0.5
    fresh = draw(300, 99)
    actual = latencies(fresh, 0.4e-3) + np.random.default_rng(7).normal(0.0, 0.05e-3, 300)
    predicted, half = found.predict_many(fresh)
    assert np.mean(np.abs(predicted - actual) <= half) >= 0.90
    assert np.median(np.abs(predicted - actual)) < 0.08e-3
    # The second product, which is not there, is in the family and gets nothing.
    assert found.coefficients[-2] == pytest.approx(0.4e-3, rel=0.1)
    assert abs(found.coefficients[-1]) < 0.05e-3


def test_additive_latencies_seldom_get_a_term() -> None:
    taken = sum(model(0.0, seed).interaction is not None for seed in range(20))
    # A gain over two standard errors by accident: 2 % for each of five families at most.
    assert taken <= 4


def test_exact_latencies_get_none() -> None:
    archs = draw(150, 4)
    exact = latencies(archs, 0.0)
    samples = [Sample(arch=a, latency_s=float(y)) for a, y in zip(archs, exact, strict=True)]
    assert AdditiveLatencyModel.fit(SPACE, samples).interaction is None


def test_the_expectation_is_that_of_the_additive_part() -> None:
    found = model(0.4e-3)
    uniform = {slot: [1 / 6] * 6 for slot in SPACE.slots}
    # Over the uniform distribution the products average to zero, and so do all effects.
    assert found.expected_s(uniform) == pytest.approx(found.coefficients[0], rel=1e-9)
    arch = draw(1, 5)[0]
    certain = {
        slot: [float(b == arch.block(slot)) for b in SPACE.choices(slot)]
        if arch.block(slot) is not None
        else uniform[slot]
        for slot in SPACE.slots
    }
    depths = {u: [float(d == len(arch.units[u])) for d in SPACE.depths(u)] for u in range(3)}
    products = Interactions(DESIGN).columns("depth x depth", DESIGN.encode([arch]))[0]
    added = float(products @ found.coefficients[-2:])
    expected = found.expected_s(certain, depths=depths)
    assert expected + added == pytest.approx(found.predict_s(arch)[0], rel=1e-9)


def pair_latencies(archs: list[Architecture], size_s: float) -> np.ndarray:
    """Return 10 ms, plus what any two blocks that follow one another cost together."""
    codes = DESIGN.encode(archs)
    total = np.full(len(archs), 10e-3)
    for i in range(codes.shape[1] - 1):
        table = np.random.default_rng(i).normal(0.0, size_s, (7, 7))
        total += table[codes[:, i] + 1, codes[:, i + 1] + 1]
    return total


@lru_cache
def pair_model() -> AdditiveLatencyModel:
    archs = draw(600, 30)
    noise = np.random.default_rng(31).normal(0.0, 0.02e-3, len(archs))
    latencies_s = pair_latencies(archs, 0.2e-3) + noise
    pairs = zip(archs, latencies_s, strict=True)
    return AdditiveLatencyModel.fit(SPACE, [Sample(arch=a, latency_s=float(y)) for a, y in pairs])


def test_pairs_of_blocks_are_found_and_intervals_cover() -> None:
    found = pair_model()
    assert found.interaction == "block x block"
    fresh = draw(300, 99)
    actual = pair_latencies(fresh, 0.2e-3) + np.random.default_rng(7).normal(0.0, 0.02e-3, 300)
    predicted, half = found.predict_many(fresh)
    assert np.mean(np.abs(predicted - actual) <= half) >= 0.90
    # 0.02 ms of it is noise; the sum of effects alone leaves about 0.4 ms.
    assert np.sqrt(np.mean((predicted - actual) ** 2)) < 0.15e-3


def test_pairs_are_priced_where_a_block_was_never_seen() -> None:
    """Of its column nothing is known: predictions of networks without it do not need it."""
    space = get_space("nasbench201")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(1500)]
    has_none = (design.encode(drawn)[:, :4] == 0).any(axis=1)
    archs = [a for a, strange in zip(drawn, has_none, strict=True) if not strange][:500]
    codes = design.encode(archs)
    y = np.full(len(codes), 10e-3)
    for i, j in combinations(range(6), 2):
        table = np.random.default_rng(10 * i + j).normal(0.0, 0.2e-3, (6, 6))
        y += table[codes[:, i] + 1, codes[:, j] + 1]
    y += rng.normal(0.0, 0.01e-3, len(y))
    pairs = list(zip(archs, y, strict=True))
    found = AdditiveLatencyModel.fit(
        space, [Sample(arch=a, latency_s=float(v)) for a, v in pairs[:400]]
    )
    assert found.interaction == "block x block"
    predicted, half = found.predict_many(archs[400:])
    assert np.mean(np.abs(predicted - y[400:]) <= half) >= 0.90
    with pytest.raises(SpaceError, match="stood in none"):
        found.predict_s(drawn[int(np.argmax(has_none))])


def test_the_expectation_is_exact_for_pairs() -> None:
    """Against random networks drawn from the very distribution, blocks and depths not uniform."""
    found = pair_model()
    rng = np.random.default_rng(3)
    shares = {slot: rng.dirichlet(np.ones(6)) for slot in SPACE.slots}
    depths = {u: rng.dirichlet(np.ones(len(SPACE.depths(u)))) for u in range(SPACE.n_units)}
    n = 40_000
    codes = np.full((n, len(SPACE.slots)), -1)
    for unit in range(SPACE.n_units):
        deep = rng.choice(SPACE.depths(unit), n, p=depths[unit])
        for column, slot in enumerate(SPACE.slots):
            if slot.unit == unit:
                drawn = rng.choice(6, n, p=shares[slot])
                codes[:, column] = np.where(deep > slot.layer, drawn, -1)
    sampled = found.predict_encoded(codes)[0]
    expected = found.expected_s(shares, depths=depths)
    assert abs(expected - sampled.mean()) < 4.0 * sampled.std() / np.sqrt(n)
    # Of one network it is that network's prediction.
    arch = draw(1, 5)[0]
    certain = {
        slot: [float(b == arch.block(slot)) for b in SPACE.choices(slot)]
        if arch.block(slot) is not None
        else shares[slot]
        for slot in SPACE.slots
    }
    whole = {u: [float(d == len(arch.units[u])) for d in SPACE.depths(u)] for u in range(3)}
    exact = found.expected_s(certain, depths=whole)
    assert exact == pytest.approx(found.predict_s(arch)[0], rel=1e-9)


def test_gradients_flow_through_pairs() -> None:
    torch = pytest.importorskip("torch")
    found = pair_model()
    shares = {
        slot: torch.full((6,), 1.0 / 6.0, dtype=torch.float64, requires_grad=True)
        for slot in SPACE.slots
    }
    found.expected_s(shares).backward()
    slot = SPACE.slots[0]
    step = 1e-4
    numbers = {s: np.full(6, 1.0 / 6.0) for s in SPACE.slots}
    numbers[slot][2] += step
    above = found.expected_s(numbers)
    numbers[slot][2] -= 2.0 * step
    # The expectation is linear in each slot's probabilities.
    slope = (above - found.expected_s(numbers)) / (2.0 * step)
    assert float(shares[slot].grad[2]) == pytest.approx(slope, rel=1e-6)


def test_terms_survive_a_file(tmp_path: Path) -> None:
    found = model(0.4e-3)
    write_model(found, tmp_path / "model.npz")
    again = read_model(tmp_path / "model.npz")
    assert again.tested == found.tested
    archs = draw(20, 6)
    np.testing.assert_array_equal(again.predict_many(archs), found.predict_many(archs))


def test_unused_edges_are_left_out_where_the_device_does() -> None:
    space = get_space("nasbench201")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(300)]
    codes = design.encode(archs)
    truth = rng.normal(0.0, 0.5e-3, design.n_coefficients)
    truth[0] = 10e-3
    for what, pruned in ((codes, False), (space.used_codes(codes), True)):
        y = design.rows(what) @ truth + rng.normal(0.0, 0.05e-3, len(archs))
        pairs = zip(archs, y, strict=True)
        found = AdditiveLatencyModel.fit(
            space, [Sample(arch=a, latency_s=float(v)) for a, v in pairs]
        )
        assert found.drops_unused is pruned
        fresh = [space.sample(rng) for _ in range(200)]
        runs = design.encode(fresh)
        actual = design.rows(space.used_codes(runs) if pruned else runs) @ truth
        np.testing.assert_allclose(found.predict_many(fresh)[0], actual, atol=0.1e-3)


def test_a_partial_ridge_is_least_squares_with_extra_rows() -> None:
    """A ridge penalty is a row sqrt(k) for every shrunk coefficient, observed as zero."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 12)), rng.normal(size=60)
    y += X[:, 5]
    fit = partial_ridge_fit(X, y, 4)
    assert np.isfinite(fit.penalty)
    rows = np.hstack([np.zeros((8, 4)), np.sqrt(fit.penalty) * np.eye(8)])
    taller = np.vstack([X, rows])
    expected = np.linalg.lstsq(taller, np.concatenate([y, np.zeros(8)]), rcond=None)[0]
    np.testing.assert_allclose(fit.coefficients, expected, atol=1e-10)
    np.testing.assert_allclose(fit.inverse, np.linalg.inv(taller.T @ taller), atol=1e-10)
    np.testing.assert_allclose(
        fit.leverage, np.einsum("ij,jk,ik->i", X, fit.inverse, X), atol=1e-10
    )


def test_models_with_and_without_unused_edges_are_judged_by_the_same_networks() -> None:
    """One network can be predicted only as it is written, another only without its unused edge."""
    space = get_space("nasbench201")
    design = DesignMatrix(space)
    drawn = design.encode([space.sample(np.random.default_rng(i)) for i in range(1200)])
    first, onward = 0, [2, 4]  # the edge into node 1, and those out of it
    read = space.used_codes(drawn)[:, first] == drawn[:, first]
    none, pool, wide = (OPERATORS.index(op) for op in ("none", "avg_pool_3x3", "nor_conv_3x3"))
    # On the first edge a pool stands where nothing reads it, a 3x3 convolution nowhere.
    kept = drawn[((drawn[:, first] != pool) | ~read) & (drawn[:, first] != wide)][:300]
    alone = np.array([[pool, 1, 1, 1, 1, 1], [wide, 1, 1, 1, 1, 1]])
    alone[1, onward] = none
    codes = np.vstack([kept, alone])
    rng = np.random.default_rng(1)
    truth = rng.normal(0.0, 0.5e-3, design.n_coefficients)
    truth[0] = 10e-3
    y = design.rows(space.used_codes(codes)) @ truth + rng.normal(0.0, 0.05e-3, len(codes))
    plain = additive(design, codes, y)
    pruned = additive(design, space.used_codes(codes), y)
    assert len(plain.heldout) == len(pruned.heldout) == len(y) - 1
    assert with_interactions(plain, y).drops_unused is False
