"""The additive latency model: exact where latency is additive, honest where it is not."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from hwprof.errors import (
    DataError,
    FormatVersionError,
    IncompatibleRunError,
    SpaceError,
    StoreError,
)
from hwprof.estimate.crossval import spearman
from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.estimate.latency_model_file import read_model, write_model
from hwprof.measure.records import Fingerprint
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Slot, get_space

HERE = Fingerprint(stable={"device": "cpu", "threads": 1})
THERE = Fingerprint(stable={"device": "cpu", "threads": 4})


def draw(space: DesignSpace, n: int, seed: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def additive(
    space: DesignSpace, archs: list[Architecture], seed: int = 0, noise: float = 0.0
) -> list[Sample]:
    """Return samples of an additive truth (the same for every call with one seed)."""
    design = DesignMatrix(space)
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 0.3e-3, design.n_coefficients)
    truth[0] = 10e-3
    y = design.rows(design.encode(archs)) @ truth
    y = y + np.random.default_rng(99).normal(0.0, noise, len(archs))
    return [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=True)]


@pytest.mark.parametrize("name", ["mobile-mini", "proxylessnas", "nasbench201", "ofa-resnet50"])
def test_additive_latency_is_predicted_exactly(name: str) -> None:
    space = get_space(name)
    model = AdditiveLatencyModel.fit(space, additive(space, draw(space, 300, 1)), HERE)
    new = draw(space, 50, 2)
    predicted, half = model.predict_many(new)
    assert predicted.tolist() == pytest.approx(
        [s.latency_s for s in additive(space, new)], rel=1e-9
    )
    assert half.max() < 1e-9
    assert model.penalty == 0.0
    assert model.holdout is not None
    assert model.holdout.within_5pct == 1.0
    assert model.holdout.spearman == pytest.approx(1.0)


def test_what_all_networks_are_off_by_alike_widens_every_interval(tmp_path: Path) -> None:
    space = get_space("mobile-mini")
    model = AdditiveLatencyModel.fit(
        space,
        additive(space, draw(space, 300, 1)),
        HERE,
        shares=np.full(300, 0.05),
        common_sd=0.01,
    )
    write_model(model, tmp_path / "model.npz")
    for found in (model, read_model(tmp_path / "model.npz")):
        predicted, half = found.predict_many(draw(space, 20, 2))
        # Nothing else is uncertain of an additive truth without noise, whatever error its
        # latencies are said to have: that would be in the residuals.
        assert half == pytest.approx(1.96 * 0.01 * predicted, rel=1e-4)


def test_networks_that_are_known_better_count_more() -> None:
    """Weighted least squares: by Gauss and Markov no other linear estimate errs less."""
    space = get_space("mobile-mini")
    archs, new = draw(space, 400, 1), draw(space, 200, 2)
    truth_s = np.array([s.latency_s for s in additive(space, archs)])
    shares = np.where(np.arange(400) % 2, 0.02, 0.2)
    noise = shares * np.random.default_rng(3).standard_normal(400)
    noisy = [
        Sample(arch=a, latency_s=float(v))
        for a, v in zip(archs, truth_s * (1 + noise), strict=True)
    ]
    expected_s = np.array([s.latency_s for s in additive(space, new)])
    errors = []
    for known in (None, shares):
        model = AdditiveLatencyModel.fit(space, noisy, shares=known)
        predicted, _ = model.predict_many(new)
        errors.append(np.sqrt(np.mean((predicted - expected_s) ** 2)))
        assert model.holdout is not None
        # Held-out networks are judged in seconds, whatever their weight.
        assert np.mean([h.actual_s for h in model.heldout]) == pytest.approx(
            np.mean([s.latency_s for s in noisy])
        )
    # Half of the networks say 100 times more than the others, so 0.1 of their error is left, and
    # twice that for they are half as many.
    assert errors[1] < 0.3 * errors[0]


def test_constant_and_table_add_up_to_the_prediction() -> None:
    space = get_space("ofa-resnet50")
    model = AdditiveLatencyModel.fit(space, additive(space, draw(space, 300, 1), noise=1e-4))
    table, factors = model.table(), model.factor_table()
    for arch in draw(space, 20, 3):
        layers = [
            (Slot(u, layer), block)
            for u, unit in enumerate(space.blocks(arch))
            for layer, block in enumerate(unit)
        ]
        levels = zip((f.name for f in space.factors), space.factor_levels(arch), strict=True)
        total = model.constant_s + sum(table[key] for key in layers)
        total += sum(factors[key] for key in levels)
        assert total == pytest.approx(model.predict_s(arch)[0], rel=1e-10)


def test_table_holds_the_cost_of_optional_layers() -> None:
    """A layer that adds 2 ms whatever stands in it shows as 2 ms at its slot."""
    space = get_space("mobile-mini")
    archs = draw(space, 200, 0)
    samples = [Sample(arch=a, latency_s=5e-3 + 2e-3 * (len(a.units[1]) == 3)) for a in archs]
    table = AdditiveLatencyModel.fit(space, samples).table()
    for block in space.choices(Slot(1, 2)):
        assert table[Slot(1, 2), block] == pytest.approx(2e-3, abs=1e-12)
        assert table[Slot(1, 0), block] == pytest.approx(0.0, abs=1e-12)


def test_prediction_intervals_cover_new_networks() -> None:
    space = get_space("mobile-mini")
    model = AdditiveLatencyModel.fit(space, additive(space, draw(space, 160, 1), noise=1e-4))
    new = draw(space, 800, 2)
    actual = np.array([s.latency_s for s in additive(space, new, noise=1e-4)])
    predicted, half = model.predict_many(new)
    coverage = np.mean(np.abs(actual - predicted) <= half)
    assert 0.92 < coverage < 0.98  # binomial sd 0.8 %, and one fitted model
    assert model.holdout is not None
    assert 0.88 < model.holdout.coverage95 <= 1.0  # 160 networks: sd 1.7 %


def test_few_networks_are_shrunk_and_still_ordered() -> None:
    """52 coefficients from 60 networks: ridge, with an error far below the plain mean's."""
    space = get_space("mobile-mini")
    samples = additive(space, draw(space, 60, 1), noise=5e-5)
    model = AdditiveLatencyModel.fit(space, samples)
    assert model.penalty > 0.0
    seen = model.table()
    new = [
        a
        for a in draw(space, 300, 2)
        if all(
            (Slot(u, n), b) in seen for u, unit in enumerate(a.units) for n, b in enumerate(unit)
        )
    ]
    assert len(new) > 200
    actual = np.array([s.latency_s for s in additive(space, new)])
    predicted, half = model.predict_many(new)
    error = np.sqrt(np.mean((predicted - actual) ** 2))
    assert error < 0.5 * actual.std()
    assert np.mean(np.abs(actual - predicted) <= half) > 0.85


