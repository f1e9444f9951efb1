"""Ten networks make a model of a new device: on simulated devices, and on real ones held out."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof.errors import DataError, IncompatibleRunError, SpaceError
from hwprof.estimate import transfer
from hwprof.estimate.crossval import spearman
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.transfer import Donors, adapt_model, choose_networks
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Slot, get_space

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
COLUMNS = ("1080ti_1", "1080ti_256", "titan_rtx_32", "gold_6226", "pixel3", "eyeriss", "samsung_s7")
SPACE = get_space("mobile-mini")


@lru_cache
def random_networks(n: int = 300, seed: int = 9) -> tuple[Architecture, ...]:
    rng = np.random.default_rng(seed)
    return tuple(SPACE.sample(rng) for _ in range(n))


@lru_cache
def coefficients(seed: int, mean_s: float = 0.01, shift: float = 0.3) -> np.ndarray:
    """Return a device: a base that all devices have in common, and an own part."""
    n = DesignMatrix(SPACE).n_coefficients - 1
    base = np.random.default_rng(100).normal(0.0, 0.05, n)
    own = np.random.default_rng(seed).normal(0.0, 0.05 * shift, n)
    return mean_s * np.concatenate([[1.0], base + own])


def samples_of(device: np.ndarray, archs: tuple[Architecture, ...] | list[Architecture], noise: float, seed: int = 0) -> list[Sample]:  # fmt: skip
    design, rng = DesignMatrix(SPACE), np.random.default_rng(seed)
    y = design.rows(design.encode(archs)) @ device
    y = y * (1.0 + rng.normal(0.0, noise, len(y)))
    return [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=True)]


@lru_cache
def donors(n: int = 4, shift: float = 0.3) -> Donors:
    networks = random_networks()
    return Donors(
        models=tuple(
            AdditiveLatencyModel.fit(
                SPACE, samples_of(coefficients(seed, 0.01 * (1 + seed), shift), networks, 0.01)
            )
            for seed in range(n)
        )
    )


def test_a_slower_copy_of_a_donor_is_rescaled() -> None:
    known = donors(1)
    device = 3.0 * known.models[0].coefficients
    ten = choose_networks(known, 10, np.random.default_rng(0))
    model = adapt_model(known, samples_of(device, ten, 0.0))
    predicted, half = model.predict_many(random_networks(200, 5))
    design = DesignMatrix(SPACE)
    actual = design.rows(design.encode(random_networks(200, 5))) @ device
    np.testing.assert_allclose(predicted, actual, rtol=0.01)
    assert (half > 0.0).all()
    np.testing.assert_allclose(model.coefficients[0], device[0], rtol=0.01)


def test_intervals_cover_unmeasured_networks() -> None:
    known = donors()
    fresh = list(random_networks(150, 6))
    covered, errors, ignorant = [], [], []
    for seed in range(50, 60):
        device = coefficients(seed)
        ten = choose_networks(known, 10, np.random.default_rng(seed))
        model = adapt_model(known, samples_of(device, ten, 0.02, seed))
        actual = np.array([s.latency_s for s in samples_of(device, fresh, 0.02, seed + 1)])
        predicted, half = model.predict_many(fresh)
        covered.append(np.mean(np.abs(predicted - actual) <= half))
        errors.append(np.median(np.abs(predicted - actual)))
        scale = np.median(actual) / np.median(known.models[0].predict_many(fresh)[0])
        ignorant.append(np.median(np.abs(scale * known.models[0].predict_many(fresh)[0] - actual)))
    assert np.mean(covered) >= 0.90
    assert np.mean(errors) < np.mean(ignorant)


def test_what_sessions_differ_by_widens_every_interval() -> None:
    """Networks timed within minutes are off alike, so that no residual shows it.

    The rest of their errors is in the residuals already.
    """
    known = donors()
    ten = choose_networks(known, 10, np.random.default_rng(0))
    timed = samples_of(coefficients(60), ten, 0.01)
    exact = adapt_model(known, timed)
    open_ = adapt_model(
        known,
        [replace(s, latency_se_s=0.05 * (s.latency_s or 0.0), session_sd=0.03) for s in timed],
    )
    fresh = list(random_networks(50, 6))
    predicted, half = exact.predict_many(fresh)
    again, wider = open_.predict_many(fresh)
    assert again == pytest.approx(predicted)
    assert wider == pytest.approx(np.hypot(half, 1.96 * 0.03 * predicted), rel=1e-3)


def test_chosen_networks_are_distinct_spread_and_repeat_with_the_seed() -> None:
    known = donors()
    ten = choose_networks(known, 10, np.random.default_rng(3))
    assert len({a.arch_id for a in ten}) == 10
    assert ten == choose_networks(known, 10, np.random.default_rng(3))
    design = DesignMatrix(SPACE)
    chosen = design.rows(design.encode(ten)) @ known.mean
    everything = design.rows(design.encode(random_networks())) @ known.mean
    low, high = np.quantile(everything, [0.05, 0.95])
    assert chosen.min() < low
    assert chosen.max() > high


def test_what_would_be_extrapolated_is_refused() -> None:
    known = donors()
    ten = choose_networks(known, 10, np.random.default_rng(0))
    device = coefficients(77)
    with pytest.raises(DataError, match="at least 5"):
        adapt_model(known, samples_of(device, ten[:4], 0.01))
    middle = [a for a in random_networks() if abs(known.models[0].predict_s(a)[0] / known.models[0].coefficients[0] - 1.0) < 0.02]  # fmt: skip
    with pytest.raises(DataError, match="extrapolated"):
        adapt_model(known, samples_of(device, middle[:10], 0.01))
    with pytest.raises(DataError, match="at least 5"):
        choose_networks(known, 3, np.random.default_rng(0))


def test_blocks_that_no_donor_knows_are_refused() -> None:
    slot, block = Slot(0, 0), SPACE.choices(Slot(0, 0))[0]
    archs = [a for a in random_networks() if a.block(slot) != block]
    ignorant = AdditiveLatencyModel.fit(SPACE, samples_of(coefficients(0), archs, 0.01))
    known = Donors(models=(ignorant, donors().models[1]))
    ten = choose_networks(known, 10, np.random.default_rng(0))
    assert all(a.block(slot) != block for a in ten)
    model = adapt_model(known, samples_of(coefficients(5), ten, 0.01))
    strange = next(a for a in random_networks() if a.block(slot) == block)
    with pytest.raises(SpaceError, match=r"mbconv_k3_e3 at u0\.l0 stood in none"):
        model.predict_s(strange)


def test_a_device_that_runs_no_unused_block_is_recognised() -> None:
    """Donors run every edge of a cell; the new device only those that lead to the output."""
    space = get_space("nasbench201")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(400)]
    codes = design.encode(archs)
    used = space.used_codes(codes)
    assert 0.2 < np.mean((used != codes).any(axis=1)) < 0.5
    base = rng.normal(0.0, 0.1, design.n_coefficients)
    base[0] = 1.0

    def measured(which: np.ndarray, seed: int, noise: float = 0.02) -> list[Sample]:
        own = np.random.default_rng(seed).normal(0.0, 0.03, len(base)) * (np.arange(len(base)) > 0)
        y = design.rows(which) @ (base + own)
        y = 0.01 * y * (1.0 + np.random.default_rng(seed + 100).normal(0.0, noise, len(y)))
        pairs = zip(design_archs[len(which)], y, strict=True)
        return [Sample(arch=a, latency_s=float(v)) for a, v in pairs]

    design_archs = {len(codes): archs}
    models = tuple(AdditiveLatencyModel.fit(space, measured(codes, seed)) for seed in range(3))
    assert not any(model.drops_unused for model in models)
    known = Donors(models=models)
    ten = choose_networks(known, 10, np.random.default_rng(1))
    design_archs[10] = ten
    written = design.encode(ten)
    pruned = space.used_codes(written)
    assert (pruned != written).any(axis=1).sum() >= 2
    assert not adapt_model(known, measured(written, 50)).drops_unused
    model = adapt_model(known, measured(pruned, 50))
    assert model.drops_unused
    predicted, half = model.predict_encoded(codes)
    actual = np.array([s.latency_s for s in measured(used, 50)])
    assert spearman(predicted, actual) > 0.95
    assert np.mean(np.abs(predicted - actual) <= half) >= 0.90


def test_a_network_left_out_does_not_say_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One network alone has unused edges: without it nothing tells that such are not run."""
    monkeypatch.setattr(transfer, "CONVINCED", -np.inf)
    space = get_space("nasbench201")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(400)]
    codes = design.encode(archs)
    truth = rng.normal(0.0, 0.05, design.n_coefficients)
    truth[0] = 1.0
    y = 0.01 * (design.rows(codes) @ truth) * (1.0 + rng.normal(0.0, 0.01, len(archs)))
    samples = [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=True)]
    known = Donors(models=(AdditiveLatencyModel.fit(space, samples),))
    is_whole = (space.used_codes(codes) == codes).all(axis=1)
    whole = [i for i in np.argsort(y) if is_whole[i]]
    nine = [samples[whole[j]] for j in np.linspace(0, len(whole) - 1, 9).astype(int)]
    one = samples[int(np.argmin(is_whole))]
    model, without = adapt_model(known, [*nine, one]), adapt_model(known, nine)
    assert (model.drops_unused, without.drops_unused) == (True, False)
    latency_s, half_s = without.predict_s(one.arch)
    assert model.heldout[-1].predicted_s == pytest.approx(latency_s, rel=1e-9)
    assert model.heldout[-1].half_s == pytest.approx(half_s, rel=1e-6)


