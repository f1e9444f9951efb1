"""What the study's tables say, on cells made up so that every figure can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hwprof.results import Trial
from hwprof.space import Architecture
from tests.bench.study_cells import best_by_band
from tests.bench.study_jobs import Jobs, total
from tests.bench.study_proxyless import groups, part_of
from tests.bench.study_report import (
    area_ms_pp,
    argmax_pct,
    at_latency_pct,
    off_target_pct,
    over_seeds,
    paired,
    reached,
    report,
)


def network(
    latency_s: float | None, validation_pct: float, test_pct: float, target_s: float = 1e-3
) -> dict[str, Any]:
    return {
        "latency_s": latency_s,
        "validation_pct": validation_pct,
        "test_pct": test_pct,
        "target_s": target_s,
    }


def row(*networks: dict[str, Any], space: str = "full", method: str = "random", seed: int = 0):
    return {
        "space": space,
        "method": method,
        "seed": seed,
        "networks": list(networks),
        "trained_images": 1000,
        "judged_images": 2000,
        "cpu_s": 3.0,
    }


def test_validation_chooses_and_test_is_told() -> None:
    # The one with the best test accuracy is not the one that validation chooses.
    found = row(network(1e-3, 60.0, 50.0), network(2e-3, 55.0, 58.0), network(9e-3, 99.0, 99.0))
    assert at_latency_pct(found, 2e-3) == 50.0
    assert at_latency_pct(found, 0.5e-3) is None
    assert at_latency_pct(row(network(None, 60.0, 50.0)), 1.0) is None


def test_area_is_a_sum_of_rectangles_over_the_front_of_validation() -> None:
    # 1 to 2 ms: 30 points above chance; 2 to 4 ms: 50; the third is dominated by validation.
    found = row(
        network(1e-3, 41.0, 40.0),
        network(2e-3, 62.0, 60.0),
        network(3e-3, 61.0, 90.0),
        network(5e-3, 99.0, 99.0),
    )
    assert area_ms_pp(found, 4e-3) == pytest.approx(1 * 30.0 + 2 * 50.0)
    assert area_ms_pp(row(), 4e-3) == 0.0


def test_targets() -> None:
    found = row(network(1.1e-3, 1.0, 1.0), network(1.9e-3, 1.0, 1.0, target_s=2e-3))
    assert off_target_pct(found) == pytest.approx((10.0 + 5.0) / 2)
    assert argmax_pct(found) is None
    found["networks"][0]["argmax_s"] = 3e-3
    assert argmax_pct(found) == pytest.approx(300.0)


def test_interval_over_seeds_is_students() -> None:
    # t(0.975; 2) = 4.302653 (any table); mean 2, sd 1, n 3.
    found = over_seeds([1.0, None, 2.0, 3.0])
    assert found.value == 2.0
    assert found.hi - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2.0 - found.lo == pytest.approx(found.hi - 2.0)
    assert over_seeds([5.0]).value == 5.0
    assert math.isnan(over_seeds([5.0]).lo)
    assert math.isnan(over_seeds([None]).value)


def test_pairs_are_of_one_seed() -> None:
    def accuracy(found: dict[str, Any]) -> float | None:
        return at_latency_pct(found, 1e-3)

    one = {s: row(network(1e-3, 1.0, 50.0 + s), seed=s) for s in (0, 1, 2)}
    other = {s: row(network(1e-3, 1.0, 40.0 + 3 * s), seed=s) for s in (2, 1)}
    other[0] = row(network(5e-3, 1.0, 99.0))
    # Seed 0 has nothing that is fast enough on one side.
    assert paired(one, other, accuracy) == {1: 51.0 - 43.0, 2: 52.0 - 46.0}


def test_report_names_what_is_missing_and_means_over_spaces() -> None:
    rows = [
        row(network(1e-3, 1.0, level), space=space, method=method, seed=seed)
        for seed in (0, 1)
        for space, method, level in (
            ("full", "nsga2", 50.0 + seed),
            ("full", "random", 44.0),
            ("reduced", "nsga2", 48.0),
            ("reduced", "random", 44.0),
        )
    ]
    lines = report(rows, [1e-3]).splitlines()
    # Differences 6 and 7 in the full space, 4 and 4 in the reduced one: 5 and 5.5 over both.
    (both,) = (line for line in lines if line.startswith("| nsga2 − random | both |"))
    assert both.split(" | ")[2] == "2"
    assert both.split(" | ")[4].startswith("+5.25 [")
    rows[0]["networks"][0]["latency_s"] = None
    assert "8 networks, of which 1 have no measured latency" in report(rows, [1e-3])
    assert report([], [1e-3]).count("nothing is finished yet") == 3


def trial(latency_s: float, accuracy_pct: float) -> Trial:
    return Trial(
        arch=Architecture(space="mobile-mini", resolution_px=32, units=()),
        accuracy_pct=accuracy_pct,
        accuracy_source="made up",
        latency_s=latency_s,
        latency_source="predicted",
        macs=0,
        params=0,
    )


def test_one_network_a_band_within_what_a_derived_one_may_miss() -> None:
    trials = [trial(0.9, 50.0), trial(1.02, 60.0), trial(1.03, 55.0), trial(3.5, 90.0)]
    found = best_by_band(trials, [2.0, 1.0])
    # 1.02 is within 2.5 % of 1; the band of 2 begins where that of 1 ends; 3.5 is in none.
    assert {t: (v.latency_s, v.accuracy_pct) for t, v in found.items()} == {
        1.0: (1.02, 60.0),
        2.0: (1.03, 55.0),
    }
    assert best_by_band([trial(1.5, 50.0)], [1.0]) == {}


def test_a_job_is_done_once_and_an_interrupted_one_has_no_time(tmp_path) -> None:
    jobs, calls = Jobs(folder=tmp_path), []

    def fails() -> dict[str, Any]:
        calls.append("fails")
        raise KeyboardInterrupt

    def works() -> dict[str, Any]:
        calls.append("works")
        return {"value": len(calls)}

    with pytest.raises(KeyboardInterrupt):
        jobs.once("one", fails)
    assert jobs.once("one", works) == {"value": 2, "cpu_s": None}
    assert jobs.once("one", works) == {"value": 2, "cpu_s": None}
    assert jobs.once("two", works)["cpu_s"] >= 0.0
    assert calls == ["fails", "works", "works"]
    assert total([1.0, 2.0]) == 3.0
    assert total([1.0, None]) is None


def test_two_parts_have_as_much_of_each_space_and_every_cell_once() -> None:
    every = list(groups(3))
    assert every[0::2] == [("full", 0), ("reduced", 1), ("full", 2)]
    assert every[1::2] == [("reduced", 0), ("full", 1), ("reduced", 2)]
    assert part_of("2/2") == (2, 2)
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(Exception, match="expected one such as 1/2"):
            part_of(wrong)


def test_only_networks_derived_for_a_latency_tell_how_near_they_come() -> None:
    near, far, untimed = (network(t, 50.0, 50.0, 1e-3) for t in (0.98e-3, 1.06e-3, None))
    derived = row(*(n | {"argmax_s": 1e-3} for n in (near, far, untimed)), method="recompute")
    sampled = row(network(0.5e-3, 50.0, 50.0, 1e-3))
    assert reached([derived, sampled]) == (
        " Of 2 networks derived for a latency 1 take, as measured, what was asked for within 5 %: "
        "4.0 % off at the median, 6.0 % at most."
    )
    assert reached([sampled]) == ""
