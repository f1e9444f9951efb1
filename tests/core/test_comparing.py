"""Devices compared: published intervals, flips only where both signs are settled, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from hwprof.campaign import sample_networks
from hwprof.errors import IncompatibleRunError, PlanError
from hwprof.estimate.comparing import (
    DeviceEffects,
    EffectsComparison,
    compare_devices,
    rank_correlation,
)
from hwprof.estimate.design_matrix import DesignMatrix, Term
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Slot, get_space

SMALL, LARGE = "mbconv_k3_e3", "mbconv_k7_e6"


def tiny_space() -> DesignSpace:
    two = (SMALL, LARGE)
    alive = {Slot(*place): two for place in ((0, 0), (0, 1), (1, 0), (2, 0))}
    return get_space("mobile-mini").restrict(alive, (2, 1, 1))


@cache
def networks(n: int) -> list[Architecture]:
    return sample_networks(tiny_space(), 0, n)


def device(
    name: str, large_ms: dict[Slot, float], noise_ms: float = 0.01, seed: int = 0, n: int = 40
) -> DeviceEffects:
    """A device on which LARGE costs so many ms more than SMALL at every slot; layers cost 1 ms."""
    space, rng = tiny_space(), np.random.default_rng(seed)
    samples = []
    for arch in networks(n):
        total = 5.0 + rng.normal(0.0, noise_ms)
        for slot in space.slots:
            block = arch.block(slot)
            total += 0.0 if block is None else 1.0 + large_ms[slot] * (block == LARGE)
        samples.append(Sample(arch=arch, latency_s=total / 1e3))
    found = fit_friendliness(space, samples)
    return DeviceEffects(name=name, run=f"run-{name}", friendliness=found, samples=samples)


def cost(ms: float, **others: float) -> dict[Slot, float]:
    named = {Slot(int(k[1]), int(k[3])): v for k, v in others.items()}
    return {slot: named.get(slot, ms) for slot in tiny_space().slots}


def test_interval_of_a_rank_correlation_is_bonett_and_wright_s() -> None:
    # r = 0.8, n = 28: z = 1.0986 ± 1.96 · √(1.32 / 25) = 0.6482 … 1.5490 → tanh.
    a = np.arange(28.0)
    b = a.copy()
    rng = np.random.default_rng(3)
    b = b + rng.normal(0.0, 6.0, 28)
    r, interval = rank_correlation(a, b)
    assert r == pytest.approx(stats.spearmanr(a, b).statistic)
    assert interval is not None
    se = np.sqrt((1 + r**2 / 2) / 25)
    assert np.arctanh(interval.lo) == pytest.approx(np.arctanh(r) - 1.959964 * se, abs=1e-6)
    assert np.arctanh(interval.hi) == pytest.approx(np.arctanh(r) + 1.959964 * se, abs=1e-6)
    assert rank_correlation(a[:3], b[:3])[1] is None


def test_ranks_that_agree_throughout_leave_something_open() -> None:
    """Fisher's transform of 1 is infinite: five blocks in one order would be known for certain."""
    order = np.arange(5.0)
    for sign in (1.0, -1.0):
        r, interval = rank_correlation(order, sign * order)
        assert r == sign
        assert interval is not None
        assert interval.lo <= r <= interval.hi
        # 1 - 6 / 120, and 1.96 sqrt(1.5 / 2) to either side of its transform.
        expected = np.tanh(np.arctanh(0.95) - 1.959964 * 0.75**0.5)
        assert min(abs(interval.lo), abs(interval.hi)) == pytest.approx(expected)


