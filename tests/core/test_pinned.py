"""The published one-factor procedure: its samples, its estimators, and its campaigns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.api.profiling import ProfileResult
from hwprof.campaign import plan_campaign
from hwprof.errors import DataError, IncompatibleRunError, PlanError
from hwprof.estimate.design_matrix import DesignMatrix, Term, n_coefficients
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.insights import insights
from hwprof.estimate.pinned import PinnedValues, measure_pins
from hwprof.estimate.pinned_effects import equivalent_effects, fit_pinned, pinned_response
from hwprof.estimate.pinning import (
    Pin,
    PinnedForm,
    depth_law,
    in_rounds,
    pinned_codes,
    pinned_networks,
    pins_of,
    random_codes,
)
from hwprof.estimate.precision import (
    allowing_for_fit,
    hardest_slot,
    networks_for_half_width,
    pilot_size,
    plan_precision,
)
from hwprof.measure import engine
from hwprof.measure.records import Fingerprint, Loaded, Measurement, MeasurePlan, Result
from hwprof.protocols import Sink
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Slot, get_space, space_names
from hwprof.store import Run
from hwprof.workload import Workload

N = 3000


@lru_cache
def design_of(name: str) -> DesignMatrix:
    return DesignMatrix(get_space(name))


def tiny_space() -> DesignSpace:
    """Two depths in unit 0, two candidates a slot."""
    two = ("mbconv_k3_e3", "mbconv_k7_e6")
    alive = {Slot(0, 0): two, Slot(0, 1): two, Slot(1, 0): two, Slot(2, 0): two}
    return get_space("mobile-mini").restrict(alive, (2, 1, 1))


def pin_at(design: DesignMatrix, unit: int, layer: int, block: int = 0) -> Pin:
    here = [p for p in pins_of(design) if p.slot == Slot(unit, layer)]
    return here[block]


def depths_of(design: DesignMatrix, codes: np.ndarray, unit: int) -> np.ndarray:
    columns = [i for i, d in enumerate(design.decisions) if d.slot and d.slot.unit == unit]
    return np.asarray((codes[:, columns] >= 0).sum(axis=1))


def shares(depths: np.ndarray) -> dict[int, float]:
    return {depth: n / len(depths) for depth, n in sorted(Counter(depths.tolist()).items())}


# ---------------------------------------------------------------------- samples


@pytest.mark.parametrize("name", space_names())
def test_random_codes_are_the_networks_of_the_space(name: str) -> None:
    design = design_of(name)
    codes = random_codes(design, np.random.default_rng(7), 50)
    rng = np.random.default_rng(7)
    archs = [design.space.sample(rng) for _ in range(50)]
    np.testing.assert_array_equal(codes, [design.space.encode(a) for a in archs])
    assert [design.space.decode(row) for row in codes] == archs


@pytest.mark.parametrize(("name", "n"), [("ofa-mbv3-w1.2", 180), ("ofa-proxylessnas-w1.3", 189)])
def test_there_are_as_many_pins_as_the_paper_has(name: str, n: int) -> None:
    """180 and 189: the released code's campaign (block-profiling method, section 1)."""
    assert len(pins_of(design_of(name))) == n


@pytest.mark.parametrize("name", space_names())
def test_a_pinned_block_is_there_in_the_texts_form(name: str) -> None:
    design = design_of(name)
    for pin in pins_of(design)[::5]:
        codes = pinned_codes(design, pin, np.random.default_rng(0), 20)
        assert (codes[:, pin.column] == pin.code).all()
        for row in codes:
            design.space.validate(design.space.decode(row))


@pytest.mark.parametrize(
    ("form", "layer", "expected"),
    [
        ("text", 1, {2: 1 / 3, 3: 1 / 3, 4: 1 / 3}),
        ("text", 2, {3: 1 / 2, 4: 1 / 2}),
        ("text", 3, {4: 1.0}),
        ("deepen", 2, {3: 2 / 3, 4: 1 / 3}),
        ("deepen", 3, {4: 1.0}),
        ("released", 1, {2: 1 / 3, 3: 1 / 3, 4: 1 / 3}),
        ("released", 2, {2: 1 / 3, 3: 1 / 3, 4: 1 / 3}),
        ("released", 3, {3: 2 / 3, 4: 1 / 3}),
    ],
)
def test_depths_of_each_form(form: PinnedForm, layer: int, expected: Mapping[int, float]) -> None:
    """Layers counted from 0: the released code never deepens enough for the last two."""
    design = design_of("ofa-mbv3-w1.2")
    codes = pinned_codes(design, pin_at(design, 1, layer), np.random.default_rng(1), N, form)
    found = shares(depths_of(design, codes, 1))
    assert depth_law(design.space, Slot(1, layer), form) == pytest.approx(expected)
    assert found == pytest.approx(expected, abs=5 * 0.5 / N**0.5)
    other = shares(depths_of(design, codes, 2))
    assert other == pytest.approx({2: 1 / 3, 3: 1 / 3, 4: 1 / 3}, abs=5 * 0.5 / N**0.5)


