"""Levels, intervals and verdict inputs against hand-computed cases and simulated machines."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hwprof.errors import MeasurementError
from hwprof.measure import level
from hwprof.measure.floor import FLOOR, SESSION_SD
from hwprof.measure.level import estimate, is_settled
from hwprof.measure.paired import normal_quantile
from hwprof.measure.records import LabelledBurst
from tests.core.bursts import burst, labelled, simulate


def flat(value_us: float, worker: str, index: int, *causes: str) -> LabelledBurst:
    return labelled(burst([value_us] * 5), worker, index, *causes)


class TestBurstStatistic:
    def test_minimum_of_few_samples_without_the_first(self) -> None:
        assert level.burst_statistic_s(burst([1, 9, 7, 8]), 1) == pytest.approx(7e-6)

    def test_tenth_percentile_of_many(self) -> None:
        # 0..10 in any order without the first (999): p10 of them is 1 (linear interpolation).
        values = [999, *range(110, 99, -1)]
        assert level.burst_statistic_s(burst(values), 1) == pytest.approx(101e-6)

    def test_wait_is_subtracted_for_one_thread_only(self) -> None:
        one = burst([10, 50, 60], [0, 45, 0])
        assert level.burst_statistic_s(one, 1) == pytest.approx(5e-6)
        assert level.burst_statistic_s(one, 2) == pytest.approx(50e-6)

    def test_batched_calls_are_divided(self) -> None:
        assert level.burst_statistic_s(burst([90, 100, 110], k=10), 1) == pytest.approx(10e-6)

    def test_mean_where_long_calls_waited(self) -> None:
        waits = [0.0, 2000, 0, 0]
        long = burst([5000, 7000, 5200, 5600], waits)
        # x = 5000, 5200, 5600 µs: their mean, since 2000 of 22800 µs (8.8 %) were waited.
        assert level.burst_statistic_s(long, 1) == pytest.approx((5000 + 5200 + 5600) / 3 * 1e-6)
        assert level.burst_statistic_s(long, 2) == pytest.approx(5200e-6)
        little = burst([5000, 5100, 5200, 5600], [0.0, 100, 0, 0])
        assert level.burst_statistic_s(little, 1) == pytest.approx(5000e-6)
        short = burst([500, 700, 520, 560], [0.0, 200, 0, 0])
        assert level.burst_statistic_s(short, 1) == pytest.approx(500e-6)

    def test_nothing_left_is_none(self) -> None:
        assert level.burst_statistic_s(burst([5]), 1) is None


class TestBurstFloor:
    def test_fastest_call_without_the_first(self) -> None:
        assert level.burst_floor_s(burst([1, 9, 7, 8]), 1) == pytest.approx(7e-6)
        assert level.burst_floor_s(burst([90, 100, 110], k=10), 1) == pytest.approx(10e-6)

    def test_calls_that_waited_count_only_where_all_did(self) -> None:
        # 60 µs of which 55 were waited: 5 µs are too good to be true beside 9.
        some = burst([10, 60, 9], [0, 55, 0])
        assert level.burst_floor_s(some, 1) == pytest.approx(9e-6)
        both = burst([10, 60, 70], [0, 52, 60])
        assert level.burst_floor_s(both, 1) == pytest.approx(8e-6)

    def test_one_percent_of_waiting_is_no_disturbance(self) -> None:
        # 1 of 100 µs is none, 2 of 60 are one: 99 counts, 58 does not.
        timed = burst([10, 100, 60], [0, 1, 2])
        assert level.burst_floor_s(timed, 1) == pytest.approx(99e-6)
        assert level.estimate([labelled(timed)], 1).preempted_share == 0.5

    def test_with_several_threads_a_wait_says_nothing(self) -> None:
        assert level.burst_floor_s(burst([10, 60, 70], [0, 52, 0]), 2) == pytest.approx(60e-6)


class TestUsual:
    """Where the fast end is not what is asked for, call, worker and level are medians."""

    def bursts(self) -> list[LabelledBurst]:
        # The first sample of a burst is dropped; of the others the median is the value.
        values = {"w0": (10, 12, 20), "w1": (11, 13, 40), "w2": (30, 30, 30)}
        return [
            labelled(burst([1, v - 5, v, v + 9]), w, i)
            for w, row in values.items()
            for i, v in enumerate(row)
        ]

    def test_a_sustained_load_asks_for_what_is_kept_up(self) -> None:
        found = level.estimate(self.bursts(), 1, sustained=True)
        assert found.worker_levels_s == pytest.approx({"w0": 12e-6, "w1": 13e-6, "w2": 30e-6})
        assert found.level_s == pytest.approx(13e-6)
        assert level.estimate(self.bursts(), 1).level_s < 10e-6

    def test_a_gpu_is_faster_while_cold(self) -> None:
        gpu = [
            replace(b, burst=replace(b.burst, enqueue_ns=np.ones(4, dtype=np.int64)))
            for b in self.bursts()
        ]
        assert level.estimate(gpu, 1).level_s == pytest.approx(13e-6)


class TestLevel:
    def test_lower_tenth_of_bursts_then_lower_quartile_of_workers(self) -> None:
        values = {"w0": (10, 11, 12, 13), "w1": (20, 20, 20, 20), "w2": (10, 10, 10, 10, 10)}
        bursts = [flat(v, w, i) for w, row in values.items() for i, v in enumerate(row)]
        found = level.estimate(bursts, 1)
        # In w0 13 is over 10 % above 11, so W = 10.2 (a fifth of the way from 10 to 11), 20, 10;
        # their lower quartile (linear) is 10 + 0.5 · 0.2.
        assert found.worker_levels_s == pytest.approx({"w0": 10.2e-6, "w1": 20e-6, "w2": 10e-6})
        assert found.level_s == pytest.approx(10.1e-6)
        assert found.slow_mode_share == pytest.approx(6 / 13)  # above 11.11: 12, 13, four 20s

    def test_bursts_of_a_round_are_one_reading_of_the_trend(self) -> None:
        # Three rounds, each slower by 10 %, of five workers: 15 bursts in order would be
        # significant (p < 0.001); three rounds are too few to say anything.
        bursts = [flat(10 * 1.1**i, f"w{w}", i) for i in range(3) for w in range(5)]
        assert level.estimate(bursts, 1).trend.p == 1.0
        more = [flat(10 * 1.02**i, f"w{w}", i) for i in range(8) for w in range(5)]
        # All 28 pairs of rounds rise: S = 28, var = 8·7·21/18, z = 27/√var.
        expected = math.erfc(27 / math.sqrt(8 * 7 * 21 / 18) / math.sqrt(2))
        assert level.estimate(more, 1).trend.p == pytest.approx(expected)
        assert level.estimate(more, 1).trend.is_drifting

    def test_what_one_worker_sees_is_no_trend(self) -> None:
        # One of three enters a slower mode half way: the median of the workers stays.
        bursts = [
            flat(13 if (w, i) > (1, 7) else 10, f"w{w}", i) for w in range(3) for i in range(16)
        ]
        assert level.estimate(bursts, 1).trend.p == 1.0

    def test_workers_of_a_later_session_are_no_trend(self) -> None:
        # Slower by 20 % for life, and timed behind the others: every worker is held to its own.
        bursts = [flat(10 if i < 8 else 12, f"w{i // 8}", i) for i in range(16)]
        assert level.estimate(bursts, 1).trend.p == 1.0

    def test_a_worker_without_a_burst_in_a_round_counts_by_its_others(self) -> None:
        bursts = [flat(10, "w0", 0), flat(10, "w0", 1), flat(12, "w1", 1)]
        table = level.floor_table(bursts, 1)
        assert table.workers == ("w0", "w1")
        assert table.floors_s == pytest.approx(np.array([[10e-6, 10e-6], [np.inf, 12e-6]]))
        assert level.estimate(bursts, 1).level_s == pytest.approx(10.5e-6)

    @pytest.mark.parametrize(
        ("values", "workers", "floor", "expected"),
        [
            ([1.0, 1.005, 1.009, 1.2], ["a", "a", "b", "b"], 1e-3, True),
            ([1.0, 1.005, 1.009, 1.2], ["a", "a", "a", "b"], 1e-3, False),  # one worker only
            ([1.0, 1.005, 1.02, 1.2], ["a", "b", "b", "b"], 1e-3, False),  # two bursts only
            ([1.0, 1.005, 1.011, 0.9], ["a", "b", "b", "b"], 1e-3, False),  # 1 % either way
            ([1.0, 1.02, 1.029, 1.2], ["a", "b", "b", "b"], 5e-3, True),  # long calls: 3 %
            ([1.0, 1.02, 1.031, 0.9], ["a", "b", "b", "b"], 5e-3, False),
        ],
    )
    def test_confirmed(
        self, values: list[float], workers: list[str], floor: float, expected: bool
    ) -> None:
        scaled = [v * floor for v in values]
        assert level.is_confirmed(scaled, workers, floor) is expected

    def test_warm_up_and_repeated_bursts_stay_out(self) -> None:
        bursts = [
            flat(99, "w0", -1, "first"),
            flat(50, "w0", 0, "stolen", "superseded"),
            flat(10, "w0", 0),
            flat(30, "w0", 1, "stolen"),
            flat(40, "w0", 1, "stolen"),
            flat(10, "w1", 0, "slow_clock", "foreign_load"),
            flat(10, "w1", 1, "stolen"),
        ]
        used = level.used_bursts(bursts)
        assert used == [bursts[2], *bursts[4:]]
        assert level.estimate(bursts, 1).n_excluded == 2

    def test_no_burst_is_an_error_not_a_number(self) -> None:
        with pytest.raises(MeasurementError, match="no burst was timed"):
            level.estimate([flat(5, "w0", -1, "first"), labelled(burst([5]))], 1)

    def test_rounds_done_counts_complete_rounds(self) -> None:
        bursts = [flat(5, w, i) for i in range(3) for w in ("w0", "w1")]
        partial = [*bursts[:-1], flat(5, "w0", -1, "first")]
        assert level.rounds_done(partial, 2) == 2
        assert level.rounds_done(bursts, 2) == 3


class TestOtherSessions:
    """What sessions differ by widens the interval, and is no reason to measure longer."""

    BURSTS = tuple(flat(100, f"w{w}", i) for w in range(3) for i in range(4))

    def test_what_is_known_of_them_is_in_the_interval(self) -> None:
        found = estimate(self.BURSTS, threads=1, session_sd=0.02)
        assert found.session_sd == 0.02
        half = 1.959963984540054 * 0.02
        assert found.ci95_s == pytest.approx((1e-4 * math.exp(-half), 1e-4 * math.exp(half)))
        assert found.rel_half_width == pytest.approx((found.ci95_s[1] - found.ci95_s[0]) / 2e-4)
        assert found.beside_ci95_s == pytest.approx((1e-4, 1e-4))

    def test_measuring_ends_as_on_a_quiet_machine(self) -> None:
        quiet, moving = (estimate(self.BURSTS, 1, session_sd=sd) for sd in (SESSION_SD, 0.02))
        assert quiet.rel_half_width_when_quiet == moving.rel_half_width_when_quiet
        assert quiet.rel_half_width_when_quiet == pytest.approx(quiet.rel_half_width)
        assert moving.rel_half_width > 0.01
        assert is_settled(quiet, 0.01)
        assert is_settled(moving, 0.01)
        assert not is_settled(moving, 0.005)

    def test_measuring_does_not_end_unconfirmed_or_while_it_drifts(self) -> None:
        found = estimate(self.BURSTS, 1)
        rising = level.trend(0.01 * np.arange(10.0))
        assert is_settled(found, 0.01)
        assert not is_settled(replace(found, confirmed=False), 0.01)
        assert not is_settled(replace(found, trend=rising), 0.01)


class TestTrend:
    def test_monotone_series(self) -> None:
        # All 45 pairs rise: S = 45, var = 10·9·25/18 = 125, z = 44/√125, drift e^0.09 − 1.
        found = level.trend(0.01 * np.arange(10.0))
        assert found.p == pytest.approx(math.erfc(44 / math.sqrt(125) / math.sqrt(2)))
        assert found.drift == pytest.approx(math.expm1(0.09))
        assert found.is_drifting
        falling = level.trend(-0.01 * np.arange(10.0))
        assert falling.p == found.p
        assert falling.drift == pytest.approx(math.expm1(-0.09))
        assert falling.is_drifting

    def test_equal_values_count_for_neither_direction(self) -> None:
        # Four pairs of equals: S = 28 - 4, var = (8·7·21 - 4·2·1·9)/18 (Kendall's correction).
        found = level.trend(np.repeat(0.01 * np.arange(4.0), 2))
        z = 23 / math.sqrt((8 * 7 * 21 - 4 * 2 * 9) / 18)
        assert found.p == pytest.approx(math.erfc(z / math.sqrt(2)))
        # As many pairs rise as fall: S = 0.
        assert level.trend(np.array([1.0, 2.0, 2.0, 1.0])).p == 1.0

    def test_small_drift_and_no_drift_are_steady(self) -> None:
        assert not level.trend(0.001 * np.arange(10.0)).is_drifting
        noise = np.random.default_rng(0).standard_normal(40) * 0.05
        assert not level.trend(noise).is_drifting
        assert level.trend(np.zeros(10)).p == 1.0
        # Large, but of four points: S = 6, var = 4·3·13/18, p = 0.09.
        assert not level.trend(0.1 * np.arange(4.0)).is_drifting

    def test_false_alarms_are_as_rare_as_stated(self) -> None:
        rng = np.random.default_rng(5)
        alarms = [level.trend(rng.standard_normal(24) * 0.1).p < level.TREND_P for _ in range(1000)]
        assert np.mean(alarms) <= 0.02


@pytest.mark.parametrize(("workers", "rounds"), [(3, 8), (5, 16)])
@pytest.mark.parametrize("worker_sd", [0.002, 0.01])
@pytest.mark.parametrize("slow_share", [0.3, 0.6])
def test_interval_covers_a_known_floor(
    workers: int, rounds: int, worker_sd: float, slow_share: float
) -> None:
    rng = np.random.default_rng(11)
    # The lower quartile of the workers, of which one in twenty is stuck at the upper end.
    target_s = 1e-3 * math.exp(worker_sd * normal_quantile(FLOOR.level_quantile / 0.95))
    n = 100
    held = 0
    for _ in range(n):
        bursts = simulate(rng, workers, rounds, worker_sd=worker_sd, slow_share=slow_share)
        low, high = level.estimate(bursts, 1).ci95_s
        held += low <= target_s <= high
    # 90 of 100 is what golden check 12 asks; 95 % nominal leaves room for 100 draws.
    assert held >= 90
