"""TE-NAS: ranks and pruning on stubbed indicators, interruptions, targets."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from hwprof.errors import IncompatibleRunError, PlanError, SpaceError
from hwprof.search.data.tasks import ImageTask
from hwprof.search.strategies.indicators import Indicators, TeNasConfig, Untrained
from hwprof.search.strategies.te_nas import (
    Pruned,
    Reach,
    dense_ranks,
    judge_removals,
    prune,
    search_te_nas,
)
from hwprof.space import Architecture, DesignSpace, Slot, get_space
from hwprof.space.nasbench201 import OPERATORS, parse_cell

pytestmark = pytest.mark.usefixtures("one_thread")
SPACE = get_space("nasbench201")
SKIP, ONE, THREE, POOL = OPERATORS[1:]
TWO_EDGES = SPACE.restrict(
    {Slot(0, edge): (SKIP, THREE, POOL) if edge < 2 else (SKIP,) for edge in range(6)}
)
CONFIG = TeNasConfig(channels=2, n_images=4, n_patches=50, repeats=2, seed=3)
COST_MS = {SKIP: 0.0, POOL: 0.5, ONE: 1.0, THREE: 3.0}


def of_table(table: dict[tuple[int, str], Indicators], whole: Indicators):
    """Indicators by what is missing: (edge, operator); ``whole`` where nothing is."""

    def indicate(
        space: DesignSpace, parts: Sequence[DesignSpace], seeds: Sequence[int]
    ) -> list[Indicators]:
        missing = [
            [
                (slot.layer, block)
                for slot in space.slots
                for block in space.choices(slot)
                if block not in part.choices(slot)
            ]
            for part in parts
        ]
        return [table[gone[0]] if gone else whole for gone in missing]

    return indicate


def test_ranks_are_dense_and_what_is_not_finite_comes_last() -> None:
    assert dense_ranks([0.3, -1.0, 0.3, math.inf, 2.0, math.nan]) == [1, 0, 1, 3, 2, 3]


def test_hand_worked_round() -> None:
    # Of κ 100 and R 50; shares fallen without each candidate, and their ranks:
    #   edge 0  skip κ 0.5 (0) R 0.0 (1) → 1;  3×3 κ −0.2 (3) R 0.4 (3) → 6;  pool κ 0.1 (2) R −0.1
    #   (0) → 2.  edge 1  skip κ 0.1 (2) R 0.4 (3) → 5;  3×3 κ inf (4) R 0.0 (1) → 5;  pool κ 0.2
    #   (1) R 0.1 (2) → 3.
    table = {
        (0, SKIP): Indicators(50.0, 50),
        (0, THREE): Indicators(120.0, 30),
        (0, POOL): Indicators(90.0, 55),
        (1, SKIP): Indicators(90.0, 30),
        (1, THREE): Indicators(math.inf, 50),
        (1, POOL): Indicators(80.0, 45),
    }
    removals = judge_removals(TWO_EDGES, of_table(table, Indicators(100.0, 50)), [(0,), (1,)])
    assert [r.rank for r in removals] == [1, 6, 2, 5, 5, 3]
    assert removals[1].condition_fall == -0.2
    assert removals[4].to_row()["condition_fall"] is None
    left, marked = prune(TWO_EDGES, removals, None)
    assert left.choices(Slot(0, 0)) == (THREE, POOL)
    assert left.choices(Slot(0, 1)) == (SKIP, THREE)
    assert [r.is_removed for r in marked] == [True, False, False, False, False, True]


def test_condition_of_the_whole_that_is_not_finite_leaves_the_regions_to_decide() -> None:
    table = {
        (edge, op): Indicators(10.0 * edge + place, 50 - place)
        for edge in range(2)
        for place, op in enumerate((SKIP, THREE, POOL))
    }
    removals = judge_removals(TWO_EDGES, of_table(table, Indicators(math.inf, 50)), [(0,)])
    assert [r.rank for r in removals] == [0, 1, 2, 0, 1, 2]


def latency(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
    """Edges add up, and a millisecond for the rest."""
    return [(1e-3 + 1e-3 * sum(COST_MS[op] for op in ops(a)), 0.0) for a in archs]


def ops(arch: Architecture) -> tuple[str, ...]:
    return parse_cell(arch.cell or "")


def wants_convolutions(
    space: DesignSpace, parts: Sequence[DesignSpace], seeds: Sequence[int]
) -> list[Indicators]:
    """The more 3×3 convolutions are left, the better; then 1×1."""

    def value(part: DesignSpace) -> float:
        shares = []
        for slot in part.slots:
            live = part.choices(slot)
            shares.append((3.0 * (THREE in live) + (ONE in live)) / len(live))
        return sum(shares)

    return [Indicators(100.0 / (1.0 + value(part)), int(1000 * value(part)) + 1) for part in parts]


def found(target_ms: float | None = None, **more) -> Pruned:
    target_s = None if target_ms is None else target_ms * 1e-3
    return search_te_nas(
        SPACE, wants_convolutions, CONFIG, latency=latency, target_s=target_s, **more
    )


def test_search_ends_with_what_the_indicators_want() -> None:
    pruned = found()
    assert ops(pruned.arch) == (THREE,) * 6
    # ``none`` is never a candidate; four operators leave in three rounds, one an edge and round.
    assert [len(rows) for rows in pruned.rounds] == [24, 18, 12]
    for rows in pruned.rounds:
        assert sorted(row["layer"] for row in rows if row["is_removed"]) == list(range(6))


@pytest.mark.parametrize("target_ms", [1.0, 2.2, 4.1, 9.9, 19.1])
def test_network_is_within_the_target(target_ms: float) -> None:
    # 1 ms: nothing but skips will do. 19.1 ms: everything will.
    arch = found(target_ms).arch
    ((latency_s, _),) = latency([arch])
    assert latency_s <= target_ms * 1e-3
    # And no faster than it has to be: another 3×3 convolution in place of a skip would not fit.
    assert SKIP not in ops(arch) or latency_s + 3e-3 > target_ms * 1e-3


def test_target_out_of_reach_is_said_before_anything_is_measured() -> None:
    def never(*_: object) -> list[Indicators]:
        raise AssertionError

    with pytest.raises(
        PlanError, match=r"fastest cell without .none.* is predicted 1 ms.*raise --target-ms"
    ):
        search_te_nas(SPACE, never, CONFIG, latency=latency, target_s=0.9e-3)


def test_reach_follows_what_is_left() -> None:
    reach = Reach(TWO_EDGES, latency, 4.2e-3)
    assert reach.meets(TWO_EDGES)
    dear = TWO_EDGES.restrict({Slot(0, 0): (THREE,)})
    assert reach.meets(dear)
    assert not reach.meets(dear.restrict({Slot(0, 1): (POOL, THREE)}))


def test_other_spaces_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"does not search 'mobile-mini'.*nasbench201"):
        search_te_nas(get_space("mobile-mini"), wants_convolutions, CONFIG, latency=latency)


class Killed(BaseException):
    """Stands for the process being ended."""


@pytest.mark.parametrize("calls", [1, 3])
def test_interrupted_search_goes_on_as_if_nothing_had_happened(
    calls: int, task: ImageTask, tmp_path: Path
) -> None:
    indicate = Untrained(task=task, config=CONFIG)
    few = SPACE.restrict({Slot(0, edge): (SKIP, THREE, POOL)[: 3 - edge % 2] for edge in range(6)})
    whole = search_te_nas(few, indicate, CONFIG, latency=latency, folder=tmp_path / "whole")
    count = iter(range(calls))

    def dying(*arguments):
        if next(count, None) is None:
            raise Killed
        return indicate(*arguments)

    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        search_te_nas(few, dying, CONFIG, latency=latency, folder=folder)
    # A round is two repeats: the second case had finished one, which is not done again.
    asked = []

    def counting(*arguments):
        asked.append(arguments[2])
        return indicate(*arguments)

    resumed = search_te_nas(few, counting, CONFIG, latency=latency, folder=folder)
    assert (resumed.arch, resumed.rounds) == (whole.arch, whole.rounds)
    assert len(asked) == (4 if calls == 1 else 2)
    # Once more: nothing is left to do.
    again = search_te_nas(few, dying, CONFIG, latency=latency, folder=folder)
    assert again.rounds == whole.rounds
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["SearchStarted", "ChoicesPruned", "ChoicesPruned"]


def test_folder_of_another_search_is_refused(tmp_path: Path) -> None:
    found(target_ms=9.9, folder=tmp_path)
    with pytest.raises(IncompatibleRunError, match="target_s"):
        found(target_ms=4.0, folder=tmp_path)
    with pytest.raises(IncompatibleRunError, match="fastest_s"):
        search_te_nas(
            SPACE,
            wants_convolutions,
            CONFIG,
            latency=lambda archs: [(0.9 * s, 0.0) for s, _ in latency(archs)],
            target_s=9.9e-3,
            folder=tmp_path,
        )