@pytest.mark.parametrize(("layer", "share"), [(0, 1.0), (1, 1.0), (2, 2 / 3), (3, 1 / 3)])
def test_the_released_form_loses_its_block(layer: int, share: float) -> None:
    """Block-profiling method, section 4: there in 2/3 (third layer) and 1/3 (fourth) only."""
    design = design_of("ofa-mbv3-w1.2")
    pin = pin_at(design, 3, layer, block=4)
    codes = pinned_codes(design, pin, np.random.default_rng(2), N, "released")
    there = codes[:, pin.column] == pin.code
    assert there.mean() == pytest.approx(share, abs=5 * 0.5 / N**0.5)
    assert (codes[~there, pin.column] == -1).all()


def test_more_networks_extend_every_sample() -> None:
    space = get_space("mobile-mini")
    few, many = pinned_networks(space, 3, 4), pinned_networks(space, 3, 9)
    assert few.keys() == many.keys()
    assert all(many[pin][:4] == archs for pin, archs in few.items())
    assert pinned_networks(space, 4, 4) != few


def test_rounds_take_every_pin_in_turn_and_no_network_twice() -> None:
    space = get_space("mobile-mini")
    networks = pinned_networks(space, 0, 3)
    order = in_rounds(space, networks)
    assert len({space.canonical(a).arch_id for a in order}) == len(order)
    first = {space.canonical(archs[0]).arch_id for archs in networks.values()}
    assert {space.canonical(a).arch_id for a in order[: len(first)]} == first


# ---------------------------------------------------------------------- estimators


def additive(design: DesignMatrix, seed: int = 0) -> np.ndarray:
    coefficients = np.random.default_rng(seed).normal(0.0, 1e-3, design.n_coefficients)
    coefficients[0] = 0.04
    return coefficients


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
    return a, b, PinnedValues(values=values)


def test_equations_by_hand() -> None:
    a, b, values = by_hand()
    t = 12.706204736  # Student's t, one degree of freedom, 97.5 %
    (response,) = values.block_responses().values()
    assert response.value == pytest.approx((5.0 + 9.0) / 2)
    # Variances of the two means: 2/2 and 8/2.
    assert response.half_width == pytest.approx(t * ((1.0 + 4.0) / 4) ** 0.5)
    effects = values.placement_effects()
    assert effects[a].value == pytest.approx(5.0 - 2.0)
    assert effects[b].value == pytest.approx(9.0 - 2.0)
    assert effects[b].half_width == pytest.approx(t * (4.0 + 1.0) ** 0.5)
    shifts = values.percentile_shifts(0.5, np.random.default_rng(0))
    assert shifts[a].value == 4.0 - 1.0
    assert shifts[b].value == 7.0 - 1.0


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
    found = fit_pinned(space, samples_of(archs, y), n_per_pin=30, seed=5, device="board")
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


# ---------------------------------------------------------------------- how many networks


def test_half_width_formula() -> None:
    """N = 8 z² σ²(1 − R²)/(P h²) for nine candidates (block-profiling method)."""
    n = networks_for_half_width(residual_sd=0.8, half_width=0.1, n_candidates=9, presence=1 / 3)
    assert n == pytest.approx(8 * 1.96**2 * 0.8**2 / (1 / 3 * 0.1**2), rel=1e-4)
    slot, presence = hardest_slot(get_space("ofa-mbv3-w1.2"))
    assert slot.layer == 3
    assert presence == pytest.approx(1 / 3)
    slot, presence = hardest_slot(get_space("nasbench201"))
    assert presence == 1.0


@pytest.mark.parametrize(("wanted", "p"), [(10.0, 52), (300.0, 171), (1e6, 171)])
def test_networks_that_the_fit_uses_up(wanted: float, p: int) -> None:
    n = allowing_for_fit(wanted, p)
    assert n / (n - p) ** 2 <= 1 / wanted < (n - 1) / (n - 1 - p) ** 2
    assert n <= wanted + 2 * p + 1


def test_the_planned_number_of_networks_gives_the_half_width() -> None:
    space = get_space("mobile-mini")
    design = design_of("mobile-mini")
    coefficients, rng = additive(design), np.random.default_rng(6)
    ratios = []
    for _ in range(12):
        codes = random_codes(design, rng, 3000)
        y = design.predictions(coefficients, codes) + rng.normal(0.0, 1e-3, len(codes))
        archs = [space.decode(row) for row in codes[:900]]
        samples = [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=False)]
        plan = plan_precision(space, samples[: pilot_size(space)], 0.01)
        assert plan.n_networks < len(samples)
        found = fit_friendliness(space, samples[: plan.n_networks])
        widths = [
            e.latency.half_width
            for e in found.of_kind("block")
            if e.latency is not None and (e.unit, e.layer) == tuple(plan.slot)
        ]
        ratios.append(np.mean(widths) / plan.half_width_s)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.1)


def test_a_share_is_asked_for() -> None:
    with pytest.raises(PlanError, match="expected a share such as 1%"):
        plan_precision(tiny_space(), [], 1.5)


# ---------------------------------------------------------------------- campaigns

FINGERPRINT = Fingerprint(stable={"device": "null", "runtime": "null"})


