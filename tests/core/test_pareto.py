"""Pareto arithmetic against definitions, brute force and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprof.errors import DataError
from hwprof.pareto import (
    crowding_distances,
    domination_ranks,
    front_indices,
    hypervolume,
    spread_indices,
)

# Few distinct values, so that ties in one goal and equal points are common.
Points = list[tuple[int, int]]

POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40)


def split(points: Points) -> tuple[list[float], list[float]]:
    return [float(t) for t, _ in points], [float(a) for _, a in points]


def dominates(p: tuple[int, int], q: tuple[int, int]) -> bool:
    return p[0] <= q[0] and p[1] >= q[1] and p != q


def brute_front(points: Points) -> set[int]:
    """Apply the definition: at least as good in both; of equal points the first stays."""
    return {
        i
        for i, p in enumerate(points)
        if not any(dominates(q, p) for q in points) and p not in points[:i]
    }


@given(POINTS)
def test_front_is_what_the_definition_says(points: Points) -> None:
    found = front_indices(*split(points))
    assert set(found) == brute_front(points)
    assert [points[i][0] for i in found] == sorted({points[i][0] for i in found})


@given(POINTS)
def test_ranks_are_the_fronts_peeled_off_one_by_one(points: Points) -> None:
    ranks = domination_ranks(*split(points)).tolist()
    left, rank = dict(enumerate(points)), 0
    while left:
        front = {i for i, p in left.items() if not any(dominates(q, p) for q in left.values())}
        assert {i for i in left if ranks[i] == rank} == front
        left = {i: p for i, p in left.items() if i not in front}
        rank += 1


@given(POINTS)
def test_hypervolume_counts_the_unit_squares_that_are_dominated(points: Points) -> None:
    # With whole-number points the dominated region is a union of unit squares.
    area = sum(any(t <= x and a >= y + 1 for t, a in points) for x in range(9) for y in range(9))
    assert hypervolume(*split(points), reference=(9.0, 0.0)) == pytest.approx(area)


@given(POINTS, st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_a_further_point_never_shrinks_the_hypervolume(
    points: Points, extra: tuple[int, int]
) -> None:
    before = hypervolume(*split(points), reference=(9.0, -1.0))
    after = hypervolume(*split([*points, extra]), reference=(9.0, -1.0))
    dominated = any(dominates(p, extra) or p == extra for p in points)
    assert (after == pytest.approx(before)) if dominated else (after > before)


def test_hypervolume_of_hand_made_fronts() -> None:
    assert hypervolume([2.0], [70.0], (5.0, 60.0)) == 30.0
    # Rectangles: 2 to 4 is 10 high, 4 to 5 is 15 high.
    assert hypervolume([2.0, 4.0], [70.0, 75.0], (5.0, 60.0)) == 2 * 10 + 1 * 15
    assert hypervolume([2.0, 6.0], [70.0, 99.0], (5.0, 60.0)) == 30.0, "too slow adds nothing"
    assert hypervolume([2.0, 1.0], [70.0, 60.0], (5.0, 60.0)) == 30.0, "too inaccurate adds nothing"
    assert hypervolume([], [], (5.0, 60.0)) == 0.0


def test_order_of_the_front_and_of_equal_points() -> None:
    assert front_indices([3.0, 1.0, 2.0, 1.0], [9.0, 5.0, 7.0, 5.0]) == [1, 2, 0]
    assert domination_ranks([1.0, 1.0, 2.0], [5.0, 5.0, 5.0]).tolist() == [0, 0, 1]
    assert front_indices([], []) == []


def test_crowding_by_hand() -> None:
    # Ranges 4 and 8: the inner points have neighbours 2 apart of 4 (and 3), 4 (and 7) of 8.
    found = crowding_distances([0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 4.0, 8.0])
    assert found.tolist() == [math.inf, 2 / 4 + 4 / 8, 3 / 4 + 7 / 8, math.inf]
    assert crowding_distances([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])[1] == 0.0
    assert crowding_distances([], []).size == 0


@given(POINTS, st.integers(0, 12))
def test_spread_keeps_both_ends_and_never_repeats_a_point(points: Points, n: int) -> None:
    chosen = [points[i] for i in spread_indices(*split(points), n)]
    assert len(chosen) == len(set(chosen)) == min(n, len(set(points)))
    if chosen:
        assert chosen[0][1] == max(a for _, a in points)
    if len(chosen) > 1:
        assert min(t for t, _ in chosen) == min(t for t, _ in points)


def test_spread_takes_the_middle_third() -> None:
    latency = np.linspace(0.0, 1.0, 101)
    assert spread_indices(latency, latency, 5) == [100, 0, 50, 25, 75]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_thousands_of_points_agree_with_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    latency, accuracy = rng.random(3000), rng.random(3000)
    ranks = domination_ranks(latency, accuracy)
    assert set(np.flatnonzero(ranks == 0)) == set(front_indices(latency, accuracy))
    # On every further front each point has someone of the front before it that dominates it.
    for rank in range(1, int(ranks.max()) + 1):
        before = ranks == rank - 1
        for i in np.flatnonzero(ranks == rank)[:5]:
            assert np.any((latency[before] <= latency[i]) & (accuracy[before] >= accuracy[i]))


@pytest.mark.parametrize(
    ("latency", "accuracy"),
    [([math.nan], [1.0]), ([1.0], [math.inf]), ([1.0, 2.0], [1.0]), ([[1.0]], [[1.0]])],
)
@pytest.mark.parametrize("function", [front_indices, domination_ranks, crowding_distances])
def test_what_is_no_number_is_refused(
    function: Callable[[Any, Any], object], latency: object, accuracy: object
) -> None:
    with pytest.raises(DataError, match=r"expected|leave out"):
        function(latency, accuracy)
