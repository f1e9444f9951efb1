"""The published one-factor procedure's estimators, against truths that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hwprof.errors import DataError
from hwprof.estimate.design_matrix import Term
from hwprof.estimate.insights import insights
from hwprof.estimate.pinned import PinnedValues, measure_pins
from hwprof.estimate.pinned_effects import equivalent_effects, fit_pinned, pinned_response
from hwprof.estimate.pinning import Pin, PinnedForm, in_rounds, pinned_networks, pins_of
from hwprof.results import Sample
from hwprof.space import Architecture, get_space
from tests.core.pinned_truth import additive, design_of, pin_at

N = 3000


def test_the_effects_follow_from_the_texts_pinned_means() -> None:
    """Expected means: "the text's pinned effect", block-profiling method, proposed estimator."""
    design = design_of("ofa-mbv3-w1.2")
    coefficients = additive(design)
    truth = design.expansion @ coefficients

    def effect(term: Term) -> float:
        return float(truth[design.index[term]])

    values: dict[Pin | None, np.ndarray] = {None: np.array([0.039, 0.041])}
    for pin in pins_of(design):
        assert pin.slot is not None
        third, fourth = (effect(Term(kind="depth", unit=pin.slot.unit, depth=d)) for d in (3, 4))
        deeper = [0.0, 0.0, third / 3 + fourth / 6, third / 3 + 2 * fourth / 3][pin.slot.layer]
        mean = 0.04 + effect(pin.term) + deeper
        values[pin] = np.array([mean - 1e-3, mean + 1e-3])
    found = pinned_response(design, PinnedValues(values=values))
    np.testing.assert_allclose(found.values, truth, atol=1e-12)
    assert found.mean is not None
    assert found.mean.value == pytest.approx(0.04)
    # With s² pooled over degrees of freedom: β is of nine means, each of two values, 8/9 of one
    # less 1/9 of each other.
    values[None] = np.array([0.03, 0.03, 0.05, 0.05])
    even = pinned_response(design, PinnedValues(values=values)).even_covariance
    n_pins = len(values) - 1
    pooled = (n_pins * 2e-6 + 4e-4) / (n_pins + 3)
    row = design.index[pins_of(design)[0].term]
    assert even[row, row] == pytest.approx(pooled / 2 * 8 / 9)


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.2", "proxylessnas", "ofa-resnet50", "nasbench201"])
def test_additive_truth_is_recovered_within_the_intervals(name: str) -> None:
    design = design_of(name)
    coefficients = additive(design)
    values = measure_pins(design, lambda codes: design.predictions(coefficients, codes), n=400)
    found = pinned_response(design, values)
    error = (found.values - design.expansion @ coefficients) / np.sqrt(np.diag(found.covariance))
    # One standard deviation each; effects share samples, so that few of them are independent.
    assert 0.6 < error.std() < 1.5
    covered = [
        i.lo <= t <= i.hi
        for i, t in zip(found.intervals(), design.expansion @ coefficients, strict=True)
    ]
    assert np.mean(covered) > 0.88


def test_the_released_form_attenuates_and_borrows_from_depth() -> None:
    """⅔β at the third layer, ⅓β + δ₃/3 at the fourth (block-profiling method)."""
    design = design_of("ofa-mbv3-w1.2")
    coefficients = additive(design)
    truth = dict(zip(design.terms, design.expansion @ coefficients, strict=True))
    values = measure_pins(
        design, lambda codes: design.predictions(coefficients, codes), n=N, form="released"
    )
    response = pinned_response(design, values)
    # Of the true effects: the covariance that comes with them says nothing here.
    exact = equivalent_effects(
        design, replace(response, values=design.expansion @ coefficients), "released"
    )
    errors = []
    for pin, effect in values.placement_effects().items():
        assert pin.slot is not None
        beta = truth[pin.term]
        third = truth[Term(kind="depth", unit=pin.slot.unit, depth=3)]
        expected = [beta, beta, 2 / 3 * beta, beta / 3 + third / 3][pin.slot.layer]
        assert exact[pin].value == pytest.approx(expected, abs=1e-12)
        errors.append((effect.value - expected) / effect.half_width)
    # Every effect shares the noise of the unpinned sample, whose variance is half of its own.
    assert np.std(errors) == pytest.approx(0.5**0.5 / 1.96, rel=0.25)
    assert abs(np.mean(errors)) < 4 * 0.5**0.5 / 1.96


@pytest.mark.parametrize("form", ["text", "deepen", "released"])
@pytest.mark.parametrize("name", ["ofa-resnet50", "mobile-mini", "nasbench201"])
def test_sampled_effects_are_the_equivalent_ones(name: str, form: PinnedForm) -> None:
    design = design_of(name)
    coefficients = additive(design)
    values = measure_pins(
        design, lambda codes: design.predictions(coefficients, codes), n=500, form=form
    )
    response = replace(pinned_response(design, values), values=design.expansion @ coefficients)
    exact = equivalent_effects(design, response, form)
    errors = [
        (effect.value - exact[pin].value) / effect.half_width
        for pin, effect in values.placement_effects().items()
    ]
    assert np.max(np.abs(errors)) < 2.5
    assert np.std(errors) < 1.5 * 0.5**0.5 / 1.96


def by_hand() -> tuple[Pin, Pin, PinnedValues]:
    design = design_of("mobile-mini")
    a, b = pin_at(design, 0, 0, block=1), pin_at(design, 1, 0, block=1)
    assert a.block == b.block
    values = {None: np.array([1.0, 3.0]), a: np.array([4.0, 6.0]), b: np.array([7.0, 11.0])}
    values[pin_at(design, 2, 0, block=1)] = np.array([16.0, 16.0])
    values[pin_at(design, 0, 0, block=2)] = np.array([100.0, 120.0])
    return a, b, PinnedValues(values=values)


def test_equations_by_hand() -> None:
    a, b, values = by_hand()
    t = 12.706204736  # Student's t, one degree of freedom, 97.5 %
    response, other = values.block_responses().values()
    assert response.value == pytest.approx((5.0 + 9.0 + 16.0) / 3)
    # Variances of the three means: 2/2, 8/2 and none.
    assert response.half_width == pytest.approx(t * ((1.0 + 4.0) / 9) ** 0.5)
    assert (other.value, other.half_width) == pytest.approx((110.0, t * 10.0))
    effects = values.placement_effects()
    assert effects[a].value == pytest.approx(5.0 - 2.0)
    assert effects[b].value == pytest.approx(9.0 - 2.0)
    assert effects[b].half_width == pytest.approx(t * (4.0 + 1.0) ** 0.5)
    shifts = values.percentile_shifts(0.5, np.random.default_rng(0))
    assert shifts[a].value == 4.0 - 1.0
    assert shifts[b].value == 7.0 - 1.0
    # Of two values the ⌈1.4⌉-th.
    assert values.percentile_shifts(0.7, np.random.default_rng(0))[b].value == 11.0 - 3.0


def test_a_quantile_is_not_a_rank_further_for_rounding() -> None:
    """0.07 · 100 is 7.000000000000001 in floats, and the seventh smallest is meant."""
    pin, _, _ = by_hand()
    samples = {None: np.arange(1.0, 101.0), pin: np.arange(1.0, 101.0) ** 2}
    shifts = PinnedValues(values=samples).percentile_shifts(0.07, np.random.default_rng(0))
    assert shifts[pin].value == 49.0 - 7.0


def test_percentile_shifts_cover_the_truth() -> None:
    """Of normal samples a unit apart every quantile shifts by one."""
    pin, _, _ = by_hand()
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(300):
        samples = {None: rng.normal(0.0, 1.0, 100), pin: rng.normal(1.0, 1.0, 100)}
        shift = PinnedValues(values=samples).percentile_shifts(0.05, rng)[pin]
        assert shift.lo <= shift.hi
        covered.append(shift.lo <= 1.0 <= shift.hi)
    assert 0.90 < np.mean(covered) < 0.99


def test_one_draw_of_beta_stands_for_a_resample() -> None:
    """Against the bootstrap itself, with every resample drawn."""
    pin, _, _ = by_hand()
    rng = np.random.default_rng(4)
    base, moved = rng.gamma(2.0, 1.0, 60), rng.gamma(2.0, 2.0, 60)
    shift = PinnedValues(values={None: base, pin: moved}).percentile_shifts(0.95, rng)[pin]
    resampled = [
        np.quantile(rng.choice(moved, 60), 0.95, method="inverted_cdf")
        - np.quantile(rng.choice(base, 60), 0.95, method="inverted_cdf")
        for _ in range(4000)
    ]
    lo, hi = np.quantile(resampled, [0.025, 0.975])
    assert shift.lo == pytest.approx(lo, abs=0.15 * (hi - lo))
    assert shift.hi == pytest.approx(hi, abs=0.15 * (hi - lo))


def samples_of(archs: Sequence[Architecture], latency_s: np.ndarray) -> list[Sample]:
    return [
        Sample(arch=arch, latency_s=float(y), accuracy_pct=70.0 + 100.0 * float(y))
        for arch, y in zip(archs, latency_s, strict=True)
    ]


def test_a_campaigns_networks_become_effects() -> None:
    space = get_space("mobile-mini")
    design = design_of("mobile-mini")
    coefficients = additive(design)
    archs = in_rounds(space, pinned_networks(space, 5, 30))
    y = design.predictions(coefficients, design.encode(archs))
    found = fit_pinned(space, samples_of(archs, y), n_per_pin=30, seed=5)
    truth = design.expansion @ coefficients
    latency, accuracy = found.latency, found.accuracy
    assert accuracy is not None
    np.testing.assert_allclose(accuracy.values, 100.0 * latency.values, atol=1e-9)
    assert np.corrcoef(latency.values, truth)[0, 1] > 0.8
    for effect in found.effects:
        assert effect.latency is not None
        assert effect.latency.lo < effect.latency.value < effect.latency.hi
    blocks = found.of_kind("block")
    assert all(e.n_networks == 30 for e in blocks)
    assert all(e.n_networks == 9 * 30 for e in found.of_kind("network"))  # a slot each
    assert all(e.n_networks == 2 * 6 * 30 for e in found.of_kind("depth"))  # two optional layers
    first = [e.latency.value for e in blocks if (e.unit, e.layer) == (0, 0) and e.latency]
    assert sum(first) == pytest.approx(0.0, abs=1e-12)
    said = insights(found)
    assert said[0].startswith("A random network takes")
    assert "one-factor" in said[-1]


def test_a_campaign_that_was_stopped_early_says_what_it_lacks() -> None:
    space = get_space("mobile-mini")
    design = design_of("mobile-mini")
    archs = in_rounds(space, pinned_networks(space, 0, 10))
    y = design.predictions(additive(design), design.encode(archs))
    half = samples_of(archs, y)[: len(archs) // 2]
    found = fit_pinned(space, half, n_per_pin=10, seed=0)
    assert {e.n_networks for e in found.of_kind("block")} <= {4, 5, 6}
    with pytest.raises(DataError, match="at least 2 of every pin are needed"):
        fit_pinned(space, half[: len(half) // 4], n_per_pin=10, seed=0)


def test_accuracies_of_a_few_networks_leave_the_latencies_standing() -> None:
    """As in the shared design: a source that knows a part of the networks is named in a note."""
    space = get_space("mobile-mini")
    design = design_of("mobile-mini")
    archs = in_rounds(space, pinned_networks(space, 5, 10))
    y = design.predictions(additive(design), design.encode(archs))
    scored = samples_of(archs, y)
    few = [s if i < 20 else replace(s, accuracy_pct=None) for i, s in enumerate(scored)]
    found = fit_pinned(space, few, n_per_pin=10, seed=5)
    assert found.accuracy is None
    assert found.latency.values == pytest.approx(
        fit_pinned(space, scored, n_per_pin=10, seed=5).latency.values
    )
    assert found.notes[0].startswith("accuracy left out: ")
    assert "knows more networks" in found.notes[0]