class PricedEngine:
    """Stands for the engine: every network takes what an additive truth says, plus noise."""

    def __init__(self, space: DesignSpace, noise_s: float = 1e-4) -> None:
        self.design = DesignMatrix(space)
        self.coefficients = additive(self.design)
        self.noise_s = noise_s
        self.n_measured = 0
        self.stop_after: int | None = None

    def __call__(
        self,
        workloads: Sequence[Workload],
        device: object,
        plan: MeasurePlan,
        *,
        sink: Sink,
        **_: object,
    ) -> Iterator[Result]:
        for workload in workloads[: self.stop_after]:
            self.n_measured += 1
            sink.opened(FINGERPRINT)
            result = self.measurement(workload, plan)
            sink.done(result)
            yield result

    def measurement(self, workload: Workload, plan: MeasurePlan) -> Measurement:
        level = 1e-3
        if workload.arch is not None:
            noise = np.random.default_rng(int(workload.key, 16)).normal(0.0, self.noise_s)
            codes = self.design.encode([workload.arch])
            level = float(self.design.predictions(self.coefficients, codes)[0]) + noise
        return Measurement(
            workload=workload,
            plan=plan,
            fingerprint=FINGERPRINT,
            bursts=(),
            loaded=Loaded(load_s=0.0, artifact_bytes=0, peak_memory_bytes=None),
            level_s=level,
            ci95_s=(0.99 * level, 1.01 * level),
            median_s=level,
            p90_s=level,
            p99_s=level,
            verdict="clean",
            evidence=(),
        )


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> PricedEngine:
    made = PricedEngine(tiny_space())
    monkeypatch.setattr(engine, "measure", made)
    return made


def test_a_pinned_campaign_grows_and_keeps_its_design() -> None:
    space = get_space("mobile-mini")
    few = plan_campaign(space, seed=1, n_networks=2, isolated=False, design="pinned")
    more = plan_campaign(space, seed=1, n_networks=5, isolated=False, design="pinned")
    assert few.networks == more.networks[: len(few.networks)]
    n_samples = 1 + len(pins_of(design_of("mobile-mini")))
    assert 0.9 * 2 * n_samples < len(few.networks) <= 2 * n_samples
    assert few.n_networks == 2
    with pytest.raises(PlanError, match="expected 'shared' or 'pinned'"):
        plan_campaign(space, design="factorial")


def test_a_pinned_profile_gives_effects(priced: PricedEngine, tmp_path: Path) -> None:
    space, out = tiny_space(), tmp_path / "run"
    result = api.profile(
        space=space, out=out, device="null", design="pinned", networks=40, isolated=False
    )
    assert result.n_left == 0
    found = api.effects(out)
    assert dict(found.space.alive) == dict(space.alive)
    truth = priced.design.expansion @ priced.coefficients
    np.testing.assert_allclose(found.latency.values, truth, atol=1.5e-3)
    assert np.corrcoef(found.latency.values, truth)[0, 1] > 0.9
    assert any("one-factor" in note for note in found.notes)
    with Run.open(out) as run:
        assert run.request["design"] == "pinned"
        assert run.request["networks"] == 40
    with pytest.raises(IncompatibleRunError, match="design"):
        api.profile(space=space, out=out, device="null", networks=40)


def test_a_half_width_chooses_the_networks(
    priced: PricedEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = get_space("mobile-mini")
    made = PricedEngine(space, noise_s=1e-3)
    monkeypatch.setattr(engine, "measure", made)
    said: list[str] = []

    def ask() -> ProfileResult:
        return api.profile(
            space=space,
            out=tmp_path / "run",
            device="null",
            half_width=0.015,
            isolated=False,
            on_plan=lambda plan: said.append(str(plan)),
        )

    made.stop_after = 30
    result = ask()
    assert result.precision is None, "the pilot is not done"
    assert result.n_left == pilot_size(space) - 30
    made.stop_after = None
    result = ask()
    assert result.precision is not None
    assert (
        result.precision.n_pilot
        == pilot_size(space)
        == made.n_measured - (result.precision.n_networks - pilot_size(space))
    )
    assert result.n_done == result.precision.n_networks > n_coefficients(space)
    assert said[0].startswith(f"{result.precision.n_networks} networks give every slot effect")
    assert result.to_json()["precision"]["slot"] == str(result.precision.slot)
    before = made.n_measured
    assert ask().precision == result.precision
    assert made.n_measured == before, "nothing new: the same pilot gives the same plan"
    sequence = plan_campaign(space, n_networks=result.n_done, isolated=False).networks
    with Run.open(tmp_path / "run") as run:
        assert run.measured_keys() == {w.key for w in sequence}


@pytest.mark.parametrize("more", [{"networks": 5}, {"design": "pinned"}])
def test_a_half_width_leaves_no_other_choice(
    more: Mapping[str, object], priced: PricedEngine, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=f"leave out --{next(iter(more))}"):
        api.profile(  # type: ignore[call-overload, unused-ignore]
            space=tiny_space(),
            out=tmp_path / "run",
            device="null",
            half_width=0.01,
            **more,  # type: ignore[arg-type]
        )
    assert priced.n_measured == 0
