"""Timing a pair: when it ends, who is paired with whom, and whose fault it was."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hwprof.checks.workloads import copies
from hwprof.regression.gate import Gate
from hwprof.regression.paired_verdicts import compare_pairs
from hwprof.regression.side_by_side import Pair, PairFailed, PairTimed, side_by_side
from tests.core.scripted import null

BASE, NEW = copies(2, "net", 0)
PAIR = Pair(label="net", base=BASE, new=NEW)

pytestmark = pytest.mark.usefixtures("no_worker_is_left")


def labels(new_s: float) -> dict[str, Any]:
    return {"labels": {NEW.label: new_s}, "base_s": 1e-4}


def timed(result: PairTimed | PairFailed) -> PairTimed:
    assert isinstance(result, PairTimed)
    return result


def test_it_ends_at_the_first_look_that_decides() -> None:
    gate = Gate()
    found = timed(side_by_side(PAIR, null(latency=labels(1.05e-4)), gate, cap_s=600))
    assert (found.rounds, gate.n_looks, found.capped) == (8, 1, False)
    assert found.new.level_s / found.base.level_s == pytest.approx(1.05, abs=0.005)


def test_when_the_time_is_up_what_there_is_gets_a_look() -> None:
    # A clock that moves by a second at every reading: read once to begin, then after each round
    # but the first of a look. Over 3.5 s the fourth reading ends it, after four rounds.
    gate, ticks = Gate(), itertools.count()
    found = timed(side_by_side(PAIR, null(), gate, cap_s=3.5, clock=lambda: float(next(ticks))))
    assert (found.rounds, gate.n_looks, found.capped) == (4, 1, True)


def test_no_time_at_all_still_gives_a_round_and_no_verdict() -> None:
    (row,) = compare_pairs([PAIR], null(), threshold=0.01, cap_s=0.0)
    assert row.verdict == "INCONCLUSIVE"
    assert row.n_pairs == 5
    assert row.detectable == float("inf")
    assert row.to_row()["detectable"] is None
    assert "the time was up" in row.reason
    assert "or raise --max-time" in row.reason


def test_several_threads_get_a_process_a_side_and_are_paired_by_seat() -> None:
    gate = Gate()
    found = timed(side_by_side(PAIR, null(2, latency=labels(1.05e-4)), gate, cap_s=600))
    base, new = ({b.worker for b in m.bursts} for m in (found.base, found.new))
    assert len(base) == len(new) == 5
    assert not base & new
    assert {b.worker for b in found.base_bursts} == {f"seat {i}" for i in range(5)}
    assert gate.latest is not None
    assert gate.latest.verdict == "regressed"


@pytest.mark.parametrize(("pattern", "side"), [(BASE.label, "base"), (NEW.label, "new")])
def test_the_side_that_failed_is_named(pattern: str, side: str) -> None:
    faults = [{"label": pattern, "stage": "compile", "kind": "refuse"}]
    found = side_by_side(PAIR, null(faults=faults), Gate())
    assert isinstance(found, PairFailed)
    assert (found.side, found.failure.kind) == (side, "refused")


def test_of_several_one_failure_does_not_take_the_others_along() -> None:
    faults = [{"label": NEW.label, "stage": "check", "kind": "nan"}]
    same = Pair(label="same", base=BASE, new=BASE)
    rows = compare_pairs([PAIR, same], null(faults=faults), threshold=0.01, cap_s=600)
    assert [r.verdict for r in rows] == ["NOT_COMPARABLE", "EQUIVALENT"]
    assert rows[0].reason.startswith("new: check failed (non_finite)")