def test_holdout_finds_nothing_in_pure_noise() -> None:
    space = get_space("mobile-mini")
    rng = np.random.default_rng(0)
    samples = [
        Sample(arch=a, latency_s=float(y))
        for a, y in zip(draw(space, 300, 0), 10.0 + rng.standard_normal(300), strict=True)
    ]
    holdout = AdditiveLatencyModel.fit(space, samples).holdout
    assert holdout is not None
    assert abs(holdout.spearman) < 0.2  # sd 1/√300 = 0.058
    assert 0.90 < holdout.coverage95 < 0.99
    assert holdout.n == 300


def test_same_networks_same_folds() -> None:
    space = get_space("mobile-mini")
    samples = additive(space, draw(space, 100, 1), noise=1e-4)
    first, again = (AdditiveLatencyModel.fit(space, samples).heldout for _ in range(2))
    assert first == again


def test_a_block_never_measured_is_refused_not_zero() -> None:
    space = get_space("mobile-mini")
    gone = space.choices(Slot(2, 0))[-1]
    poor = space.restrict({Slot(2, 0): space.choices(Slot(2, 0))[:-1]})
    model = AdditiveLatencyModel.fit(space, additive(space, draw(poor, 300, 0)))
    holding = next(a for a in draw(space, 100, 1) if a.units[2][0] == gone)
    with pytest.raises(SpaceError, match=r"mbconv_k7_e6 at u2\.l0 stood in none of the 300"):
        model.predict_s(holding)
    assert (Slot(2, 0), gone) not in model.table()
    uniform = {s: np.full(len(space.choices(s)), 1 / 6) for s in space.slots}
    with pytest.raises(SpaceError, match="stood in none"):
        model.expected_s(uniform)
    without = {**uniform, Slot(2, 0): np.array([0.2] * 5 + [0.0])}
    assert model.expected_s(without) > 0.0


