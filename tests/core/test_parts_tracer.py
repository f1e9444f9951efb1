"""The tracer's cost is found and removed: simulated tracers whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hwprof.parts.tracer import (
    Chain,
    TracedCalls,
    TracedFloor,
    calibrate,
    correct,
    floor_s,
    traced_floor,
    without_waits,
)

US = 1e-6


@dataclass(frozen=True, kw_only=True)
class Tracer:
    """Adds its cost inside and behind operators and per call; ``coldness`` scales all of it."""

    inside_s: float = 2.3 * US
    per_input_s: float = 0.25 * US
    gap_s: float = 2.2 * US
    per_call_s: float = 1.7 * US

    def calls(
        self,
        op_s: np.ndarray,
        n_inputs: np.ndarray,
        outside_s: float,
        coldness: float,
        rng: np.random.Generator,
        n_calls: int = 60,
    ) -> TracedCalls:
        """Trace calls of operators whose true times are ``op_s``, with a 1 µs clock."""
        n = op_s.size
        inside_s = coldness * (self.inside_s + self.per_input_s * (n_inputs - 1))
        noise = rng.exponential(0.01, (n_calls, n))
        exact = (op_s + inside_s) * (1 + noise)
        gap = coldness * self.gap_s * (1 + rng.exponential(0.02, (n_calls, n)))
        call = exact.sum(axis=1) + gap.sum(axis=1) + outside_s + coldness * self.per_call_s
        op = np.floor(exact / US + rng.random((n_calls, n))) * US  # ticks, right on average
        burst = np.repeat(np.arange(6), n_calls // 6)
        return TracedCalls(op_s=op, gap_s=gap, call_s=call, wait_s=np.zeros(n_calls), burst=burst)

    def chain(self, n_ops: int, n_inputs: int, rng: np.random.Generator) -> Chain:
        """Run a chain of operators of 0.2 µs with and without the tracer."""
        true_s = np.full(n_ops, 0.2 * US)
        calls = self.calls(true_s, np.full(n_ops, n_inputs), 2.6 * US, 1.0, rng)
        floor = traced_floor(calls, n_ops)
        plain_s = float(true_s.sum()) + 2.6 * US
        return Chain(n_ops=n_ops, n_inputs=n_inputs, added_s=floor.call_s - floor.gaps_s - plain_s)


@pytest.mark.parametrize("coldness", [1.0, 1.9])
@pytest.mark.parametrize("scale_us", [3.0, 150.0])
def test_corrected_times_add_up_to_the_truth(coldness: float, scale_us: float) -> None:
    rng = np.random.default_rng(0)
    tracer = Tracer()
    cost = calibrate(
        narrow=tracer.chain(100, 1, rng),
        wide=tracer.chain(100, 3, rng),
        short=tracer.chain(10, 1, rng),
        hot_gap_s=tracer.gap_s,
    )
    true_s = scale_us * US * rng.uniform(0.2, 2.0, 60)
    n_inputs = rng.integers(1, 5, 60)
    calls = tracer.calls(true_s, n_inputs, 40 * US, coldness, rng)
    floor = traced_floor(calls, 60)
    found = correct(floor, n_inputs, np.ones(60), cost)
    whole_s = float(true_s.sum()) + 40 * US
    uncorrected = float(floor.op_s.sum() + floor.gap_s.sum())
    assert uncorrected > 1.02 * whole_s
    assert found.op_s.sum() + found.outside_s == pytest.approx(whole_s, rel=0.03)
    np.testing.assert_allclose(found.op_s, true_s, rtol=0.05, atol=0.6 * US)
    np.testing.assert_allclose(found.op_s + found.removed_s, floor.op_s + floor.gap_s)


def test_calibration_finds_every_cost() -> None:
    rng = np.random.default_rng(1)
    tracer = Tracer()
    cost = calibrate(
        narrow=tracer.chain(100, 1, rng),
        wide=tracer.chain(100, 3, rng),
        short=tracer.chain(10, 1, rng),
        hot_gap_s=1.0,
    )
    assert cost.inside_s == pytest.approx(tracer.inside_s, rel=0.05)
    assert cost.inside_per_input_s == pytest.approx(tracer.per_input_s, abs=0.1 * US)
    assert cost.per_call_s == pytest.approx(tracer.per_call_s, abs=1.5 * US)
    assert cost.gap_s == 1.0


def test_operators_in_a_loop_pay_for_every_run() -> None:
    cost = calibrate(
        narrow=Chain(n_ops=100, n_inputs=1, added_s=200 * US),
        wide=Chain(n_ops=100, n_inputs=3, added_s=200 * US),
        short=Chain(n_ops=10, n_inputs=1, added_s=20 * US),
        hot_gap_s=2 * US,
    )
    floor = TracedFloor(
        op_s=np.array([30 * US, 10 * US]),
        gap_s=np.array([10 * US, 2 * US]),
        call_s=60 * US,
        usual_gap_s=2 * US,
    )
    found = correct(floor, np.array([1, 1]), np.array([5.0, 1.0]), cost)
    np.testing.assert_allclose(found.op_s, [20 * US, 8 * US])


def test_waits_leave_the_operators_they_fell_into() -> None:
    op_s = np.full((5, 3), 10.0)
    op_s[2, 1] += 400.0
    gap_s = np.full((5, 3), 1.0)
    gap_s[2, 2] += 60.0
    calls = TracedCalls(
        op_s=op_s,
        gap_s=gap_s,
        call_s=op_s.sum(axis=1) + gap_s.sum(axis=1) + 5.0,
        wait_s=np.array([0.0, 0.0, 450.0, 0.0, 0.0]),
        burst=np.zeros(5, dtype=np.int64),
    )
    clean = without_waits(calls)
    assert clean.op_s[2].tolist() == [10.0, 10.0, 10.0]
    assert clean.gap_s[2].tolist() == [1.0, 1.0, 11.0]  # 10 of its excess were no wait
    assert clean.call_s[2] == calls.call_s[2] - 450.0
    assert not clean.wait_s.any()


def test_where_every_call_waits_operators_take_no_longer_than_the_call() -> None:
    op_s = np.tile([1.0, 30.0], (4, 1))
    op_s[3, 1] = 31.0
    calls = TracedCalls(
        op_s=op_s,
        gap_s=np.full((4, 2), 0.5),
        call_s=op_s.sum(axis=1) + 1.0 + 2.0,
        wait_s=np.array([20.0, 20.0, 20.0, 0.0]),
        burst=np.zeros(4, dtype=np.int64),
    )
    clean = without_waits(calls)
    assert clean.op_s[0].sum() + clean.gap_s[0].sum() <= clean.call_s[0]
    np.testing.assert_allclose(clean.op_s[0], np.array([1.0, 30.0]) * 14 / 34)
    np.testing.assert_array_equal(clean.op_s[3], op_s[3])


def test_a_wait_before_the_first_operator_is_taken_from_none() -> None:
    calls = TracedCalls(
        op_s=np.full((5, 2), 10.0),
        gap_s=np.full((5, 2), 1.0),
        call_s=np.array([27.0, 27.0, 27.0, 27.0, 327.0]),
        wait_s=np.array([0.0, 0.0, 0.0, 0.0, 300.0]),
        burst=np.zeros(5, dtype=np.int64),
    )
    clean = without_waits(calls)
    np.testing.assert_array_equal(clean.op_s, calls.op_s)
    assert clean.call_s[4] == 27.0


def test_floor_ignores_a_slow_spell() -> None:
    quiet = [np.full(20, 1.0) for _ in range(4)]
    assert floor_s([*quiet, np.full(20, 1.4), np.full(20, 1.4)]) == 1.0


def test_floor_of_one_call() -> None:
    assert floor_s([np.array([2.0])]) == 2.0
