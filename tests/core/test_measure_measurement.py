"""What a measurement tells beside its level: percentiles, tails, the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprof.measure.measurement import measurement_from
from hwprof.measure.records import Fingerprint, Loaded, plan_for
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload
from tests.core.bursts import burst, labelled, simulate

WORKLOAD = Workload.block(SkipPiece(in_channels=8, size_px=8), "skip")
LOADED = Loaded(load_s=0.1, artifact_bytes=10, peak_memory_bytes=None)
FINGERPRINT = Fingerprint(stable={"device": "null", "threads": 1})


def test_the_plan_says_whether_the_level_is_what_is_kept_up() -> None:
    # The first sample of a burst is dropped; the floor is 5 below the median of the others.
    bursts = [labelled(burst([1, v - 5, v, v + 9]), "w0", i) for i, v in enumerate((10, 12, 20))]
    once = measurement_from(WORKLOAD, plan_for("quick"), FINGERPRINT, bursts, LOADED, {})
    plan = plan_for("quick", sustained_s=60.0)
    kept_up = measurement_from(WORKLOAD, plan, FINGERPRINT, bursts, LOADED, {})
    assert kept_up.level_s == pytest.approx(12e-6)
    assert once.level_s < 10e-6


def test_level_sees_through_a_slow_mode_that_the_median_shows() -> None:
    rng = np.random.default_rng(2)
    bursts = simulate(rng, 5, 24, worker_sd=0.001, slow_share=1.6)
    measured = measurement_from(WORKLOAD, plan_for("strict"), FINGERPRINT, bursts, LOADED, {})
    assert measured.level_s == pytest.approx(1e-3, rel=0.01)
    assert measured.median_s > 1.1e-3
    assert measured.telemetry["slow_mode_share"] > 0.3


class TestMeasurement:
    def test_percentiles_are_of_raw_wall_time(self) -> None:
        waited = burst([9, 10, 20, 30, 40], [0, 5, 5, 5, 5])
        measured = measurement_from(
            WORKLOAD, plan_for("quick"), FINGERPRINT, [labelled(waited)], LOADED, {}
        )
        assert measured.median_s == pytest.approx(25e-6)
        assert measured.level_s == pytest.approx(5e-6)

    def test_tails_are_bounded_by_single_calls_alone(self) -> None:
        def telemetry(k: int, others: int) -> dict[str, float | None]:
            # 24 bursts of 4 samples without the first: enough for p90, too few for p99.
            calls = [10, 10, 10, 10, 30]
            bursts = [
                labelled(burst(calls, k=others if i else k), f"w{i % 3}", i) for i in range(24)
            ]
            plan = plan_for("quick")
            found = measurement_from(WORKLOAD, plan, FINGERPRINT, bursts, LOADED, {})
            return dict(found.telemetry)

        assert telemetry(1, 1)["p90_bound_s"] == pytest.approx(30e-6)
        assert telemetry(1, 1)["p99_bound_s"] is None
        assert telemetry(1, 2)["p90_bound_s"] is None
        assert telemetry(2, 1)["p90_bound_s"] is None

    def test_rebuilding_from_its_own_telemetry_changes_nothing(self) -> None:
        bursts = simulate(np.random.default_rng(3), 3, 8, worker_sd=0.002, slow_share=0.3)
        first = measurement_from(
            WORKLOAD, plan_for("quick"), FINGERPRINT, bursts, LOADED, {"n_cpus": 2}
        )
        again = measurement_from(
            WORKLOAD, plan_for("quick"), FINGERPRINT, first.bursts, LOADED, first.telemetry
        )
        assert again.to_json() == first.to_json()

    @pytest.mark.parametrize(
        ("cause", "n", "verdict"),
        [
            ("throttled", 2, "clean"),  # 8 % of 24; 10 % are too much
            ("throttled", 3, "throttled"),
            ("over_quota", 2, "clean"),
            ("over_quota", 3, "throttled"),
            ("slow_clock", 18, "clean"),  # a quarter at full clock is enough
            ("slow_clock", 19, "throttled"),
            ("foreign_process", 1, "contaminated"),
        ],
    )
    def test_shares_are_of_the_used_bursts(self, cause: str, n: int, verdict: str) -> None:
        bursts = [
            labelled(burst([100] * 5), f"w{i % 3}", i // 3, *[cause] * (i < n)) for i in range(24)
        ]
        measured = measurement_from(WORKLOAD, plan_for("quick"), FINGERPRINT, bursts, LOADED, {})
        assert measured.verdict == verdict

    def test_load_and_steal_are_means_over_the_used_bursts(self) -> None:
        bursts = [labelled(burst([100] * 5), f"w{i % 3}", i // 3) for i in range(24)]
        for i in range(6):
            bursts[i] = replace(bursts[i], foreign_cores=1.0, steal_share=0.04)
        measured = measurement_from(WORKLOAD, plan_for("quick"), FINGERPRINT, bursts, LOADED, {})
        assert measured.telemetry["foreign_cores"] == pytest.approx(0.25)
        assert measured.telemetry["steal_share"] == pytest.approx(0.01)

    def test_foreign_load_of_the_used_bursts_contaminates(self) -> None:
        bursts = simulate(np.random.default_rng(3), 3, 8, worker_sd=0.001, slow_share=0)
        loaded = [replace(b, foreign_cores=0.9) for b in bursts]
        measured = measurement_from(
            WORKLOAD, plan_for("quick"), FINGERPRINT, loaded, LOADED, {"n_cpus": 2}
        )
        assert measured.verdict == "contaminated"
        assert measured.evidence[0].startswith("other processes kept 0.9 of 2 cores busy")