def test_a_level_never_measured_has_no_expectation() -> None:
    space = get_space("ofa-resnet50")
    factor = space.factors[0]
    archs = [a for a in draw(space, 600, 1) if space.factor_levels(a)[0] != factor.levels[0]]
    model = AdditiveLatencyModel.fit(space, additive(space, archs, noise=1e-4), interactions=False)
    assert (factor.name, factor.levels[0]) not in model.factor_table()
    blocks = {s: [1.0 / len(space.choices(s))] * len(space.choices(s)) for s in space.slots}
    with pytest.raises(SpaceError, match="stood in none"):
        model.expected_s(blocks)
    others = len(factor.levels) - 1
    without = model.expected_s(blocks, factors={factor.name: [0.0, *[1.0 / others] * others]})
    assert without == pytest.approx(10e-3, rel=0.2)


def test_depths_never_measured_are_refused() -> None:
    space = get_space("mobile-mini")
    shallow = space.restrict({}, (3, 3, 2))
    model = AdditiveLatencyModel.fit(space, additive(space, draw(shallow, 300, 0)))
    deep = next(a for a in draw(space, 100, 1) if len(a.units[2]) == 3)
    with pytest.raises(SpaceError, match=r"at u2\.l2 stood in none"):
        model.predict_s(deep)


def test_too_few_networks_raise() -> None:
    space = get_space("mobile-mini")
    with pytest.raises(DataError, match="at least 10 are needed"):
        AdditiveLatencyModel.fit(space, additive(space, draw(space, 9, 0)))


def small_model() -> tuple[DesignSpace, AdditiveLatencyModel]:
    base = get_space("mobile-mini")
    two, three = ("mbconv_k3_e3", "mbconv_k7_e6"), base.choices(Slot(1, 0))[:3]
    alive = {Slot(0, 0): two, Slot(0, 1): two, Slot(1, 0): three, Slot(2, 0): two}
    space = base.restrict(alive, (2, 1, 1))
    return space, AdditiveLatencyModel.fit(space, additive(space, draw(space, 80, 0), noise=1e-4))


def test_expected_latency_is_the_enumerated_mean() -> None:
    space, model = small_model()
    rng = np.random.default_rng(0)
    probabilities = {s: rng.dirichlet(np.ones(len(space.choices(s)))) for s in space.slots}
    depth = np.array([0.3, 0.7])
    total = 0.0
    for d in (1, 2):
        slots = [s for s in space.slots if s.unit > 0 or s.layer < d]
        for picks in itertools.product(*(range(len(space.choices(s))) for s in slots)):
            chance = depth[d - 1]
            units: list[list[str]] = [[], [], []]
            for slot, pick in zip(slots, picks, strict=True):
                chance *= probabilities[slot][pick]
                units[slot.unit].append(space.choices(slot)[pick])
            arch = space.assemble(tuple(tuple(u) for u in units), ())
            total += chance * model.predict_s(arch)[0]
    assert model.expected_s(probabilities, depths={0: depth}) == pytest.approx(total, rel=1e-12)
    even = model.expected_s(probabilities, depths={0: [0.5, 0.5]})
    assert model.expected_s(probabilities) == pytest.approx(even)


