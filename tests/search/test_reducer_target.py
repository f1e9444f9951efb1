"""A latency range in focus: what cannot be in it goes, what it needs stays, the rest is free."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from hwprof.errors import PlanError
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.responses import Friendliness
from hwprof.search.reducing.additive_front import Alternatives, PriceSweep
from hwprof.search.reducing.evidence import Evidence
from hwprof.search.reducing.reducer import reduce_space
from hwprof.space import DesignSpace, Slot, get_space
from tests.search.planted import coefficients, measured

FAST, MIDDLE, SLOW = "mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3"
COST_S = {FAST: 0.0, MIDDLE: 1e-3, SLOW: 6e-3}


def small_space() -> DesignSpace:
    base = get_space("mobile-mini").restrict({}, (2, 1, 1))
    return base.restrict(dict.fromkeys(base.slots, (FAST, MIDDLE, SLOW)))


def device() -> tuple[Friendliness, np.ndarray]:
    """Layers of 2 ms; blocks of 0, 1 and 6 ms more, each worth its time; hardly any noise."""
    space = small_space()
    design = DesignMatrix(space)
    seconds = coefficients(design, 20e-3, 2e-3, COST_S)
    points = coefficients(design, 70.0, 1.0, {b: 2e3 * s for b, s in COST_S.items()})
    found = measured(space, seconds, points, seed=1, noise_s=1e-6, noise_pct=0.01)
    return found, seconds


def every_latency(space: DesignSpace, seconds: np.ndarray) -> list[tuple[list[str], float]]:
    """Return the blocks (with place) and the latency of every network, by enumeration."""
    design = DesignMatrix(space)
    out = []
    for depth in (1, 2):
        slots = [Slot(0, 0), *([Slot(0, 1)] * (depth == 2)), Slot(1, 0), Slot(2, 0)]
        for blocks in itertools.product((FAST, MIDDLE, SLOW), repeat=len(slots)):
            codes = np.full((1, len(space.slots)), -1)
            for slot, block in zip(slots, blocks, strict=True):
                codes[0, space.slots.index(slot)] = space.choices(slot).index(block)
            latency = float(design.predictions(seconds, codes)[0])
            names = [f"{block} at {slot}" for slot, block in zip(slots, blocks, strict=True)]
            out.append((names, latency))
    return out


def test_blocks_that_only_slower_networks_hold_are_dropped() -> None:
    found, seconds = device()
    networks = every_latency(found.space, seconds)
    fastest = min(latency for _, latency in networks)
    evidence = Evidence(space=found.space, friendliness=found)
    assert evidence.fastest_s(evidence.whole) == pytest.approx(fastest, rel=1e-3)
    limit = fastest + 4e-3
    reduction = reduce_space(found.space, found, target_s=(0.0, limit))
    gone = {f"{d.block} at {Slot(d.unit or 0, d.layer or 0)}" for d in reduction.drops}
    possible = {name for names, latency in networks if latency <= limit for name in names}
    # A slot that not every network has may keep a block that is over the target with its layer.
    assert gone == {f"{SLOW} at {slot}" for slot in found.space.slots}
    assert not gone & possible
    assert all(d.rule == "R7 over the target" for d in reduction.drops)
    for drop in reduction.drops:
        # 6 ms more than the fastest network, which is itself within the target.
        said = re.search(r"with it a network takes ([\d.]+) ms at least", drop.why)
        assert said is not None
        assert float(said[1]) == pytest.approx(1e3 * (fastest + 6e-3), rel=0.01)
    assert any("focused on networks" in note for note in reduction.notes)


def test_no_cut_leaves_the_range_without_a_network() -> None:
    found, seconds = device()
    fastest = min(latency for _, latency in every_latency(found.space, seconds))
    target = (0.0, fastest + 0.5e-3)
    reduction = reduce_space(found.space, found, target_s=target)
    left = Alternatives(alive=dict(reduction.alive), max_depth=reduction.max_depth)
    full = Alternatives(alive=found.space.alive, max_depth=found.space.max_depth)
    evidence = Evidence(space=found.space, friendliness=found)
    assert evidence.fastest_s(left) == pytest.approx(evidence.fastest_s(full))


def test_losses_outside_the_range_do_not_count() -> None:
    found, seconds = device()
    design = found.design
    assert found.accuracy is not None
    sweep = PriceSweep(design, found.latency.values, found.accuracy.values[None])
    whole = Alternatives(alive=found.space.alive, max_depth=found.space.max_depth)
    without = Alternatives(
        alive=dict.fromkeys(found.space.slots, (FAST, MIDDLE)), max_depth=found.space.max_depth
    )
    full, reduced = sweep.support(whole), sweep.support(without)
    everywhere = float(sweep.loss(full, reduced)[0])
    evidence = Evidence(space=found.space, friendliness=found)
    fastest = min(latency for _, latency in every_latency(found.space, seconds))
    low = (fastest - evidence.offset_s, fastest + 0.5e-3 - evidence.offset_s)
    # Effects of a slot, centred, are -4.67, -2.67 and 7.33 points. Where time is free three slots
    # lose 10; the optional one gave 7.33 and its layer's 1, which the rest no longer makes worth it.
    assert everywhere == pytest.approx(3 * 10.0 + 22.0 / 3.0 + 1.0, rel=1e-3)
    assert float(sweep.loss(full, reduced, low)[0]) == pytest.approx(0.0, abs=0.1)


def test_targets_that_cannot_be_met_are_refused() -> None:
    found, _ = device()
    with pytest.raises(PlanError, match="no network reaches the target"):
        reduce_space(found.space, found, target_s=(0.0, 1e-3))
    with pytest.raises(PlanError, match="expected a range such as 15-20"):
        reduce_space(found.space, found, target_s=(30e-3, 20e-3))


def test_a_layer_that_can_only_be_skipped_is_no_hindrance() -> None:
    whole = get_space("proxylessnas")
    left = {slot: whole.choices(slot)[-2:] for slot in whole.slots} | {Slot(0, 1): ("skip",)}
    space = whole.restrict(left)
    design = DesignMatrix(space)
    found = measured(
        space, coefficients(design, 20e-3, 0.0, {}), coefficients(design, 70.0, 0.0, {}), seed=0
    )
    assert reduce_space(space, found, target_s=(0.0, 21e-3)).alive[Slot(0, 1)] == ("skip",)