def test_a_block_that_is_slow_here_and_fast_there_flips() -> None:
    here, there = device("here", cost(0.5)), device("there", cost(-0.5), seed=1)
    compared = compare_devices([here, there])
    everywhere = [f for f in compared.flips if f.slower.kind == "network"]
    assert {(f.slower.block, f.slower_on, f.faster_on) for f in everywhere} == {
        (LARGE, "here", "there"),
        (SMALL, "there", "here"),
    }
    assert len(compared.flips) == 2 + 2 * 4  # everywhere, and at each of four slots
    networks = next(c for c in compared.correlations if c.of == "networks")
    assert networks.n == len(here.samples)
    failed = [replace(there.samples[0], latency_s=None), *there.samples[1:]]
    for pair in ([here, replace(there, samples=failed)], [replace(there, samples=failed), here]):
        both = next(c for c in compare_devices(pair).correlations if c.of == "networks")
        assert both.n == len(here.samples) - 1
        assert np.isfinite(both.spearman)
    of_blocks = next(c for c in compared.correlations if c.of == "block")
    assert of_blocks.spearman < -0.5
    assert of_blocks.n == 8


def test_nothing_flips_where_one_sign_is_not_settled() -> None:
    here = device("here", cost(0.5))
    unsure = device("unsure", cost(-0.02), noise_ms=1.0, seed=2)
    # Signs do oppose each other; they are not settled.
    blocks = [i for i, e in enumerate(here.friendliness.effects) if e.kind in ("block", "network")]
    both = here.friendliness.latency.values * unsure.friendliness.latency.values
    assert (both[blocks] < 0.0).any()
    compared = compare_devices([here, unsure])
    assert compared.flips == ()


def test_only_the_slot_that_flips_is_named() -> None:
    here = device("here", cost(0.5))
    there = device("there", cost(0.5, u1l0=-0.5), seed=1)
    at_slots = [f for f in compare_devices([here, there]).flips if f.slower.kind == "block"]
    assert {(f.slower.unit, f.slower.layer) for f in at_slots} == {(1, 0)}


def test_flips_are_rare_where_both_devices_are_alike() -> None:
    families = 0
    for seed in range(30):
        pair = [
            device(name, cost(0.0), noise_ms=0.5, seed=1000 + 2 * seed + i)
            for i, name in enumerate(("a", "b"))
        ]
        families += bool(compare_devices(pair).flips)
    # 5 % a kind at most: 30 draws at 10 % exceed 9 with a probability of 0.05 %.
    assert families <= 9


def test_differences_between_runs_are_named() -> None:
    here = device("here", cost(0.5))
    other = replace(here.friendliness, space=get_space("mobile-mini", 64))
    with pytest.raises(IncompatibleRunError, match=r"resolution_px is 32 in the first and 64"):
        compare_devices([here, replace(here, name="b", friendliness=other)])
    other = replace(here.friendliness, space=get_space("proxylessnas"))
    with pytest.raises(IncompatibleRunError, match=r"space is 'mobile-mini'.*'proxylessnas'"):
        compare_devices([here, replace(here, name="b", friendliness=other)])
    three = {Slot(1, 0): (SMALL, "mbconv_k5_e3", LARGE)}
    alive = {**tiny_space().alive, **three}
    other = replace(here.friendliness, space=get_space("mobile-mini").restrict(alive, (2, 1, 1)))
    with pytest.raises(IncompatibleRunError, match=r"candidates at u1\.l0 is"):
        compare_devices([here, replace(here, name="b", friendliness=other)])
    with pytest.raises(PlanError, match="at least two"):
        compare_devices([here])
    with pytest.raises(PlanError, match="alike"):
        compare_devices([here, here])


def test_table_holds_every_effect_of_every_device() -> None:
    compared = compare_devices([device("here", cost(0.5)), device("there", cost(-0.5), seed=1)])
    frame = compared.to_frame()
    terms = DesignMatrix(tiny_space()).terms
    assert list(frame.columns[:3]) == ["device", "kind", "unit"]
    assert len(frame) == 2 * len(terms)
    assert Term(kind="network", block=LARGE) in terms
    json.dumps(compared.to_json(), allow_nan=False)
    assert isinstance(compared, EffectsComparison)
    assert "here" in compared._repr_html_()
