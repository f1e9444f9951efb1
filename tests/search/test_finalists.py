"""Who is measured: the front, and who could be on it."""

from __future__ import annotations

from typing import Any

from hwprof.results import Trial
from hwprof.search.finalists import choose_finalists
from hwprof.space import Architecture


def trial(latency_s: float, accuracy_pct: float, half_s: float, index: int) -> Trial:
    arch = Architecture(space="none", resolution_px=32, widths=(index,))
    return Trial(
        arch=arch,
        accuracy_pct=accuracy_pct,
        accuracy_source="",
        latency_s=latency_s,
        latency_source="predicted",
        macs=1,
        params=1,
        ci95_s=(latency_s - half_s, latency_s + half_s) if half_s else None,
    )


def chosen(points: list[tuple[float, float]], half_s: float, n: int, **target: Any) -> list[int]:
    trials = [trial(t, a, half_s, i) for i, (t, a) in enumerate(points)]
    found = choose_finalists(trials, n, target.get("target_s"))
    return [t.arch.widths[0] for t in found if t.arch.widths]


def test_finalists_are_the_front_and_who_could_be_on_it() -> None:
    # 0, 1, 2 are the front; 3 and 4 miss it by 0.1 and 0.2, 5 by 2.
    points = [(1.0, 70.0), (2.0, 72.0), (3.0, 74.0), (2.1, 71.0), (3.2, 73.0), (4.0, 71.5)]
    assert chosen(points, 0.0, 10) == [0, 1, 2], "exact predictions leave no doubt"
    assert chosen(points, 0.3, 10) == [0, 1, 3, 2, 4]
    assert chosen(points, 0.3, 4) == [0, 1, 3, 2], "the likeliest first"
    assert chosen(points, 0.3, 2) == [0, 2], "a long front is spread"


def test_finalists_near_the_target_get_their_chance() -> None:
    points = [(1.0, 70.0), (2.1, 75.0), (2.5, 80.0)]
    assert chosen(points, 0.2, 10, target_s=2.0) == [0, 1]
    assert chosen(points, 0.0, 10, target_s=2.0) == [0]


def test_what_is_always_measured_comes_before_the_front() -> None:
    """2 and 3 are beaten, 3 by far; with room for two they are the ones, 3 being wanted most."""
    points = [(1.0, 70.0), (2.0, 72.0), (2.5, 71.0), (9.0, 50.0)]
    trials = [trial(t, a, 0.0, i) for i, (t, a) in enumerate(points)]
    always = [trials[3].arch, trials[2].arch]

    def found(n: int) -> list[int]:
        chosen = choose_finalists(trials, n, None, always)
        return [t.arch.widths[0] for t in chosen if t.arch.widths]

    assert [found(n) for n in (1, 2, 3, 9)] == [[3], [2, 3], [0, 2, 3], [0, 1, 2, 3]]