def test_donors_have_to_be_of_one_space() -> None:
    other: DesignSpace = SPACE.at_resolution(64)
    design = DesignMatrix(other)
    archs = [other.sample(np.random.default_rng(i)) for i in range(60)]
    y = design.rows(design.encode(archs)) @ coefficients(0)
    model = AdditiveLatencyModel.fit(
        other, [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=True)]
    )
    with pytest.raises(IncompatibleRunError, match="32 px and of mobile-mini at 64 px"):
        Donors(models=(donors().models[0], model))
    with pytest.raises(DataError, match="--from"):
        Donors(models=())


@pytest.mark.skipif(
    not (DATA / "nb201_latency.csv.gz").exists(), reason="needs ../shared/data/nb201_latency.csv.gz"
)
def test_real_devices_held_out_in_turn() -> None:
    """HELP (Lee et al. 2021) reports 0.932 on average from ten networks; the bar here is 0.95.

    Samsung S7 cannot reach it: its two latencies of 1,500 pairs of cells that are one and the same
    network have a rank correlation of 0.87, so what is there to predict has 0.93 (the root).
    Pixel 3 does not run what nothing uses, the other six do.
    """
    table = pd.read_csv(DATA / "nb201_accuracy.csv.gz")[["index", "arch"]].merge(
        pd.read_csv(DATA / "nb201_latency.csv.gz"), on="index"
    )
    space = get_space("nasbench201")
    archs = [Architecture(space=space.name, resolution_px=32, cell=cell) for cell in table["arch"]]
    place = {arch.cell: i for i, arch in enumerate(archs)}
    codes = DesignMatrix(space).encode(archs)
    latency_s = {name: table[f"{name}_ms"].to_numpy() / 1e3 for name in COLUMNS}
    some = np.random.default_rng(0).choice(len(archs), 500, replace=False)

    def samples(name: str, rows: np.ndarray | list[int]) -> list[Sample]:
        return [Sample(arch=archs[i], latency_s=float(latency_s[name][i])) for i in rows]

    models = {name: AdditiveLatencyModel.fit(space, samples(name, some)) for name in COLUMNS}
    ranks, covered, pruning = {}, [], set()
    for name in COLUMNS:
        known = Donors(models=tuple(models[other] for other in COLUMNS if other != name))
        rows = [place[a.cell] for a in choose_networks(known, 10, np.random.default_rng(0))]
        rest = np.setdiff1d(np.arange(len(archs)), rows)
        model = adapt_model(known, samples(name, rows))
        pruning |= {name} if model.drops_unused else set()
        predicted, half = model.predict_encoded(codes[rest])
        covered.append(np.mean(np.abs(predicted - latency_s[name][rest]) <= half))
        ranks[name] = spearman(predicted, latency_s[name][rest])
    assert np.mean(list(ranks.values())) >= 0.95
    assert {name for name, rank in ranks.items() if rank < 0.95} <= {"samsung_s7"}
    assert pruning == {"pixel3"}
    assert np.mean(covered) >= 0.90
