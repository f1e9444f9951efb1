"""Effects: exact on exact data, honest intervals on noisy data, and readable words."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hwprof.errors import DataError, SpaceError
from hwprof.estimate.design_matrix import DesignMatrix, Term
from hwprof.estimate.effects_csv import friendliness_from_csv
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.insights import insights
from hwprof.estimate.least_squares import hc3_covariance, ordinary_fit
from hwprof.estimate.responses import Friendliness
from hwprof.interval import Interval
from hwprof.results import Sample
from hwprof.space import Architecture, DesignSpace, Slot, get_space
from hwprof.space.pieces import MBConvPiece

NOTE10 = Path(__file__).resolve().parents[2] / "../shared/data/note10_ofa_mbv3_w12_blocks.csv.gz"
COLUMNS = (
    "kind,unit,layer,depth,block,latency_s,latency_lo_s,latency_hi_s,"
    "accuracy_pct,accuracy_lo_pct,accuracy_hi_pct,n_networks"
)


def tiny_space() -> DesignSpace:
    """9 coefficients: depth 1 or 2 in unit 0, two to three candidates a slot."""
    two = ("mbconv_k3_e3", "mbconv_k7_e6")
    alive = {Slot(0, 0): two, Slot(0, 1): two, Slot(1, 0): (*two[:1], "mbconv_k5_e3", two[1])}
    return get_space("mobile-mini").restrict({**alive, Slot(2, 0): two}, (2, 1, 1))


def draw(space: DesignSpace, n: int, seed: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


def make_samples(archs, latency, accuracy=None) -> list[Sample]:
    points = [None] * len(archs) if accuracy is None else [float(a) for a in accuracy]
    return [
        Sample(arch=arch, latency_s=float(y), accuracy_pct=a)
        for arch, y, a in zip(archs, latency, points, strict=True)
    ]


def value(interval: Interval | None) -> float:
    assert interval is not None
    return interval.value


@lru_cache
def noise_free() -> tuple[Friendliness, np.ndarray, np.ndarray]:
    """mobile-mini with additive latency and accuracy: fit and true effects of both."""
    space = get_space("mobile-mini")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    seconds = rng.normal(0.0, 1e-3, design.n_coefficients)
    points = rng.normal(0.0, 1.0, design.n_coefficients)
    seconds[0], points[0] = 0.02, 70.0
    archs = draw(space, 200, 1)
    X = design.rows(design.encode(archs))
    found = fit_friendliness(space, make_samples(archs, X @ seconds, X @ points))
    return found, design.expansion @ seconds, design.expansion @ points


def test_additive_data_is_recovered_exactly() -> None:
    found, seconds, points = noise_free()
    assert found.mean_latency is not None
    assert found.mean_accuracy is not None
    assert found.mean_latency.value == pytest.approx(0.02, rel=1e-10)
    assert found.mean_accuracy.value == pytest.approx(70.0, rel=1e-10)
    np.testing.assert_allclose(
        np.array([value(e.latency) for e in found.effects]), seconds, atol=1e-12
    )
    np.testing.assert_allclose(
        np.array([value(e.accuracy) for e in found.effects]), points, atol=1e-9
    )
    assert found.latency.r2 == pytest.approx(1.0)
    assert found.accuracy is not None
    assert found.accuracy.r2 == pytest.approx(1.0)


@lru_cache
def note10() -> Friendliness:
    if not NOTE10.exists():
        pytest.skip(f"needs the Note10 block table ({NOTE10.name}) in ../shared/data")
    space = get_space("ofa-mbv3-w1.2")
    frame = pd.read_csv(io.BytesIO(gzip.decompress(NOTE10.read_bytes())))
    frame = frame[frame.resolution == 224]
    blocks = frame[frame.op == "expanded_conv"]
    keys = ["input_h", "input_c", "output_c", "expand", "kernel", "stride", "se", "hs"]
    table = dict(
        zip(
            blocks[keys].astype(int).itertuples(index=False, name=None),
            blocks.mean_ms,
            strict=True,
        )
    )
    outside = frame[frame.op != "expanded_conv"].mean_ms.sum() + table[112, 24, 24, 24, 3, 1, 0, 0]

    def latency_s(arch: Architecture) -> float:
        total = float(outside)
        for placed in space.pieces(arch):
            p = placed.piece
            if placed.slot is not None and isinstance(p, MBConvPiece):
                shape = (p.size_px, p.in_channels, p.out_channels, p.mid_channels)
                kind = (p.kernel, p.stride, int(p.squeeze_excite), int(p.act == "hswish"))
                total += table[(*shape, *kind)]
        return 1e-3 * total

    archs = draw(space, 400, 5)
    return fit_friendliness(space, make_samples(archs, [latency_s(a) for a in archs]))


def test_note10_effects_equal_the_exact_truth() -> None:
    """Golden values: block-profiling method, "Exact truth for estimator tests, Note10 table"."""
    found = note10()
    assert found.mean_latency is not None
    assert found.mean_latency.value * 1e3 == pytest.approx(41.79615, abs=5e-6)
    deltas = {(e.unit, e.depth): value(e.latency) * 1e3 for e in found.of_kind("depth")}
    for unit, delta in enumerate([4.5336, 2.1442, 1.5594, 2.7696, 1.5564]):
        assert deltas[unit, 3] == pytest.approx(delta, abs=5e-5)
        assert deltas[unit, 4] == pytest.approx(delta, abs=5e-5)
    first = [value(e.latency) * 1e3 for e in found.of_kind("block") if (e.unit, e.layer) == (0, 0)]
    expected = [-2.572, -1.539, -0.025, -1.812, -0.577, 1.089, -0.227, 1.546, 4.115]
    np.testing.assert_allclose(first, expected, atol=6e-4)
    whole = [value(e.latency) * 1e3 for e in found.of_kind("network")]
    expected = [-17.561, -12.075, -4.279, -11.212, -3.990, 5.871, 2.167, 12.920, 28.160]
    np.testing.assert_allclose(whole, expected, atol=1.1e-3)


def test_figures_of_a_fit_are_those_of_the_textbook() -> None:
    """R², s² (XᵀX)⁻¹, and the F test of one regressor more (Tukey's single degree of freedom)."""
    space = tiny_space()
    design = DesignMatrix(space)
    archs = draw(space, 40, 2)
    X = design.rows(design.encode(archs))
    rng = np.random.default_rng(5)
    y = 10.0 + X[:, 1:] @ rng.normal(size=X.shape[1] - 1)
    y = y + 0.02 * y**2 + rng.normal(0.0, 0.3, len(y))
    found = fit_friendliness(space, make_samples(archs, y)).latency
    predicted = X @ np.linalg.lstsq(X, y)[0]
    more = np.column_stack([X, (predicted - predicted.mean()) ** 2])
    curved = np.linalg.lstsq(more, y)[0]
    left, left_curved = ((y - p) @ (y - p) for p in (predicted, more @ curved))
    n, p = X.shape
    total = (y - y.mean()) @ (y - y.mean())
    assert found.r2 == pytest.approx(1.0 - left / total)
    even = left / (n - p) * (design.expansion @ np.linalg.inv(X.T @ X) @ design.expansion.T)
    np.testing.assert_allclose(found.even_covariance, even)
    lack = found.lack_of_fit
    assert lack is not None
    assert lack.curvature == pytest.approx(curved[-1])
    assert lack.r2_curved == pytest.approx(1.0 - left_curved / total)
    ratio = (left - left_curved) / (left_curved / (n - p - 1))
    assert lack.curvature_p == pytest.approx(stats.f.sf(ratio, 1, n - p - 1))
    assert 1e-6 < lack.curvature_p < 0.5


def test_intervals_cover_the_truth_under_uneven_noise() -> None:
    """300 small fits; noise grows with latency. HC3 errs on the wide side, never far below."""
    space = tiny_space()
    design = DesignMatrix(space)
    rng = np.random.default_rng(7)
    truth = rng.normal(0.0, 1.0, design.n_coefficients)
    truth[0] = 20.0
    effects = design.expansion @ truth
    hits = np.zeros(len(effects))
    for seed in range(300):
        archs = draw(space, 72, 1000 + seed)
        mean = design.rows(design.encode(archs)) @ truth
        noise = rng.standard_normal(72) * 0.05 * (mean - 12.0)
        found = fit_friendliness(space, make_samples(archs, mean + noise))
        half = np.array([e.latency.half_width for e in found.effects if e.latency])
        hits += np.abs(found.latency.values - effects) <= half
    coverage = hits / 300
    # Binomial sd at 0.95 and 300 fits is 1.26 %; 16 effects, so four of them.
    assert coverage.min() > 0.95 - 4 * 0.0126
    assert 0.94 < coverage.mean() < 0.985


def test_whole_network_covariance_is_what_repetition_shows() -> None:
    """W's covariance against the spread of W over 400 noise draws on the same networks."""
    space = tiny_space()
    design = DesignMatrix(space)
    archs = draw(space, 150, 3)
    X = design.rows(design.encode(archs))
    rng = np.random.default_rng(11)
    places = [i for i, t in enumerate(design.terms) if t.kind == "network"]
    repeats, claimed = [], []
    for _ in range(400):
        y = 10.0 + rng.normal(0.0, 0.3, len(archs))
        fit = ordinary_fit(X, y)
        repeats.append(design.expansion[places] @ fit.coefficients)
        claimed.append(
            design.expansion[places] @ hc3_covariance(X, fit) @ design.expansion[places].T
        )
    seen, said = np.cov(np.array(repeats).T), np.mean(claimed, axis=0)
    scale = np.sqrt(np.outer(np.diag(seen), np.diag(seen)))
    # sd of a covariance over 400 draws is about 7 %; HC3 is up to 1/(1 − p/n) = 6 % wide.
    assert np.abs((said - seen) / scale).max() < 0.25
    assert said[0, 1] / np.sqrt(said[0, 0] * said[1, 1]) < -0.2


def test_accuracy_uses_only_networks_that_have_it() -> None:
    space = tiny_space()
    archs = draw(space, 60, 0)
    samples = make_samples(archs, np.linspace(1.0, 2.0, 60))
    assert fit_friendliness(space, samples).accuracy is None
    some = [
        Sample(arch=s.arch, latency_s=s.latency_s, accuracy_pct=70.0 + i % 3 if i < 30 else None)
        for i, s in enumerate(samples)
    ]
    found = fit_friendliness(space, some)
    assert found.accuracy is not None
    assert (found.latency.n_networks, found.accuracy.n_networks) == (60, 30)
    few = [
        Sample(arch=s.arch, latency_s=s.latency_s, accuracy_pct=70.0 if i < 4 else None)
        for i, s in enumerate(samples)
    ]
    lacking = fit_friendliness(space, few)
    assert lacking.accuracy is None
    assert "accuracy left out: 4 networks" in lacking.notes[0]


def test_too_few_networks_raise() -> None:
    space = tiny_space()
    archs = draw(space, 7, 0)
    with pytest.raises(DataError, match="are needed"):
        fit_friendliness(space, make_samples(archs, np.arange(7.0)))
    archs = draw(space, 40, 0)
    with pytest.raises(DataError, match="1 values are not finite"):
        fit_friendliness(space, make_samples(archs, [np.inf, *[1e-3] * 39]))


def test_an_effect_resting_on_one_network_borrows_the_noise_of_the_others() -> None:
    """Its network is fitted exactly and has no residual; the effect's sd is about the noise's."""
    space = tiny_space()
    rare = "mbconv_k5_e3"
    archs = [a for a in draw(space, 200, 0) if a.units[1][0] != rare]
    alone = next(a for a in draw(space, 200, 0) if a.units[1][0] == rare)
    rng = np.random.default_rng(0)
    y = 5.0 + rng.normal(0.0, 0.1, len(archs) + 1)
    found = fit_friendliness(space, make_samples([*archs, alone], y))
    (effect,) = [e for e in found.effects if (e.kind, e.unit, e.block) == ("block", 1, rare)]
    assert effect.n_networks == 1
    # β of one of three: 2/3 of (its network − the mean of two well known others).
    assert effect.latency is not None
    assert effect.latency.half_width == pytest.approx(1.97 * 2 / 3 * 0.1, rel=0.15)
    assert f"{rare} at u1.l0 and 1 more stood in a single network" in found.notes[0]


def test_saturation_shows_as_lack_of_fit() -> None:
    space = tiny_space()
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    archs = draw(space, 200, 0)
    truth = rng.normal(0.0, 0.5, design.n_coefficients)
    x = design.rows(design.encode(archs)) @ truth
    noise = rng.normal(0.0, 0.05, 200)
    bent = fit_friendliness(space, make_samples(archs, 10.0 + x - 0.15 * x**2 + noise))
    straight = fit_friendliness(space, make_samples(archs, 10.0 + x + noise))
    assert bent.latency.lack_of_fit is not None
    assert straight.latency.lack_of_fit is not None
    assert bent.latency.lack_of_fit.curvature_p < 1e-6
    assert bent.latency.lack_of_fit.r2_curved > (bent.latency.r2 or 0.0)
    assert straight.latency.lack_of_fit.curvature_p > 0.01


def test_rounding_is_not_taken_for_lack_of_fit() -> None:
    """Exactly additive latencies leave rounding over; a squared term would find something in it."""
    found, _, _ = noise_free()
    for response in (found.latency, found.accuracy):
        assert response is not None
        assert response.lack_of_fit is not None
        assert response.lack_of_fit.curvature_p == 1.0
        assert response.lack_of_fit.r2_curved == 1.0


def test_csv_has_the_documented_columns_and_round_trips(tmp_path: Path) -> None:
    found, seconds, _ = noise_free()
    text = found.to_csv()
    assert text.splitlines()[0] == COLUMNS
    path = tmp_path / "effects.csv"
    path.write_text(text)
    again = friendliness_from_csv(path, found.space)
    np.testing.assert_allclose(again.latency.values, seconds, atol=1e-12)
    assert [e.n_networks for e in again.effects] == [e.n_networks for e in found.effects]
    assert again.mean_latency is None
    assert "independent" in again.notes[0]


def test_csv_standard_errors_are_those_of_the_fit(tmp_path: Path) -> None:
    space = tiny_space()
    rng = np.random.default_rng(4)
    archs = draw(space, 300, 4)
    found = fit_friendliness(space, make_samples(archs, 5.0 + rng.standard_normal(300)))
    path = tmp_path / "effects.csv"
    path.write_text(found.to_csv())
    again = friendliness_from_csv(path, space)
    ours = np.sqrt(np.diag(found.latency.covariance))
    theirs = np.sqrt(np.diag(again.latency.covariance))
    np.testing.assert_allclose(theirs, ours, rtol=0.02)  # t against normal quantile


def test_csv_of_whole_network_effects_is_spread_over_slots(tmp_path: Path) -> None:
    space = get_space("ofa-mbv3-w1.2")
    rows = [
        f"network,,,,{block},{w},{w - 0.01},{w + 0.01}"
        for block, w in zip(space.choices(Slot(0, 0)), np.arange(9.0) - 4.0, strict=True)
    ]
    path = tmp_path / "w.csv"
    path.write_text("\n".join([",".join(COLUMNS.split(",")[:8]), *rows]))
    found = friendliness_from_csv(path, space)
    place = found.design.index[Term(kind="block", unit=2, layer=3, block="mbconv_k7_e6")]
    # Σ P(d ≥ l) over OFA's twenty slots is 5 · (1 + 1 + 2/3 + 1/3) = 15.
    assert found.latency.values[place] == pytest.approx(4.0 / 15.0)
    assert found.accuracy is None


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ("block,0,0,,mbconv_k9_e6,1,0,2", SpaceError, "mbconv_k9_e6 at u0.l0"),
        ("block,0,0,,mbconv_k3_e3,1,2,3", DataError, "latency_lo_s <= latency_s"),
        ("block,0,0,,mbconv_k3_e3,1,0,2", DataError, "lack the latency of block"),
        ("depth,0,,2,,1,0,2", DataError, "no latency of any block"),
    ],
)
def test_damaged_csv_is_refused(tmp_path: Path, row: str, error: type, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("\n".join([",".join(COLUMNS.split(",")[:8]), row]))
    with pytest.raises(error, match=message):
        friendliness_from_csv(path, tiny_space())


def test_insights_name_the_costly_block_and_what_dominates() -> None:
    space = tiny_space()
    design = DesignMatrix(space)
    truth = np.zeros(design.n_coefficients)
    truth[0] = 10e-3
    # In every slot the last candidate, mbconv_k7_e6, is the slow one; depth costs little.
    for decision in design.decisions:
        first = decision.columns.start + decision.has_depth
        truth[first : decision.columns.stop] = -1e-3
        if decision.has_depth:
            truth[decision.columns.start] = 0.1e-3
    archs = draw(space, 200, 0)
    noise = np.random.default_rng(0).normal(0.0, 1e-5, 200)
    y = design.rows(design.encode(archs)) @ truth + noise
    found = replace(fit_friendliness(space, make_samples(archs, y)), device="board")
    said = insights(found)
    assert said[0].startswith("A random network takes 10.0001 ± 0.0014 ms on board")
    assert any(s.startswith("Avoid mbconv_k7_e6") and "unit 1 layer 0" in s for s in said)
    assert any("moved more by the choice of blocks than by depth" in s for s in said)


def test_accuracy_that_saturates_is_said_to() -> None:
    space = get_space("mobile-mini")
    design = DesignMatrix(space)
    rng = np.random.default_rng(8)
    points = rng.normal(0.0, 1.0, design.n_coefficients)
    points[0] = 0.0
    archs = draw(space, 250, 8)
    added = design.rows(design.encode(archs)) @ points
    latency = 0.02 + 0.001 * added
    noise = rng.normal(0.0, 0.05, len(archs))
    for bend, said in ((-0.05, "Accuracy saturates"), (0.0, "as far as a squared term can tell")):
        accuracy = 70.0 + added + bend * added**2 + noise
        found = fit_friendliness(space, make_samples(archs, latency, accuracy))
        assert any(said in sentence for sentence in insights(found))


@pytest.mark.parametrize("by_block", [0.1, 0.0])
def test_depth_is_named_by_its_number_of_layers(by_block: float) -> None:
    """Layers are counted from 0 wherever one is named; a depth is a number of them.

    Depth may pay where no block does.
    """
    space = tiny_space()
    design = DesignMatrix(space)
    # The layer gives a point; blocks differ a little, or not.
    points = np.full(design.n_coefficients, by_block)
    points[design.expansion[design.index[Term(kind="depth", unit=0, depth=2)]] > 0] = 1.0
    archs = draw(space, 60, 3)
    gained = design.rows(design.encode(archs)) @ points
    noise = np.random.default_rng(4).normal(0.0, 1e-3, (2, len(archs)))
    samples = make_samples(archs, 0.01 + 1e-3 * (gained + noise[0]), 70.0 + gained + noise[1])
    said = insights(fit_friendliness(space, samples))
    (sentence,) = [s for s in said if s.startswith("Depth is best spent")]
    assert sentence.startswith("Depth is best spent in unit 0: reaching 2 layers buys 1")
