"""What a search has spent, also where it was interrupted while finalists were measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hwprof.measure.records import Result
from hwprof.results import SearchResult
from hwprof.space import Architecture
from tests.search.test_runner import measure_all, search

Measure = Callable[[Sequence[Architecture]], list[Result]]


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measure]:
    """Measuring that takes so many seconds by a clock of its own, and may be interrupted then."""
    real, passed_s = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + passed_s[0])

    def of(seconds: float, *, dies: bool = False) -> Measure:
        # A ledger begins by the real clock.
        passed_s[0] = 0.0

        def measure(archs: Sequence[Architecture]) -> list[Result]:
            passed_s[0] += seconds
            if dies:
                raise KeyboardInterrupt
            return measure_all(archs)

        return measure

    return of


def test_time_of_measuring_is_carried_on(taking: Callable[..., Measure], tmp_path: Path) -> None:
    def go(measure: Measure) -> SearchResult:
        return search("random", folder=tmp_path, measure=measure, n_finalists=4, max_evals=16)

    with pytest.raises(KeyboardInterrupt):
        go(taking(1e5, dies=True))
    # The second time all are measured, the third time all are kept.
    for seconds in (1e4, 0.0):
        ledger = go(taking(seconds)).ledger
        assert ledger["measuring_s"] == pytest.approx(1.1e5, abs=1e3)
        assert ledger["wall_s"] == pytest.approx(1.1e5, abs=1e3)
        assert ledger["measured"] == 4


def test_measuring_leaves_a_prolonged_search_its_time(
    taking: Callable[..., Measure], tmp_path: Path
) -> None:
    def go(max_evals: int) -> SearchResult:
        return search(
            "random", folder=tmp_path, measure=taking(1e5), max_evals=max_evals, max_time_s=5e4
        )

    assert len(go(8).trials) == 8
    assert go(16).settings["ended_by"] == "evaluations"
