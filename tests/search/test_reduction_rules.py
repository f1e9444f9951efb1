"""Every rule of the reducer just within and just beyond its documented threshold.

Effects are exact, so bounds are the effects themselves. Networks take 10 ms; each of the three
units holds its layers with P = 1, 2/3, 1/3, six layers in all, so W = 6 β for equal β.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.responses import Friendliness, Response
from hwprof.interval import Interval
from hwprof.search.reducing import reduction_rules as rules
from hwprof.search.reducing.evidence import Evidence
from hwprof.search.reducing.reduction_rules import Proposal
from hwprof.space import SKIP, Slot, get_space
from tests.search.planted import BLOCKS, LAST, MINI, coefficients

ALL = (*BLOCKS, LAST)
MEAN_MS = 10.0
FASTEST_MS = MEAN_MS - 3 * (2 / 3 + 1 / 3)
"""Without the layers that are optional, of 1 ms, where blocks are equal."""


def evidence(
    ms: Mapping[str, float],
    pct: Mapping[str, float],
    *,
    deepest_ms: tuple[float, float, float] = (1.0, 1.0, 1.0),
    deepest_pct: tuple[float, float, float] = (0.5, 0.5, 0.5),
    name: str = MINI,
    sd_ms: float = 0.0,
    degrees: float = np.inf,
    target_ms: float | None = None,
) -> Evidence:
    """Blocks that take so many ms (and give so many points) more when they stand everywhere.

    Optional layers take 1 ms and give 0.5 points, the deepest of each unit as is said.
    """
    space = get_space(name)
    design = DesignMatrix(space)
    seconds = coefficients(design, MEAN_MS / 1e3, 1e-3, {b: v / 6e3 for b, v in ms.items()})
    points = coefficients(design, 70.0, 0.5, {b: v / 6.0 for b, v in pct.items()})
    for decision in design.decisions:
        if decision.slot is not None and decision.has_depth and name == MINI:
            unit, layer = decision.slot
            if layer + 1 == space.max_depth[unit]:
                seconds[decision.columns.start] = deepest_ms[unit] / 1e3
                points[decision.columns.start] = deepest_pct[unit]

    def response(free: np.ndarray, sd: float) -> Response:
        # Errors of blocks everywhere, independent of each other.
        everywhere = np.array([t.kind == "network" for t in design.terms])
        return Response(
            values=design.expansion @ free,
            covariance=np.diag(np.where(everywhere, sd**2, 0.0)),
            even_covariance=np.zeros((len(design.terms),) * 2),
            degrees=degrees,
            n_networks=200,
            mean=Interval(free[0], free[0], free[0]),
        )

    latency, accuracy = response(seconds, sd_ms / 1e3), response(points, 0.0)
    counts = np.full(len(design.terms), 50)
    return Evidence(
        space=space,
        friendliness=Friendliness.of(design, latency, accuracy, counts),
        target_s=None if target_ms is None else (0.0, target_ms / 1e3),
    )


def blocks(proposals: list[Proposal]) -> list[str | None]:
    return [p.drop.block for p in proposals]


@pytest.mark.parametrize(
    ("ms", "pct", "goes"),
    [
        (2.1, 0.0, True),
        (1.9, 0.0, False),  # a fifth of 10 ms is 2 ms
        (3.0, 1.45, True),
        (3.0, 1.55, False),  # depth buys 1.5 points with 3 ms
    ],
)
def test_r1_asks_for_a_fifth_of_the_mean_and_less_than_depth_buys(
    ms: float, pct: float, goes: bool
) -> None:
    found = rules.costly(evidence({LAST: ms, BLOCKS[1]: -0.05}, {LAST: pct}))
    assert blocks(found) == [LAST] * goes
    for proposal in found:
        assert proposal.instead == set(BLOCKS)
        assert proposal.saving_s == pytest.approx((ms + 0.05) / 1e3)  # against the fastest


def test_r1_takes_the_worst_rate_of_depth() -> None:
    """Of 0.3, 0.5 and 0.9 points a ms the least: 0.9 points for 3 ms."""
    for pct, goes in ((0.85, True), (0.95, False)):
        found = rules.costly(evidence({LAST: 3.0}, {LAST: pct}, deepest_pct=(0.9, 0.3, 0.5)))
        assert blocks(found) == [LAST] * goes
    free = evidence({}, {}, deepest_ms=(-0.1, 1.0, 1.0), deepest_pct=(0.1, 0.3, 0.5))
    assert free.rate == pytest.approx(300.0)  # a layer that takes no time sets no price
    assert [p.cap for p in rules.depth_caps(free, [])] == [(1, 2)]


@pytest.mark.parametrize(("degrees", "quantile"), [(np.inf, 1.6449), (5.0, 2.0150)])
def test_bounds_are_one_sided_95_percent(degrees: float, quantile: float) -> None:
    """The difference of two blocks with an error of 0.1 ms each errs by 0.1 ms times √2."""
    for off, goes in ((0.99, False), (1.01, True)):
        ms = 2.0 + off * quantile * 0.1 * 2**0.5
        found = rules.costly(evidence({LAST: ms}, {}, sd_ms=0.1, degrees=degrees))
        assert blocks(found) == [LAST] * goes


def test_r2_drops_the_least_accurate_third_where_no_block_is_slower_by_two_percent() -> None:
    pct = dict(zip(ALL, (0.1, -0.3, -0.1, -0.2, 0.2, 0.3), strict=True))
    assert blocks(rules.flat_device(evidence({LAST: 0.19}, pct))) == [ALL[1], ALL[3]]
    assert rules.flat_device(evidence({LAST: 0.21}, pct)) == []
    # Only one is below the average of all, by -0.5 + 0.1.
    one = dict.fromkeys(ALL, 0.1) | {ALL[2]: -0.5}
    assert blocks(rules.flat_device(evidence({}, one))) == [ALL[2]]


def test_r3_caps_units_whose_last_layer_buys_less_than_last_layers_on_average() -> None:
    """They buy 0.2, 0.5 and 0.8 points for 1 ms each: 0.5 on average."""
    found = evidence({}, {}, deepest_pct=(0.2, 0.501, 0.8))
    assert [p.cap for p in rules.depth_caps(found, [])] == [(0, 2)]
    found = evidence({}, {}, deepest_pct=(0.2, 0.499, 0.8))
    assert [p.cap for p in rules.depth_caps(found, [])] == [(0, 2), (1, 2)]


def test_r3_is_for_devices_on_which_r1_saves_less_than_a_fifth() -> None:
    """Without one of six blocks, that takes c more, a random network saves c / 6."""
    for ms, capped in ((11.9, True), (12.1, False)):
        found = evidence({LAST: ms}, {}, deepest_pct=(0.2, 0.5, 0.8))
        assert bool(rules.depth_caps(found, rules.costly(found))) == capped


def test_skipping_prices_depth_and_is_otherwise_no_rule_s_matter() -> None:
    """A layer of 1 ms that gives half a point; then one that only costs."""
    worth = evidence({SKIP: -6.0}, {SKIP: -3.0}, name="proxylessnas")
    assert worth.rate == pytest.approx(500.0)
    worthless = evidence({SKIP: -6.0}, {SKIP: 3.0}, name="proxylessnas")
    assert set(worthless.last_layers) == set(range(5))  # the sixth unit is one fixed layer
    assert rules.costly(worthless) == []
    assert rules.depth_caps(worthless, []) == []
    assert rules.dominated_in_slot(worthless) == []


def test_a_mean_that_is_not_known_is_guessed_from_the_fastest_network() -> None:
    found = evidence({LAST: 12.0}, {})
    latency = replace(found.latency, mean=None)
    guessed = replace(found, friendliness=replace(found.friendliness, latency=latency))
    assert found.fastest_s(found.whole) == pytest.approx((FASTEST_MS - 1.0) / 1e3)
    assert guessed.mean_latency_s == pytest.approx(2.0 * (MEAN_MS - FASTEST_MS + 1.0) / 1e3)


@pytest.mark.parametrize(
    ("us", "pct", "goes"),
    [
        (34.0, 0.0, True),
        (33.0, 0.0, False),  # 2 % of 10 ms over six layers is 33.3 µs
        (100.0, 0.049, True),
        (100.0, 0.051, False),  # depth buys 0.05 points with 0.1 ms
    ],
)
def test_r5_asks_for_a_flat_layer_s_worth_and_no_more_than_depth_buys(
    us: float, pct: float, goes: bool
) -> None:
    found = rules.dominated_in_slot(evidence({LAST: 6e-3 * us}, {LAST: 6.0 * pct}))
    places = [Slot(p.drop.unit or 0, p.drop.layer or 0) for p in found]
    assert places == list(get_space(MINI).slots) * goes
    assert set(blocks(found)) == {LAST} & set(blocks(found))


def test_r6_asks_for_a_fifth_of_the_mean_and_no_more_work() -> None:
    """k7 computes more than k3 at equal expansion, so only a k3 can be slow for its work."""
    small = BLOCKS[0]
    assert blocks(rules.slow_for_their_work(evidence({small: 2.1}, {}))) == [small]
    assert rules.slow_for_their_work(evidence({small: 1.9}, {})) == []
    assert rules.slow_for_their_work(evidence({LAST: 2.1}, {})) == []


def test_r7_drops_what_no_network_within_the_target_can_hold() -> None:
    """A block of 2 ms more, on top of the fastest network; equal ones are never dropped."""
    slower = {LAST: 12.0}
    fastest_ms = FASTEST_MS - 1.0  # its three layers take a sixth of 2 ms less than the average
    assert rules.too_slow(evidence(slower, {}, target_ms=fastest_ms + 2.01)) == []
    found = rules.too_slow(evidence(slower, {}, target_ms=fastest_ms + 1.99))
    assert {p.drop.block for p in found} == {LAST}
    assert len(found) == len(get_space(MINI).slots)
    assert rules.too_slow(evidence(slower, {})) == []
