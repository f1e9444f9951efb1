"""The gate over looks and workloads: spending by hand, Holm's example, simulated error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from hwprof.measure.paired import judge_pairs
from hwprof.measure.records import Burst, LabelledBurst
from hwprof.regression.gate import LOOKS, SPENT, Gate, rejected, settle, tail_ratios

Float64 = NDArray[np.float64]


def ratios(shift: float, rounds: int, sd: float = 0.002, seed: int = 0) -> dict[str, Float64]:
    rng = np.random.default_rng(seed)
    return {f"seat {i}": shift + sd * rng.standard_normal(rounds) for i in range(5)}


def test_the_looks_spend_the_whole_rate_and_no_more() -> None:
    assert len(SPENT) == len(LOOKS)
    assert sum(SPENT) == pytest.approx(1.0)


class TestGate:
    def test_a_look_costs_its_share(self) -> None:
        # Ten pairs, all up: p = 2^-10. The first look has a tenth of the rate: 2^-10 / 0.1.
        gate = Gate()
        found = {"seat 0": np.linspace(0.02, 0.03, 10)}
        gate.look(found)
        assert gate.p_slower == pytest.approx(2**-10 / 0.1)
        # 2^-10 / 0.1 = 0.0098 is below 0.01; among two workloads it is above 0.005.
        assert gate.verdict(slower=gate.p_slower < 0.01, faster=False) == "regressed"
        assert Gate(family=2).look(found) == "inconclusive"

    def test_the_smallest_of_the_looks_counts(self) -> None:
        gate = Gate()
        gate.look({"seat 0": np.linspace(0.02, 0.03, 10)})
        gate.look({"seat 0": np.array([0.02, -0.03])})
        assert gate.p_slower == pytest.approx(2**-10 / 0.1)

    def test_one_look_spends_it_all(self) -> None:
        gate = Gate()
        gate.look_once({"seat 0": np.linspace(0.02, 0.03, 10)})
        assert gate.p_slower == pytest.approx(2**-10)
        with pytest.raises(ValueError, match="looked at before"):
            gate.look_once(ratios(0, 8))
        with pytest.raises(ValueError, match="all are spent"):
            gate.look(ratios(0, 8))

    def test_the_interval_is_that_of_what_the_look_spends(self) -> None:
        d = ratios(0.03, LOOKS[0])
        first, only = Gate(), Gate()
        first.look(d)
        only.look_once(d)
        assert first.latest is not None
        assert only.latest is not None
        assert first.latest.shift_ci99 == judge_pairs(d, confidence=0.999).shift_ci99
        assert only.latest.shift_ci99 == judge_pairs(d, confidence=0.99).shift_ci99

    def test_the_users_threshold_counts_above_one_percent(self) -> None:
        assert Gate(delta=0.05).look(ratios(0.03, LOOKS[0])) == "equivalent"
        assert Gate(delta=0.0).look(ratios(0.006, LOOKS[0])) == "equivalent"

    def test_more_than_its_looks_is_an_error(self) -> None:
        gate = Gate()
        for rounds in LOOKS:
            gate.look(ratios(0, rounds))
        with pytest.raises(ValueError, match="all are spent"):
            gate.look(ratios(0, 8))

    @pytest.mark.parametrize(
        ("shift", "verdict"),
        [(0.03, "regressed"), (-0.03, "improved"), (0.0, "equivalent")],
    )
    def test_a_clear_difference_is_decided_at_the_first_look(
        self, shift: float, verdict: str
    ) -> None:
        assert Gate().look(ratios(shift, LOOKS[0])) == verdict

    def test_what_is_detectable_apart_follows_the_spread_between_workers(self) -> None:
        # Five processes shifted by 2, 1, 3, 2 and -1 %, each steadily: their mean has a standard
        # error of 1.5166 % / sqrt(5). Student's t of 4 degrees of freedom is 3.7469 at 0.99,
        # 4.6041 at 0.995 (of two workloads) and 0.9410 at 0.8.
        d = {
            f"seat {i}": s + 1e-4 * (np.arange(8, dtype=np.float64) - 3.5)
            for i, s in enumerate((0.02, 0.01, 0.03, 0.02, -0.01))
        }
        error = 0.015166 / math.sqrt(5)
        for family, quantile in ((1, 3.7469), (2, 4.6041)):
            gate = Gate(apart=True, family=family)
            gate.look_once(d)
            assert gate.latest is not None
            assert gate.latest.detectable == pytest.approx((quantile + 0.9410) * error, rel=1e-3)
        together = Gate()
        together.look_once(d)
        assert together.latest is not None
        assert together.latest.detectable < 0.02

    def test_what_is_detectable_apart_lies_above_the_threshold(self) -> None:
        # Two processes 0.02 % apart: Student's t of 1 degree is 31.8205 at 0.99 and 1.3764 at 0.8,
        # so that the test asks for 0.33 %, and the threshold of 1 % for more.
        gate = Gate(apart=True)
        gate.look_once({"seat 0": np.full(8, 0.0001), "seat 1": np.full(8, -0.0001)})
        assert gate.latest is not None
        assert gate.latest.detectable == pytest.approx(0.01 + 1.3764 * 0.0001, rel=1e-4)

    def test_one_worker_apart_detects_nothing(self) -> None:
        gate = Gate(apart=True)
        gate.look_once({"seat 0": np.linspace(0.02, 0.03, 10)})
        assert gate.latest is not None
        assert gate.latest.detectable == math.inf

    def test_false_alarms_with_looking_at_every_look(self) -> None:
        # Equals, with noise wide enough that the size of the shift does not protect: the rate
        # of either direction must stay below its 1 %. 400 sequences: 8 alarms in one direction
        # have a probability below 5 % at 1 %; a naive p < 0.01 at four looks gives about 11.
        rng = np.random.default_rng(5)
        alarms = 0
        for _ in range(400):
            d = {f"seat {i}": 0.2 * rng.standard_normal(LOOKS[-1]) for i in range(5)}
            gate = Gate()
            for rounds in LOOKS:
                gate.look({s: v[:rounds] for s, v in d.items()})
            alarms += gate.p_slower < 0.01
        assert alarms <= 8

    def test_false_alarms_where_each_process_has_a_shift_of_its_own(self) -> None:
        # As large between processes (1 %) as from burst to burst: without telling that the sides
        # were apart 13 of 300 are called slower or faster.
        called = 0
        for seed in range(200):
            rng = np.random.default_rng(seed)
            own = 0.01 * rng.standard_normal((5, 1))
            d = own + 0.01 * rng.standard_normal((5, LOOKS[-1]))
            gate = Gate(apart=True)
            for look in LOOKS:
                said = gate.look({f"seat {i}": d[i, :look] for i in range(5)})
                if said != "inconclusive":
                    break
            called += said in ("regressed", "improved")
        # Two directions at 1 % each: more than 11 of 200 has a probability of 0.1 %.
        assert called <= 11


class TestHolm:
    @pytest.mark.parametrize(
        ("ps", "expected"),
        [
            # 0.002 < 0.01/3, 0.004 < 0.01/2, 0.009 < 0.01: all.
            ([0.009, 0.002, 0.004], [True, True, True]),
            # 0.002 < 0.01/3, then 0.006 >= 0.005 stops, and 0.0061 with it.
            ([0.006, 0.002, 0.0061], [False, True, False]),
            ([0.004, 0.004, 0.004], [False, False, False]),
            ([], []),
        ],
    )
    def test_by_hand(self, ps: list[float], expected: list[bool]) -> None:
        assert rejected(ps) == expected

    def test_settle_judges_together(self) -> None:
        gates = [Gate() for _ in range(3)]
        for gate in gates:
            gate.look(ratios(0.03, 8))
        gates[0].p_slower, gates[1].p_slower, gates[2].p_slower = 0.002, 0.006, 0.5
        assert settle(gates) == ["regressed", "inconclusive", "inconclusive"]


def burst(us: list[float], worker: str, index: int) -> LabelledBurst:
    duration = np.array([round(1000 * u) for u in us], dtype=np.int64)
    timed = Burst(start_ns=np.cumsum(duration), duration_ns=duration, wait_ns=None)
    return LabelledBurst(burst=timed, worker=worker, round_index=index)


# The first call is dropped. p90 of 0, 10, ..., 100 is 90.
CALLS = [5.0, *(10.0 * i for i in range(1, 12))]


def test_tails_are_ratios_of_p90() -> None:
    a, b = ([burst([k * c for c in CALLS], "seat 0", 0)] for k in (1, 2))
    found = tail_ratios(a, b, threads=1)
    assert set(found) == {"seat 0"}
    np.testing.assert_allclose(found["seat 0"], [math.log(2)])


def test_tails_need_ten_calls_in_the_usual_burst() -> None:
    many = [burst(CALLS, "seat 0", 0), burst(CALLS[:1], "seat 0", 1), burst(CALLS, "seat 0", 2)]
    few = [burst(CALLS[:6], "seat 0", 0), burst(10 * CALLS, "seat 0", 1)]
    few.append(burst(CALLS[:6], "seat 0", 2))
    assert tail_ratios(few, few, threads=1) == {}
    assert tail_ratios(many, many, threads=1)["seat 0"].tolist() == [0.0, 0.0]
    assert tail_ratios([], [], threads=1) == {}


def test_a_burst_that_holds_few_calls_because_one_stalled_counts() -> None:
    quiet, stalled = [700.0] * 15, [*[700.0] * 6, 4700.0, 700.0]
    a = [burst(quiet, f"seat {w}", i) for i in range(8) for w in range(5)]
    b = [burst(stalled if i % 2 else quiet, f"seat {w}", i) for i in range(8) for w in range(5)]
    found = tail_ratios(a, b, threads=1)
    assert [r.size for r in found.values()] == [8] * 5
    assert Gate(delta=0.1).look_once(found) != "equivalent"
    np.testing.assert_allclose(found["seat 0"][::2], 0.0)
    assert found["seat 0"][1::2].min() > math.log(2)
