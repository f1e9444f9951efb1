"""Level and interval of a table of floors, against numpy, brute force and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from hwprof.measure import floor


def table(seed: int, workers: int, rounds: int, sd: float = 0.01) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    own = sd * rng.standard_normal((workers, 1))
    when = sd * np.abs(rng.standard_normal((1, rounds)))
    drawn: NDArray[np.float64] = 1e-3 * np.exp(own + when)
    return drawn


class TestFiniteQuantile:
    @pytest.mark.parametrize("q", [0.0, 0.1, 0.25, 0.9, 1.0])
    def test_is_numpys_where_all_is_finite(self, q: float) -> None:
        values = np.random.default_rng(0).random((3, 4, 7))
        assert floor.finite_quantile(values, q) == pytest.approx(np.quantile(values, q, axis=-1))

    def test_what_is_infinite_is_not_there(self) -> None:
        values = np.array([[3.0, np.inf, 1.0], [np.inf, np.inf, 5.0], [np.inf] * 3])
        assert floor.finite_quantile(values, 0.25).tolist() == [1.5, 5.0, np.inf]


class TestLevel:
    def test_what_is_over_ten_percent_above_the_fast_end_is_another_mode(self) -> None:
        # The second fastest is 10.5, so of 10, 10.5, 11.5 and 12 the last is out: the tenth of
        # three values is a fifth of the way from the first to the second.
        row = np.array([[12.0, 10.0, 11.5, 10.5]])
        assert floor.worker_floors_s(row) == pytest.approx([10.1])

    def test_one_reading_too_short_does_not_outlaw_the_others(self) -> None:
        row = np.concatenate([[5.0], np.full(15, 10.0)])
        # 10 % of the way through 16 values is the half between the second and the third.
        assert floor.worker_floors_s(row) == pytest.approx(10.0)

    def test_a_worker_with_one_burst_is_that_burst(self) -> None:
        rows = np.array([[7.0, np.inf], [np.inf, 8.0]])
        assert floor.worker_floors_s(rows).tolist() == [7.0, 8.0]

    def test_usual_times_are_medians_with_no_mode_left_out(self) -> None:
        rows = np.array([[10.0, 10.0, 30.0], [20.0, 40.0, 60.0], [10.0, 50.0, 90.0]])
        own = floor.worker_floors_s(rows, floor.USUAL)
        assert own.tolist() == [10.0, 40.0, 50.0]
        assert floor.level_of(own, floor.USUAL) == 40.0

    def test_is_the_lower_quartile_of_the_workers(self) -> None:
        assert floor.level_of(np.array([9.0, 1.0, 2.0, 3.0, 5.0])) == 2.0


class TestInterval:
    def test_equal_bursts_leave_what_sessions_differ_by(self) -> None:
        within = floor.within_session(np.full((5, 16), 2e-3))
        assert within == pytest.approx((0.0, 0.0), abs=1e-12)
        low, high = floor.interval_s(2e-3, within.half_width, floor.SESSION_SD)
        half = 1.959963984540054 * floor.SESSION_SD  # z(.975), any table
        assert (low, high) == pytest.approx((2e-3 * math.exp(-half), 2e-3 * math.exp(half)))

    @pytest.mark.parametrize(("workers", "rounds"), [(5, 16), (3, 8)])
    def test_variances_are_those_of_resampling_workers_and_rounds(
        self, workers: int, rounds: int
    ) -> None:
        floors = table(1, workers, rounds)
        rng = np.random.default_rng(7)

        def level_log(some: NDArray[np.float64]) -> float:
            own = [np.quantile(row[row <= 1.1 * row.min()], 0.1) for row in some]
            return math.log(np.quantile(own, 0.25))

        over_workers = [level_log(floors[rng.integers(0, workers, workers)]) for _ in range(3000)]
        over_rounds = [level_log(floors[:, rng.integers(0, rounds, rounds)]) for _ in range(3000)]
        expected = (
            np.var(over_workers) * workers / (workers - 1),
            np.var(over_rounds) * rounds / (rounds - 1),
        )
        (of_workers, df_workers), (of_rounds, df_rounds) = floor._variances(
            floors, floor.worker_floors_s(floors), floor.FLOOR
        )
        assert (df_workers, df_rounds) == (workers - 1, rounds - 1)
        # 200 resamples know a variance to about 10 %.
        assert (of_workers, of_rounds) == pytest.approx(expected, rel=0.3)

    def test_degrees_of_freedom_follow_the_larger_part(self) -> None:
        # Workers differ by far more than anything else: Student's t of 4 degrees, not z.
        floors = np.exp(0.04 * np.arange(5.0))[:, None] * np.ones((5, 16))
        (variance, _), _ = floor._variances(floors, floor.worker_floors_s(floors), floor.FLOOR)
        se, half_width = floor.within_session(floors)
        assert se == pytest.approx(math.sqrt(variance))
        assert half_width == pytest.approx(2.776445105 * se)

    def test_workers_of_another_session_have_rounds_of_their_own(self) -> None:
        one, two = table(2, 5, 8), table(3, 5, 8)
        both = np.block([[one, np.full((5, 8), np.inf)], [np.full((5, 8), np.inf), two]])
        assert 0.0 < floor.within_session(both).half_width < 0.05

    def test_beside_each_other_sessions_do_not_count(self) -> None:
        within = 0.01
        beside, apart = (floor.interval_s(2.0, within, sd) for sd in (0.0, 0.015))
        assert beside == pytest.approx((2 * math.exp(-within), 2 * math.exp(within)))
        half = 0.5 * math.log(apart[1] / apart[0])
        assert half == pytest.approx(math.hypot(within, 1.959963984540054 * 0.015))

    def test_one_burst_leaves_only_what_sessions_differ_by(self) -> None:
        assert floor.within_session(np.array([[1.0]])) == (0.0, 0.0)
