"""Claims about single slots: Holm's adjustment, and what it keeps in hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwprof.estimate.claims import holm, slot_claims
from hwprof.estimate.design_matrix import DesignMatrix, Term
from hwprof.estimate.friendliness import fit_friendliness
from hwprof.estimate.insights import insights
from hwprof.estimate.pinning import random_codes
from hwprof.results import Sample
from hwprof.space import Slot, get_space

TWO = ("mbconv_k3_e3", "mbconv_k7_e6")
SPACE = get_space("mobile-mini").restrict(
    {Slot(0, 0): TWO, Slot(0, 1): TWO, Slot(1, 0): TWO, Slot(2, 0): TWO}, (2, 1, 1)
)
DESIGN = DesignMatrix(SPACE)


def test_holm_by_hand() -> None:
    """Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04; the last may not be less."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    assert holm([]).size == 0


def fitted(seed: int, beta: float):
    """Networks whose latency is noise, but for one block at one slot."""
    rng = np.random.default_rng(seed)
    codes = random_codes(DESIGN, rng, 60)
    effect = np.where(codes[:, 0] == codes[0, 0], beta, -beta)
    y = 10.0 + effect + rng.standard_normal(len(codes))
    archs = [SPACE.decode(row) for row in codes]
    found = fit_friendliness(
        SPACE, [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, y, strict=True)]
    )
    return found, archs[0].block(Slot(0, 0))


def test_noise_makes_few_claims() -> None:
    wrong = [bool(slot_claims(fitted(seed, 0.0)[0])) for seed in range(200)]
    assert np.mean(wrong) < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_strong_effect_is_claimed_first() -> None:
    found, block = fitted(0, 2.0)
    claims = slot_claims(found)
    assert {(c.effect.unit, c.effect.layer) for c in claims} == {(0, 0)}
    assert block in {c.effect.block for c in claims}
    row = DESIGN.index[Term(kind="block", unit=0, layer=0, block=block)]
    value, sd = found.latency.values[row], found.latency.covariance[row, row] ** 0.5
    assert value / sd > 5
    assert all(c.adjusted_p < 1e-4 for c in claims)
    assert any("(Holm); the surest: " in line for line in insights(found))


def test_effects_without_noise_are_claims_where_they_are_not_zero() -> None:
    found, _ = fitted(0, 2.0)
    values = found.latency.values.copy()
    values[[i for i, t in enumerate(DESIGN.terms) if t.unit == 1]] = 0.0
    exact = replace(found.latency, values=values, covariance=0.0 * found.latency.covariance)
    claims = slot_claims(replace(found, latency=exact))
    assert {c.effect.unit for c in claims} == {0, 2}
    assert len(claims) == 6  # two blocks at each of three slots
    assert {c.adjusted_p for c in claims} == {0.0}


def test_a_place_is_named_where_its_claim_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    found, block = fitted(0, 2.0)
    (avoided,) = (line for line in insights(found) if line.startswith(f"Avoid {block} "))
    assert "most in unit 0 layer 0" in avoided
    monkeypatch.setattr("hwprof.estimate.insights.slot_claims", lambda found: ())
    (avoided,) = (line for line in insights(found) if line.startswith(f"Avoid {block} "))
    assert "most in" not in avoided


def test_where_blocks_matter_most_is_no_accident_of_noise() -> None:
    """Some slot always has the widest spread; it is named with its error, where one stands."""
    start = "Where the choice of block matters most: unit 0 layer 0, "
    (said,) = (line for line in insights(fitted(0, 2.0)[0]) if "matters most" in line)
    assert said.startswith(start)
    value, half = said.removeprefix(start).split(" s between")[0].split(" ± ")
    # Two candidates, 4 apart, each in half of 60 networks: 2 sd / sqrt(60), and t of 54 degrees.
    assert float(value) == pytest.approx(4.0, abs=1.0)
    assert float(half) == pytest.approx(2.0 * 2.0 / 60**0.5, rel=0.4)
    assert not any("matters most" in line for line in insights(fitted(1, 0.0)[0]))


def test_what_noise_spreads_blocks_by_is_not_taken_for_their_choice() -> None:
    """Layers take 0.3 ms in all, blocks are alike; their estimates lie 0.7 ms apart, all slots."""
    space = get_space("mobile-mini")
    design = DesignMatrix(space)
    truth = np.zeros(design.n_coefficients)
    truth[0] = 10e-3
    truth[[d.columns.start for d in design.decisions if d.has_depth]] = 0.05e-3
    right = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        codes = random_codes(design, rng, 150)
        y = design.predictions(truth, codes) + rng.normal(0.0, 0.1e-3, len(codes))
        samples = [
            Sample(arch=space.decode(row), latency_s=float(v))
            for row, v in zip(codes, y, strict=True)
        ]
        said = insights(fit_friendliness(space, samples))
        right += any("moved more by depth than by the choice of blocks" in s for s in said)
    assert right >= 15


def test_words_without_claims() -> None:
    (said,) = (line for line in insights(fitted(1, 0.0)[0]) if "Holm" in line)
    assert said == (
        "Of 8 effects of one block at one slot, 0 differ from zero with 95 % confidence in all of "
        "them together (Holm)."
    )
