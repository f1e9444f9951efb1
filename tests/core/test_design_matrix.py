"""The design matrix against the formula it stands for, written out network by network."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hwprof.errors import DataError, SpaceError
from hwprof.estimate.design_matrix import DesignMatrix, Term, depth_probability, n_coefficients
from hwprof.space import Architecture, Channels, DesignSpace, Slot, get_space

SPACES = [
    "mobile-mini",
    "ofa-mbv3-w1.2",
    "ofa-proxylessnas-w1.3",
    "proxylessnas",
    "ofa-resnet50",
    "nasbench201",
]


def tiny_space() -> DesignSpace:
    """36 networks: unit 0 with depth 1 or 2 and two candidates, units 1 and 2 with fixed depth."""
    base = get_space("mobile-mini")
    two = ("mbconv_k3_e3", "mbconv_k7_e6")
    alive = {
        Slot(0, 0): two,
        Slot(0, 1): two,
        Slot(1, 0): ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3"),
        Slot(2, 0): two,
    }
    return base.restrict(alive, (2, 1, 1))


def formula(space: DesignSpace, terms: dict[Term, float], mean: float, arch: Architecture) -> float:
    """Evaluate the model of the module's docstring from the effects themselves."""
    total = mean
    blocks = space.blocks(arch)
    for unit, layers in enumerate(blocks):
        for depth in space.depths(unit)[1:]:
            effect = terms[Term(kind="depth", unit=unit, depth=depth)]
            total += effect * ((len(layers) >= depth) - depth_probability(space, unit, depth))
        for layer, block in enumerate(layers):
            term = Term(kind="block", unit=unit, layer=layer, block=block)
            total += terms[term]
    for factor, level in zip(space.factors, space.factor_levels(arch), strict=True):
        total += terms[Term(kind="factor", block=f"{factor.name}={level}")]
    return total


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # block-profiling method, "Proposed estimator": 171 (OFA), 179 (PN).
        ("ofa-mbv3-w1.2", 171),
        ("ofa-mbv3-w1.0", 171),
        ("ofa-proxylessnas-w1.3", 179),
        # 6 edges with 6 candidates, 15 with 7, no depths: 1 + 6·5 + 15·6.
        ("proxylessnas", 121),
        # six edges with five operators: 1 + 6·4.
        ("nasbench201", 25),
        # 1 + 4 units · 2 depths + 18 slots · 2 + stem depth 1 + six widths · 2.
        ("ofa-resnet50", 58),
        # 1 + 3 units · 2 depths + 9 slots · 5.
        ("mobile-mini", 52),
    ],
)
def test_number_of_coefficients(name: str, expected: int) -> None:
    space = get_space(name)
    assert n_coefficients(space) == expected
    assert DesignMatrix(space).expansion.shape[1] == expected


@pytest.mark.parametrize("name", SPACES)
def test_rows_are_the_formula(name: str) -> None:
    space = get_space(name)
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    coefficients = rng.standard_normal(design.n_coefficients)
    terms = dict(zip(design.terms, design.expansion @ coefficients, strict=True))
    archs = [space.sample(rng) for _ in range(20)]
    predicted = design.rows(design.encode(archs)) @ coefficients
    expected = [formula(space, terms, float(coefficients[0]), arch) for arch in archs]
    np.testing.assert_allclose(predicted, expected, atol=1e-12)


@pytest.mark.parametrize("name", SPACES)
def test_effects_of_a_slot_and_of_a_factor_sum_to_zero(name: str) -> None:
    design = DesignMatrix(get_space(name))
    terms = design.expansion @ np.random.default_rng(1).standard_normal(design.n_coefficients)
    groups: dict[object, float] = {}
    for term, value in zip(design.terms, terms, strict=True):
        if term.kind in ("block", "factor"):
            factor = str(term.block).split("=")[0] if term.kind == "factor" else None
            key = (term.unit, term.layer, factor)
            groups[key] = groups.get(key, 0.0) + value
    np.testing.assert_allclose(list(groups.values()), 0.0, atol=1e-12)


def test_whole_network_effects_weigh_slots_by_the_chance_to_reach_them() -> None:
    design = DesignMatrix(get_space("ofa-mbv3-w1.2"))
    terms = design.expansion @ np.random.default_rng(2).standard_normal(171)
    reach = [1.0, 1.0, 2 / 3, 1 / 3]  # depth 2, 3 or 4, each equally likely
    for block in design.space.choices(Slot(0, 0)):
        expected = sum(
            reach[layer] * terms[design.index[Term(kind="block", unit=u, layer=layer, block=block)]]
            for u, layer in itertools.product(range(5), range(4))
        )
        whole = terms[design.index[Term(kind="network", block=block)]]
        assert whole == pytest.approx(expected, abs=1e-12)


