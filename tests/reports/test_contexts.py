"""Blocks alone against blocks in a network, centred on their slots."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hwprof.interval import Interval
from hwprof.reports import IsolatedBlock
from hwprof.reports.contexts import centred, context_rows, context_summary, largest_gaps
from hwprof.reports.tables import block_costs
from hwprof.space import Slot
from tests.made import block_effect


def test_isolated_and_in_context_are_both_centred_on_their_slot():
    isolated = [
        IsolatedBlock(slot=Slot(0, 0), block=b, isolated_hot_s=Interval(v, v - 1e-5, v + 1e-5))
        for b, v in (("a", 3e-3), ("b", 5e-3), ("only_alone", 100.0))
    ]
    effects = (
        block_effect(0, 0, "a", -1.5e-3, 1e-5),
        block_effect(0, 0, "b", 0.5e-3, 1e-5),
        block_effect(0, 0, "only_in_context", 1.0e-3, 1e-5),
    )
    rows = context_rows(isolated, effects)
    assert [r.block for r in rows] == ["a", "b"]
    assert [r.isolated.value for r in rows] == pytest.approx([-1e-3, 1e-3])
    assert [r.in_context.value for r in rows] == pytest.approx([-1e-3, 1e-3])
    # Two blocks: Var(x − mean) = s²/4 + s²/4, so the half-width shrinks by √2.
    assert rows[0].isolated.half_width == pytest.approx(1e-5 / 2**0.5)
    assert not any(r.disagrees for r in rows)
    summary = context_summary(rows)
    assert summary is not None
    assert summary.slope == pytest.approx(1.0)


def isolated_block(block: str, value: float, own: float, session: str) -> IsolatedBlock:
    """Return a block whose session may be 2 % off."""
    half = math.hypot(own, 0.02 * value)
    return IsolatedBlock(
        slot=Slot(0, 0),
        block=block,
        isolated_hot_s=Interval(value, value - half, value + half),
        session_half_s={session: 0.02 * value},
    )


def test_what_a_session_does_to_all_blocks_alike_is_no_error_of_their_differences():
    alike = {b: isolated_block(b, v, 1e-5, "w0") for b, v in (("a", 9e-3), ("b", 11e-3))}
    # 2 % of the 1 ms that a block lies from the mean, and the blocks' own errors.
    assert centred(alike)["a"].half_width == pytest.approx(math.hypot(2e-5, 1e-5 / 2**0.5))
    apart = {b: replace(row, session_half_s={b: 2e-4}) for b, row in alike.items()}
    assert centred(apart)["a"].half_width > 1e-4


def test_blocks_that_isolated_timing_misjudges_are_named():
    values = (("a", 1e-3, 3e-3), ("b", 2e-3, 2e-3), ("c", 3e-3, 1e-3))
    isolated = [
        IsolatedBlock(slot=Slot(0, 0), block=b, isolated_hot_s=Interval(v, v - 1e-5, v + 1e-5))
        for b, v, _ in values
    ]
    effects = tuple(block_effect(0, 0, b, v - 2e-3, 1e-5) for b, _, v in values)
    rows = context_rows(isolated, effects)
    assert {r.block for r in largest_gaps(rows)} == {"a", "c"}
    summary = context_summary(rows)
    assert summary is not None
    assert summary.slope == pytest.approx(-1.0)
    assert summary.correlation == pytest.approx(-1.0)


def test_the_worst_of_many_gaps_come_first():
    times = (("a", 1e-3, -0.5e-3), ("b", 2e-3, 2e-3), ("c", 3e-3, -1.5e-3))
    isolated = [
        IsolatedBlock(slot=Slot(0, 0), block=b, isolated_hot_s=Interval(v, v - 1e-5, v + 1e-5))
        for b, v, _ in times
    ]
    rows = context_rows(isolated, tuple(block_effect(0, 0, b, v, 1e-5) for b, _, v in times))
    # Gaps of 0.5, 2 and -2.5 ms.
    assert [r.block for r in largest_gaps(rows)] == ["c", "b", "a"]
    assert [r.block for r in largest_gaps(rows, 1)] == ["c"]


def test_a_slot_with_one_common_block_says_nothing():
    isolated = [IsolatedBlock(slot=Slot(0, 0), block="a", isolated_hot_s=Interval(1, 1, 1))]
    assert context_rows(isolated, (block_effect(0, 0, "a", 0.0, 1e-5),)) == ()
    assert context_summary(()) is None


def test_a_block_without_another_at_its_slot_keeps_its_row(bare_data):
    """Nothing can be centred there, but what it takes alone was measured."""
    isolated = [
        IsolatedBlock(slot=Slot(*place), block=b, isolated_hot_s=Interval(v, v - 1e-5, v + 1e-5))
        for place, b, v in (((1, 0), "fixed", 7e-3), ((0, 0), "a", 3e-3), ((0, 0), "b", 5e-3))
    ]
    effects = (
        block_effect(0, 0, "a", -1e-3, 1e-5),
        block_effect(0, 0, "b", 1e-3, 1e-5),
        block_effect(1, 0, "fixed", 0.0, 0.0),
    )
    rows = block_costs(replace(bare_data, isolated=tuple(isolated), effects=effects))
    assert [(r["unit"], r["block"]) for r in rows] == [(0, "a"), (0, "b"), (1, "fixed")]
    assert [r["isolated_hot_s"] for r in rows] == [3e-3, 5e-3, 7e-3]
    assert [r["gap_s"] for r in rows] == [pytest.approx(0.0), pytest.approx(0.0), None]
    assert rows[2]["isolated_s"] is None
    assert rows[2]["disagrees"] is None
