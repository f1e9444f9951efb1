"""The published one-factor procedure's samples: which networks, and how deep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from hwprof.estimate.design_matrix import DesignMatrix
from hwprof.estimate.pinning import (
    PinnedForm,
    depth_law,
    in_rounds,
    pinned_codes,
    pinned_networks,
    pins_of,
    random_codes,
)
from hwprof.space import Slot, get_space, space_names
from tests.core.pinned_truth import design_of, pin_at

N = 3000


def depths_of(design: DesignMatrix, codes: np.ndarray, unit: int) -> np.ndarray:
    columns = [i for i, d in enumerate(design.decisions) if d.slot and d.slot.unit == unit]
    return np.asarray((codes[:, columns] >= 0).sum(axis=1))


def shares(depths: np.ndarray) -> dict[int, float]:
    return {depth: n / len(depths) for depth, n in sorted(Counter(depths.tolist()).items())}


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