def test_the_first_coefficient_is_the_mean_over_random_networks() -> None:
    space = tiny_space()
    design = DesignMatrix(space)
    weighted = np.zeros(design.n_coefficients)

    def one(unit: int, layer: int) -> list[tuple[str, ...]]:
        return [(block,) for block in space.choices(Slot(unit, layer))]

    firsts = [*one(0, 0), *(a + b for a in one(0, 0) for b in one(0, 1))]
    for units in itertools.product(firsts, one(1, 0), one(2, 0)):
        chance = 0.5 / 2 ** len(units[0]) / 3 / 2
        codes = design.encode([space.assemble(units, ())])
        weighted += chance * design.rows(codes)[0]
    np.testing.assert_allclose(weighted, np.eye(design.n_coefficients)[0], atol=1e-12)


def test_fixed_depths_and_lone_candidates_have_no_coefficient() -> None:
    space = tiny_space().restrict({Slot(2, 0): ("mbconv_k3_e3",)})
    assert n_coefficients(space) == 1 + 1 + (1 + 1 + 2)
    assert [t.unit for t in DesignMatrix(space).terms if t.kind == "depth"] == [0]


def test_counts_are_numbers_of_networks() -> None:
    space = tiny_space()
    design = DesignMatrix(space)
    rng = np.random.default_rng(3)
    archs = [space.sample(rng) for _ in range(40)]
    counts = dict(zip(design.terms, design.counts(design.encode(archs)), strict=True))
    deep = sum(len(a.units[0]) == 2 for a in archs)
    assert counts[Term(kind="depth", unit=0, depth=2)] == deep
    here = sum(a.units[0][1:] == ("mbconv_k7_e6",) for a in archs)
    assert counts[Term(kind="block", unit=0, layer=1, block="mbconv_k7_e6")] == here
    anywhere = sum(any("mbconv_k7_e6" in unit for unit in a.units) for a in archs)
    assert counts[Term(kind="network", block="mbconv_k7_e6")] == anywhere


def test_a_dropped_block_is_refused_by_name() -> None:
    base, design = get_space("mobile-mini"), DesignMatrix(tiny_space())
    arch = base.assemble((("mbconv_k5_e3",), ("mbconv_k3_e3",), ("mbconv_k3_e3",)), ())
    with pytest.raises(SpaceError, match=r"mbconv_k5_e3 at u0\.l0"):
        design.rows(design.encode([arch]))


def test_networks_of_another_space_or_with_literal_widths_are_refused() -> None:
    space = get_space("mobile-mini")
    design = DesignMatrix(space)
    with pytest.raises(SpaceError, match="64 px"):
        design.encode([space.at_resolution(64).sample(np.random.default_rng(0))])
    widths = Channels(stem=8, first=8, units=(8, 8, 8), head=8)
    literal = replace(space.sample(np.random.default_rng(0)), channels=widths)
    with pytest.raises(SpaceError, match="literal channels"):
        design.encode([literal])


def test_codes_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"expected \(n, 9\)"):
        DesignMatrix(get_space("mobile-mini")).rows(np.zeros((2, 4), dtype=np.int64))


def test_too_few_networks_say_how_many_are_needed() -> None:
    space = get_space("mobile-mini")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    codes = design.encode([space.sample(rng) for _ in range(52)])
    with pytest.raises(DataError, match=r"more than 52 are needed; profile at least 156"):
        design.require_identifiable(codes)


def test_a_block_never_seen_is_named() -> None:
    space = get_space("mobile-mini")
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    choices = space.choices(Slot(1, 0))[:-1]
    poor = space.restrict({Slot(1, 0): choices})
    codes = design.encode([poor.sample(rng) for _ in range(400)])
    with pytest.raises(DataError, match=r"mbconv_k7_e6 at u1\.l0: in none of the 400 networks"):
        design.require_identifiable(codes)


def test_decisions_that_always_go_together_are_refused() -> None:
    space = tiny_space()
    design = DesignMatrix(space)
    rng = np.random.default_rng(0)
    archs = [a for a in (space.sample(rng) for _ in range(400)) if a.units[0][0] == a.units[2][0]]
    with pytest.raises(DataError, match="always go together"):
        design.require_identifiable(design.encode(archs))
