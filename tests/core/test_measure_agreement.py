"""Outputs of several workers: rounding passes, another computation does not."""

from __future__ import annotations

import numpy as np
import pytest

from hwprof.measure.agreement import (
    COARSE_TOLERANCE,
    FP32_TOLERANCE,
    MOST_VALUES,
    Agreement,
    difference,
    from_arrays,
    may_differ,
    sampled,
    to_arrays,
    tolerance_for,
)
from hwprof.measure.records import Failure
from hwprof.space.pieces import SkipPiece
from hwprof.workload import Workload
from tests.core.scripted import MemorySink, block, measured, null, run


def values(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def off(right: np.ndarray, other: np.ndarray) -> float:
    return difference(sampled([right]), sampled([other]))


def test_the_difference_is_relative_to_the_largest_value() -> None:
    right = np.array([[1.0, -4.0], [2.0, 0.0]], dtype=np.float32)
    assert off(right, right.copy()) == 0.0
    assert off(right, right + np.float32(0.5)) == pytest.approx(0.5 / 4.0)
    assert off(np.zeros(3), np.zeros(3)) == 0.0
    assert off(np.zeros(3), np.ones(3)) == 1.0


def test_nothing_agrees_with_what_is_no_number_or_of_another_size() -> None:
    right = np.ones(4)
    assert off(right, np.ones(5)) == float("inf")
    assert off(right, np.array([1.0, 1.0, np.nan, 1.0])) == float("inf")
    assert difference(sampled([right]), sampled([right, right])) == float("inf")


def test_of_large_outputs_the_same_places_are_compared() -> None:
    right = values(20 * MOST_VALUES)
    (sample,) = sampled([right])
    assert sample.size == 1 + MOST_VALUES
    assert sample[0] == np.abs(right).max()
    assert off(right, right.copy()) == 0.0
    wrong = right.copy()
    wrong[::1000] += 10.0  # a thousandth of it
    assert off(right, wrong) > 0.5


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", FP32_TOLERANCE), ("float16", COARSE_TOLERANCE)]
)
def test_another_order_of_adding_is_allowed_and_other_weights_are_not(
    dtype: str, tolerance: float
) -> None:
    n = 4608  # 3 x 3 kernels over 512 channels
    x, w = values(n), values(n * 64, seed=1).reshape(64, n)
    forth = np.array([np.add.accumulate((x * row).astype(dtype))[-1] for row in w])
    back = np.array([np.add.accumulate((x * row)[::-1].astype(dtype))[-1] for row in w])
    assert 0.0 < off(forth, back) < tolerance
    assert off(forth, values(n * 64, seed=2).reshape(64, n) @ x) > COARSE_TOLERANCE


def test_choices_say_nothing() -> None:
    boxes = np.ones((3, 4), dtype=np.float32)
    for choice in (np.arange(3), np.array([True]), np.array(["cat"], dtype=object)):
        assert sampled([boxes, choice]) == ()
    assert len(sampled([boxes, np.arange(3, dtype=np.int8)])) == 2


def test_samples_survive_the_wire() -> None:
    runs = [sampled([values(5), values(3, seed)]) for seed in (1, 2)]
    for sent, got in zip(runs, from_arrays(to_arrays(runs), 2), strict=True):
        for one, other in zip(sent, got, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_model_that_differs_from_call_to_call_is_not_held_against_a_worker() -> None:
    first, second, third = (sampled([values(8, seed)]) for seed in range(3))
    found = Agreement()
    assert found.runs == 2
    found.add([first, second], FP32_TOLERANCE)
    assert (found.runs, found.worst) == (0, None)
    steady = Agreement()
    steady.add([first, first], FP32_TOLERANCE)
    assert steady.runs == 1
    steady.add([third], FP32_TOLERANCE)
    steady.add([first], FP32_TOLERANCE)
    assert steady.worst is not None
    assert steady.worst > COARSE_TOLERANCE


def test_what_may_hold_any_type_has_the_coarse_tolerance() -> None:
    ours = Workload.block(SkipPiece(in_channels=8, size_px=8), "block")
    file = Workload(role="model", label="m.onnx", path="m.onnx")
    assert tolerance_for(ours, "fp32") == FP32_TOLERANCE
    assert tolerance_for(ours, "tf32") == tolerance_for(file, "fp32") == COARSE_TOLERANCE
    assert may_differ(Workload.from_callable("package.module:make", ()))
    assert not may_differ(ours)


def test_a_later_worker_that_computes_something_else_is_a_failure_of_that_workload() -> None:
    sink = MemorySink()
    faults = [{"label": "bad", "stage": "check", "kind": "wrong", "workers": [1]}]
    found = run([block("a", 8), block("bad", 16)], null(faults=faults), sink=sink)
    failure = found["bad"]
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind, failure.retryable) == ("check", "disagrees", True)
    assert "the outputs of the worker w1 are 1 of the largest value away" in failure.message
    # The first worker was warmed up before the second was asked; nothing was timed.
    assert all("first" in b.causes for b in sink.bursts[failure.workload.key])
    assert measured(found["a"]).telemetry["worker_disagreement"] == 0.0


@pytest.mark.parametrize(("kind", "named"), [("nan", "non_finite"), ("fallback", "fallback")])
def test_a_later_worker_is_checked_like_the_first(kind: str, named: str) -> None:
    faults = [{"label": "bad", "stage": "check", "kind": kind, "workers": [1]}]
    failure = run([block("bad", 16)], null(faults=faults))["bad"]
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("check", named)
