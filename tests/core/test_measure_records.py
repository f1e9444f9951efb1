"""Keys: what keeps two measurements from being compared is named, fact by fact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwprof.measure.records import (
    Cache,
    Fingerprint,
    Loaded,
    Measurement,
    MeasurePlan,
    plan_for,
)
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload

FACTS: dict[str, str | int | float | bool | None] = {
    "device": "cpu",
    "runtime_version": "1.31.0",
    "provider": "CPUExecutionProvider",
    "threads": 1,
    "allocator": "malloc, memory kept",
}


def measured(plan: MeasurePlan | None = None, facts: dict[str, str] | None = None) -> Measurement:
    return Measurement(
        workload=Workload.block(SkipPiece(in_channels=8, size_px=8), "block"),
        plan=plan or plan_for("quick"),
        fingerprint=Fingerprint(stable={**FACTS, **(facts or {})}, volatile={"load_average": 0.1}),
        bursts=(),
        loaded=Loaded(load_s=0.1, artifact_bytes=1, peak_memory_bytes=None),
        level_s=1.0,
        ci95_s=(0.9, 1.1),
        median_s=1.0,
        p90_s=1.0,
        p99_s=1.0,
        verdict="clean",
        evidence=(),
    )


@pytest.mark.parametrize("name", ["runtime_version", "provider", "threads", "allocator"])
def test_another_stable_fact_is_named_with_both_values(name: str) -> None:
    assert measured().differences(measured(facts={name: "other"})) == {name: (FACTS[name], "other")}


@pytest.mark.parametrize(
    ("name", "value"), [("cache", "cold"), ("protocol", 1), ("burst_s", 0.5), ("workers", 9)]
)
def test_another_plan_is_named_with_both_values(name: str, value: Cache | float) -> None:
    plan = plan_for("quick")
    other = replace(plan, **{name: value})  # type: ignore[arg-type]
    found = measured(plan).differences(measured(other))
    assert found == {f"plan.{name}": (getattr(plan, name), value)}


def test_seed_and_time_limit_keep_nothing_apart() -> None:
    assert measured().differences(measured(plan_for("quick", seed=9, timeout_s=1.0))) == {}


def test_rounds_of_two_sessions_count_on() -> None:
    assert plan_for("strict").looks_in(0) == (32,)
    assert plan_for("strict").looks_in(1) == (64,)
    assert plan_for("standard").looks_in(0) == (16, 24, 32)
    two = plan_for("standard", sessions=2)
    assert [two.looks_in(s) for s in (0, 1)] == [(32,), (48, 56, 64)]  # the last may end early
    assert two.most_bursts == 2 * 32 * 5
