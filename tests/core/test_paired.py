"""Paired statistics against hand-computed values and scipy, and the gate's decisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from hwprof.measure import paired
from hwprof.measure.records import Burst, LabelledBurst

Float64 = NDArray[np.float64]


def ratios(
    *workers: float, rounds: int = 8, sd: float = 0.002, seed: int = 0
) -> dict[str, Float64]:
    """Return log-ratios of workers whose shifts are given."""
    rng = np.random.default_rng(seed)
    return {f"w{i}": s + sd * rng.standard_normal(rounds) for i, s in enumerate(workers)}


class TestWilcoxon:
    @pytest.mark.parametrize(
        ("d", "p"),
        [
            ([1.0, 2.0, 3.0, 4.0, 5.0], 1 / 32),  # every sign up: one way in 2^5
            ([-1.0, 2.0, 3.0], 2 / 8),  # T = 5; {2, 3} and {1, 2, 3} of the 8 subsets reach it
            ([-3.0, 1.0, 2.0], 5 / 8),  # T = 3: all but {}, {1}, {2}
            ([0.0, 2.0], 1 / 2),  # a zero counts for nothing
            ([0.0, 0.0], 1.0),
        ],
    )
    def test_small_samples_by_hand(self, d: list[float], p: float) -> None:
        assert paired.wilcoxon_p(np.array(d)) == pytest.approx(p)

    @pytest.mark.parametrize("n", [7, 20, 50])
    def test_exact_as_scipy(self, n: int) -> None:
        d = np.random.default_rng(n).normal(0.3, 1.0, n)
        expected = stats.wilcoxon(d, alternative="greater", method="exact").pvalue
        assert paired.wilcoxon_p(d) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(("n", "decimals"), [(120, 1), (120, 8), (20, 0)])
    def test_normal_as_scipy_of_many_and_of_ties(self, n: int, decimals: int) -> None:
        d = np.round(np.random.default_rng(1).normal(0.2, 1.0, n), decimals)
        d = d[d != 0]
        expected = stats.wilcoxon(d, alternative="greater", method="approx", correction=True).pvalue
        assert paired.wilcoxon_p(d) == pytest.approx(expected, rel=1e-9)


class TestStudent:
    @pytest.mark.parametrize("n", [2, 3, 5])
    def test_as_scipy(self, n: int) -> None:
        shifts = 0.01 + 0.02 * np.random.default_rng(n).standard_normal(n)
        expected = stats.ttest_1samp(shifts, 0.0, alternative="greater")
        assert paired.student_p(shifts) == pytest.approx(float(expected.pvalue), rel=1e-10)
        both = stats.ttest_1samp(shifts, 0.0).confidence_interval(0.99)
        assert paired.student_interval(shifts, 0.99) == pytest.approx((both.low, both.high))

    def test_without_spread_or_company(self) -> None:
        assert paired.student_p(np.array([0.01, 0.01, 0.01])) == 0.0
        assert paired.student_p(np.array([-0.01, -0.01])) == 1.0
        assert paired.student_p(np.array([0.01])) == 1.0

    def test_processes_apart_must_agree_beyond_their_own_spread(self) -> None:
        # Five processes shifted by 2, 1, 3, 2 and -1 %, each steadily: forty pairs, and no more
        # evidence than five. t = 1.4/(1.517/√5) = 2.06, p = 0.054.
        d: dict[str, Float64] = {
            f"seat {i}": s + 1e-4 * (np.arange(8, dtype=np.float64) - 3.5)
            for i, s in enumerate((0.02, 0.01, 0.03, 0.02, -0.01))
        }
        assert paired.judge_pairs(d).verdict == "regressed"
        apart = paired.judge_pairs(d, apart=True)
        assert apart.verdict == "inconclusive"
        assert apart.p_slower == pytest.approx(0.054, abs=0.002)
        # Student's t of 4 degrees of freedom at 0.995 is 4.6041: 1.4 ± 4.6041·1.517/√5 %.
        low, high = (math.log1p(v) for v in apart.shift_ci99)
        assert (low, high) == pytest.approx((0.014 - 0.03123, 0.014 + 0.03123), abs=1e-4)
        back = paired.judge_pairs({seat: -v for seat, v in d.items()}, apart=True)
        assert back.verdict == "inconclusive"
        assert back.p_faster == pytest.approx(apart.p_slower)

    def test_processes_apart_are_equal_only_if_their_spread_allows_it(self) -> None:
        def steady(*shifts: float) -> dict[str, Float64]:
            noise = 1e-4 * (np.arange(40, dtype=np.float64) - 19.5)
            return {f"seat {i}": s + noise for i, s in enumerate(shifts)}

        # The pairs alone know the shift to ±0.2 %; five processes ± 0.5 % apart do not.
        spread = steady(-0.008, -0.004, 0.0, 0.004, 0.008)
        assert paired.judge_pairs(spread).verdict == "equivalent"
        assert paired.judge_pairs(spread, apart=True).verdict == "inconclusive"
        near = steady(-0.002, -0.001, 0.0, 0.001, 0.002)
        assert paired.judge_pairs(near, apart=True).verdict == "equivalent"
        assert paired.judge_pairs(steady(0.0), apart=True).shift_ci99 == (-1.0, math.inf)


class TestShift:
    def test_walsh_averages_and_their_median_by_hand(self) -> None:
        d = np.array([4.0, 1.0, 2.0])
        np.testing.assert_allclose(paired.walsh_averages(d), [1.0, 1.5, 2.0, 2.5, 3.0, 4.0])
        assert paired.hodges_lehmann(d) == pytest.approx(2.25)

    def test_interval_takes_the_kth_from_each_end(self) -> None:
        # n = 24: k = 150 − 2.5758·√1225 = 59.8 (99 %), 150 − 1.95996·35 = 81.4 (95 %).
        walsh = paired.walsh_averages(np.random.default_rng(3).standard_normal(24))
        assert paired.walsh_interval(walsh, 0.99) == (walsh[58], walsh[-59])
        assert paired.walsh_interval(walsh, 0.95) == (walsh[80], walsh[-81])
        # n = 6: k = 10.5 − 1.95996·√22.75 = 1.15: all that six values span.
        assert paired.walsh_interval(paired.walsh_averages(np.arange(6.0)), 0.95) == (0.0, 5.0)

    def test_too_few_pairs_bound_nothing(self) -> None:
        walsh = paired.walsh_averages(np.arange(5.0))
        assert paired.walsh_interval(walsh, 0.99) == (-math.inf, math.inf)

    def test_interval_holds_the_shift_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(4)
        held = 0
        for _ in range(400):
            d = 0.5 + rng.standard_t(3, 40)
            low, high = paired.walsh_interval(paired.walsh_averages(d), 0.95)
            held += low <= 0.5 <= high
        # 95 % of 400 is 380; three standard errors below are 367.
        assert held >= 367


class TestGate:
    @pytest.mark.parametrize(
        ("shifts", "verdict"),
        [
            ([0.05] * 5, "regressed"),
            ([-0.05] * 5, "improved"),
            ([0.0] * 5, "equivalent"),
            ([0.0085] * 5, "equivalent"),  # slower beyond doubt, but by less than matters
            ([-0.0085] * 5, "equivalent"),  # faster, likewise
            ([0.03, 0.03, 0.03, 0.03, -0.001], "regressed"),  # four of five workers agree
            ([0.09, 0.09, 0.09, -0.01, -0.01], "inconclusive"),  # three of five do not
            ([-0.3, -0.3, -0.3, -0.3, 0.02], "improved"),
            ([-0.3, -0.3, -0.3, 0.02, 0.02], "inconclusive"),  # two of five are slower
        ],
    )
    def test_verdicts(self, shifts: list[float], verdict: str) -> None:
        assert paired.judge_pairs(ratios(*shifts)).verdict == verdict

    def test_noise_leaves_it_open(self) -> None:
        found = paired.judge_pairs(ratios(*[0.02] * 5, sd=0.3))
        assert found.verdict == "inconclusive"
        assert found.detectable > 0.05

    def test_the_threshold_of_the_user_counts_if_it_is_above_one_percent(self) -> None:
        found = ratios(*[0.03] * 5)
        assert paired.judge_pairs(found, delta=0.05).verdict == "equivalent"
        assert paired.judge_pairs(found, delta=0.0).verdict == "regressed"
        assert paired.judge_pairs(ratios(*[0.006] * 5), delta=0.0).verdict == "equivalent"

    @pytest.mark.parametrize(("slower_by", "is_called"), [(1.051, True), (1.049, False)])
    def test_the_threshold_of_a_speed_up_is_that_of_the_slowdown_back(
        self, slower_by: float, is_called: bool
    ) -> None:
        there = paired.judge_pairs(ratios(*[math.log(slower_by)] * 5, sd=1e-4), delta=0.05)
        back = paired.judge_pairs(ratios(*[-math.log(slower_by)] * 5, sd=1e-4), delta=0.05)
        assert there.verdict == ("regressed" if is_called else "equivalent")
        assert back.verdict == ("improved" if is_called else "equivalent")

    @pytest.mark.parametrize("shift", [0.3, -0.3])
    def test_what_chance_may_do_is_not_called(self, shift: float) -> None:
        # Five pairs that agree: p is 1/32.
        assert paired.judge_pairs(ratios(*[shift] * 5, rounds=1)).verdict == "inconclusive"

    def test_faster_mirrors_slower(self) -> None:
        there = ratios(0.011, 0.04, 0.02, 0.05, 0.03, sd=0.01)
        back = {w: -d for w, d in there.items()}
        one, other = paired.judge_pairs(there), paired.judge_pairs(back)
        assert (one.verdict, other.verdict) == ("regressed", "improved")
        assert other.shift == pytest.approx(1 / (1 + one.shift) - 1)
        assert other.p_faster == pytest.approx(one.p_slower)
        assert (other.workers_up, other.workers_down) == (one.workers_down, one.workers_up)

    @pytest.mark.parametrize(
        ("confidence", "two_sided", "one_sided"),
        [
            (0.99, 2.5758293035489004, 2.3263478740408408),
            (0.999, 3.2905267314919255, 3.0902323061678132),
        ],
    )
    def test_what_is_detectable_follows_the_rate_that_a_look_spends(
        self, confidence: float, two_sided: float, one_sided: float
    ) -> None:
        found = paired.judge_pairs(ratios(*[0.0] * 5, sd=0.3), confidence=confidence)
        low, high = found.shift_ci99
        error = (math.log1p(high) - math.log1p(low)) / 2 / two_sided
        assert found.detectable == pytest.approx(
            (one_sided + 0.8416212) * error
        )  # z(.8), any table
        # Well above what the threshold asks for.
        assert found.detectable > 2 * (0.01 + 0.84 * error)

    def test_figures(self) -> None:
        found = paired.judge_pairs(ratios(*[math.log(1.05)] * 5, sd=0.004))
        assert found.n_pairs == 40
        assert found.shift == pytest.approx(0.05, abs=0.003)
        low, high = found.shift_ci99
        assert low < found.shift < high
        error = (math.log1p(high) - math.log1p(low)) / 2 / 2.5758293035489004
        assert found.detectable == pytest.approx(max(0.01 + 0.8416212 * error, 3.1679691 * error))

    def test_no_pair_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no pair"):
            paired.judge_pairs({})


def labelled(us: float, worker: str, index: int, *causes: str) -> LabelledBurst:
    duration = np.full(6, round(us * 1000), dtype=np.int64)
    burst = Burst(start_ns=np.cumsum(duration), duration_ns=duration, wait_ns=None)
    return LabelledBurst(burst=burst, worker=worker, round_index=index, causes=causes)


def test_bursts_pair_by_worker_and_round() -> None:
    a = [
        labelled(1, "w0", -1, "first"),
        labelled(100, "w0", 0),
        labelled(200, "w0", 1),
        labelled(100, "w1", 0),
        labelled(999, "w2", 0),
    ]
    b = [
        labelled(120, "w1", 0),
        labelled(220, "w0", 1),
        labelled(777, "w0", 0, "stolen", "superseded"),
        labelled(105, "w0", 0),
        labelled(1, "w1", 5),
    ]
    found = paired.log_ratios(a, b, threads=1)
    assert set(found) == {"w0", "w1"}
    np.testing.assert_allclose(found["w0"], np.log([1.05, 1.1]))
    np.testing.assert_allclose(found["w1"], np.log([1.2]))