def test_expected_latency_is_differentiable() -> None:
    torch = pytest.importorskip("torch")
    space, model = small_model()
    rng = np.random.default_rng(0)
    logits = {
        s: torch.tensor(rng.standard_normal(len(space.choices(s))), requires_grad=True)
        for s in space.slots
    }
    depth = torch.tensor([0.1, -0.4], dtype=torch.float64, requires_grad=True)

    def expected(values, depth_logits):
        shares = {s: torch.softmax(v, 0) for s, v in values.items()}
        return model.expected_s(shares, depths={0: torch.softmax(depth_logits, 0)})

    expected(logits, depth).backward()
    step = 1e-5
    for slot, values in logits.items():
        for i in range(len(values)):
            ends = []
            for sign in (1, -1):
                moved = {s: v.detach().clone() for s, v in logits.items()}
                moved[slot][i] += sign * step
                ends.append(float(expected(moved, depth.detach())))
            difference = (ends[0] - ends[1]) / (2 * step)
            assert float(values.grad[i]) == pytest.approx(difference, rel=1e-5, abs=1e-12)
    assert depth.grad.abs().max() > 0


def test_expected_latency_checks_what_it_is_given() -> None:
    space, model = small_model()
    good = {s: np.full(len(space.choices(s)), 1 / len(space.choices(s))) for s in space.slots}
    with pytest.raises(SpaceError, match=r"the 3 candidates of u1\.l0, got 2 numbers"):
        model.expected_s({**good, Slot(1, 0): np.array([0.5, 0.5])})
    del good[Slot(0, 1)]
    with pytest.raises(SpaceError, match=r"of u0\.l1, got nothing"):
        model.expected_s(good)


def test_saved_models_come_back_and_have_the_same_bytes(tmp_path: Path) -> None:
    space, _ = small_model()
    model = AdditiveLatencyModel.fit(space, additive(space, draw(space, 80, 0), noise=1e-4), HERE)
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    write_model(model, first)
    again = read_model(first)
    write_model(again, second)
    assert first.read_bytes() == second.read_bytes()
    assert again.space == space
    assert again.fingerprint == HERE
    assert again.holdout == model.holdout
    new = draw(space, 30, 7)
    for ours, theirs in zip(model.predict_many(new), again.predict_many(new), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(IncompatibleRunError, match="not of the mobile-mini at 32 px"):
        read_model(first, get_space("mobile-mini"))


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for content in (b"not a zip", b""):
        path.write_bytes(content)
        with pytest.raises(StoreError, match="as a latency model"):
            read_model(path)
    array = tmp_path / "x.npy"
    np.save(array, np.zeros(3))
    with pytest.raises(StoreError, match="as a latency model"):
        read_model(array)
    meta = b'{"kind": "additive_latency_model", "format": 3}'
    np.savez(path, meta=np.frombuffer(meta, dtype=np.uint8))
    with pytest.raises(FormatVersionError, match="has format 3; this version reads 1 and 2"):
        read_model(path)


def test_another_fingerprint_is_refused_unless_allowed() -> None:
    space, unnamed = small_model()
    model = AdditiveLatencyModel.fit(space, additive(space, draw(space, 80, 0)), HERE)
    model.require_fingerprint(HERE)
    with pytest.raises(IncompatibleRunError, match="fitted for threads 1, not 4"):
        model.require_fingerprint(THERE)
    with pytest.raises(IncompatibleRunError, match="does not say where"):
        unnamed.require_fingerprint(HERE)


def test_spearman_averages_ties() -> None:
    """By hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4 correlate at 4.5/√(4.5·5)."""
    tied, plain = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(tied, plain) == pytest.approx(4.5 / np.sqrt(4.5 * 5.0))
    assert spearman(np.ones(4), plain) == 0.0


def test_a_model_of_the_former_format_is_read(tmp_path: Path) -> None:
    """Format 1 had neither pairs of blocks nor a word on unused ones."""
    space, model = small_model()
    path = tmp_path / "model.npz"
    write_model(model, path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays["meta"].tobytes())
    assert meta["format"] == 2
    meta["format"] = 1
    del meta["drops_unused"]
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    np.savez(path, **arrays)
    again = read_model(path)
    assert not again.drops_unused
    archs = draw(space, 20, 8)
    np.testing.assert_array_equal(again.predict_many(archs), model.predict_many(archs))
