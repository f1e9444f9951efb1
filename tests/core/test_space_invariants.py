"""What must hold in every design space, whole or reduced."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hwprof.errors import SpaceError
from hwprof.graph import piece_graph
from hwprof.space import (
    Architecture,
    DesignSpace,
    Slot,
    get_space,
    piece_from_json,
    space_names,
    space_of,
)
from hwprof.space.slotted import Alive

NAMES = space_names()
N = 60


def half_alive(space: DesignSpace, rng: np.random.Generator) -> dict[Slot, tuple[str, ...]]:
    """Keep a random non-empty part of the candidates of every slot."""
    alive = {}
    for slot in space.slots:
        choices = space.choices(slot)
        size = int(rng.integers(1, len(choices) + 1))
        alive[slot] = tuple(rng.choice(choices, size=size, replace=False).tolist())
    return alive


def reduced(name: str, seed: int = 0) -> DesignSpace:
    """A random reduction: fewer blocks everywhere, one layer less where depth is a decision."""
    space = get_space(name)
    depths = tuple(
        most - 1 if most > least else most
        for least, most in zip(space.min_depth, space.max_depth, strict=True)
    )
    return space.restrict(half_alive(space, np.random.default_rng(seed)), depths)


SPACES = [get_space(name) for name in NAMES] + [reduced(name) for name in NAMES]
IDS = [*NAMES, *(f"{name}-reduced" for name in NAMES)]
every_space = pytest.mark.parametrize("space", SPACES, ids=IDS)


def draws(space: DesignSpace, seed: int = 0, n: int = N) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


@every_space
def test_samples_belong_to_the_space_and_repeat_with_the_seed(space: DesignSpace) -> None:
    archs = draws(space)
    for arch in archs:
        space.require_searchable(arch)
        assert space_of(arch).name == space.name
        assert Architecture.from_json(json.loads(arch.canonical_json())) == arch
    assert archs == draws(space)
    assert archs != draws(space, seed=1)


@every_space
def test_mutants_belong_to_the_space_and_differ(space: DesignSpace) -> None:
    rng = np.random.default_rng(2)
    for arch in draws(space):
        child = space.mutate(arch, rng)
        assert child != arch
        space.require_searchable(child)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "nasbench201"])
def test_mutants_are_other_networks(name: str) -> None:
    """Not just other encodings, neither of skips nor of equal stem widths."""
    space = get_space(name)
    rng = np.random.default_rng(4)
    for arch in draws(space):
        assert space.canonical(space.mutate(arch, rng)) != space.canonical(arch)


def test_resnet50_mutates_stem_widths_and_ratios() -> None:
    space = get_space("ofa-resnet50")
    rng = np.random.default_rng(0)
    arch = space.sample(rng)
    before = space.factor_levels(arch)
    moved = set()
    for _ in range(200):
        child = space.mutate(arch, rng)
        levels = zip(space.factors, before, space.factor_levels(child), strict=True)
        moved |= {factor.name for factor, old, new in levels if old != new}
        moved |= {"blocks"} if child.units != arch.units else set()
    assert moved == {"blocks", *(factor.name for factor in space.factors)}


@every_space
def test_children_take_every_decision_from_a_parent(space: DesignSpace) -> None:
    rng = np.random.default_rng(3)
    archs = draws(space)
    for a, b in itertools.pairwise(archs):
        child = space.crossover(a, b, rng)
        space.require_searchable(child)
        codes = np.array([space.encode(arch) for arch in (a, b, child)])
        # A layer that one parent lacks may come or stay away with the other's depth.
        assert ((codes[2] == codes[0]) | (codes[2] == codes[1])).all()
        assert space.crossover(a, a, rng) == a


@every_space
def test_encoding_is_faithful(space: DesignSpace) -> None:
    archs = list(dict.fromkeys(draws(space)))
    codes = [tuple(space.encode(arch).tolist()) for arch in archs]
    assert len(set(codes)) == len(archs)
    n_slots = len(space.slots)
    for arch, code in zip(archs, codes, strict=True):
        assert len(code) == n_slots + len(space.factors)
        for slot, index in zip(space.slots, code[:n_slots], strict=True):
            if index >= 0:
                assert space.base_choices(slot)[index] in space.choices(slot)
            elif arch.cell is None:
                assert arch.block(slot) is None
        levels = [f.levels[i] for f, i in zip(space.factors, code[n_slots:], strict=True)]
        assert tuple(levels) == space.factor_levels(arch)
        assert space.decode(space.encode(arch)) == arch


@every_space
def test_canonical_is_stable_and_keeps_the_network_in_the_base_space(space: DesignSpace) -> None:
    base = get_space(space.name)
    for arch in draws(space):
        once = space.canonical(arch)
        assert space.canonical(once) == once
        assert base.canonical(arch) == once
        base.validate(once)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "nasbench201"])
def test_canonical_encodings_are_built_of_the_same_pieces(name: str) -> None:
    """Skips apart, which stand for nothing."""
    space = get_space(name)

    def built(arch: Architecture) -> list[object]:
        return [p.piece for p in space.pieces(arch) if p.piece.kind != "skip"]

    for arch in draws(space):
        assert built(arch) == built(space.canonical(arch))


@every_space
def test_pieces_fit_together_and_are_among_the_distinct_ones(space: DesignSpace) -> None:
    distinct, places = space.distinct_pieces(), space.block_places()
    assert len(set(distinct)) == len(distinct)
    for arch in draws(space, n=10):
        placed = space.pieces(arch)
        assert len({p.scope for p in placed}) == len(placed)
        channels, size = 3, space.resolution_px
        for part in placed:
            assert (part.piece.in_channels, part.piece.size_px) == (channels, size), part
            channels, size = part.piece.n_out_channels, part.piece.out_size_px
            if part.piece.kind != "cell":
                assert part.piece in distinct
            if part.slot is not None and part.block is not None:
                here = [(p.slot, p.block) for p in places[part.piece]]
                assert (part.slot, part.block) in here
                expected = ((part.piece, 1),)
                assert space.block_pieces(part.slot, part.block, arch.widths) == expected


@every_space
def test_every_distinct_piece_builds_and_survives_json(space: DesignSpace) -> None:
    for piece in space.distinct_pieces():
        again = piece_from_json(json.loads(json.dumps(piece.to_json())))
        assert again == piece
        shape = piece_graph(piece).output_shape
        if piece.kind != "head":
            assert shape == (piece.n_out_channels, piece.out_size_px, piece.out_size_px)


@every_space
def test_block_places_cover_every_live_block(space: DesignSpace) -> None:
    held = {(place.slot, place.block) for ps in space.block_places().values() for place in ps}
    assert held == {(slot, block) for slot in space.slots for block in space.choices(slot)}


@pytest.mark.parametrize("name", NAMES)
def test_another_resolution_changes_sizes_only(name: str) -> None:
    space = get_space(name)
    other = space.at_resolution(96)
    arch = draws(space, n=1)[0]
    with pytest.raises(SpaceError, match="96 px"):
        other.validate(arch)
    moved = replace(arch, resolution_px=96)
    assert [p.scope for p in other.pieces(moved)] == [p.scope for p in space.pieces(arch)]
    assert space_of(moved) == other == get_space(name, 96)
    for absurd_px in (0, -3, 7, 8193, 10**9):
        with pytest.raises(SpaceError, match=f"resolution_px is {absurd_px}; .* 8 to 8192"):
            space.at_resolution(absurd_px)


@pytest.mark.parametrize("name", NAMES)
def test_restricting_keeps_the_base_order_and_reports_itself(name: str) -> None:
    space = get_space(name)
    assert not space.is_reduced
    assert space.restrict({}) == space
    slot = space.slots[0]
    choices = space.choices(slot)
    small = space.restrict({slot: (choices[2], choices[0])})
    assert small.choices(slot) == (choices[0], choices[2])
    assert small.base_choices(slot) == choices
    assert small.is_reduced
    assert small.name == space.name
    assert small.size().n_encodings < space.size().n_encodings
    with pytest.raises(SpaceError, match="dropped by the reduction"):
        small.restrict({slot: (choices[1],)})
    with pytest.raises(SpaceError, match="would have no block left"):
        space.restrict({slot: ()})
    with pytest.raises(SpaceError, match=r"'conv9'; expected [\w.]+, .* or [\w.]+$"):
        space.restrict({slot: ("conv9",)})
    with pytest.raises(SpaceError, match="no layer 9 in unit 0"):
        space.restrict({Slot(0, 9): choices})


def test_a_block_totals_its_pieces_and_averages_over_widths() -> None:
    cells, resnet = get_space("nasbench201"), get_space("ofa-resnet50")
    op = Slot(0, 2), "nor_conv_3x3"
    # Five times at each of three widths; a first layer's piece for three inputs of three widths.
    assert cells.block_totals(lambda piece: piece.in_channels)[op] == 5 * (16 + 32 + 64)
    widths = resnet.block_totals(lambda piece: piece.n_out_channels)
    assert widths[Slot(0, 0), "bottleneck_e0.2"] == (168 + 208 + 256) / 3


@pytest.mark.parametrize("name", NAMES)
def test_no_network_has_no_row_of_codes(name: str) -> None:
    space = get_space(name)
    assert space.encode_many([]).shape == (0, len(space.slots) + len(space.factors))


def test_a_dropped_block_is_refused_but_still_encoded() -> None:
    space = get_space("mobile-mini")
    slot = Slot(1, 0)
    small = space.restrict({slot: ("mbconv_k3_e3",)})
    arch = Architecture(
        space="mobile-mini",
        resolution_px=32,
        units=(("mbconv_k3_e3",), ("mbconv_k7_e6",), ("mbconv_k3_e3",)),
    )
    space.validate(arch)
    with pytest.raises(SpaceError, match=r"unit 1 layer 0 holds 'mbconv_k7_e6' \(dropped"):
        small.validate(arch)
    assert small.encode(arch)[3] == space.base_choices(slot).index("mbconv_k7_e6")


def test_depth_limits() -> None:
    space = get_space("ofa-mbv3-w1.0")
    capped = space.restrict({}, (2, 3, 4, 2, 2))
    assert [capped.depths(unit) for unit in range(5)] == [(2,), (2, 3), (2, 3, 4), (2,), (2,)]
    assert max(map(len, draws(capped, n=1)[0].units)) <= 4
    for depths in ((1, 4, 4, 4, 4), (5, 4, 4, 4, 4)):
        with pytest.raises(SpaceError, match="max_depth of unit 0"):
            space.restrict({}, depths)
    with pytest.raises(SpaceError, match="5 units"):
        space.restrict({}, (4, 4))
    deep = draws(space.restrict({}), seed=5, n=1)[0]
    deep = replace(deep, units=(deep.units[0][:1] * 4, *deep.units[1:]))
    with pytest.raises(SpaceError, match="unit 0 has 4 layers"):
        capped.encode(deep)


def test_skip_spaces_have_no_depth_to_cap() -> None:
    with pytest.raises(SpaceError, match=r"max_depth of unit 0 is 3; expected 4$"):
        get_space("proxylessnas").restrict({}, (3, 4, 4, 4, 4, 1))


def test_sampling_is_uniform_over_depths_and_blocks() -> None:
    """Chi-squared over 4,000 draws against its 99.9 % quantiles (2 and 5 degrees of freedom)."""
    space = get_space("mobile-mini")
    archs = draws(space, n=4000)
    depths = Counter(len(arch.units[1]) for arch in archs)
    blocks = Counter(arch.units[1][0] for arch in archs)
    assert sum((n - 4000 / 3) ** 2 for n in depths.values()) / (4000 / 3) < 13.8
    assert sum((n - 4000 / 6) ** 2 for n in blocks.values()) / (4000 / 6) < 20.5
    assert (len(depths), len(blocks)) == (3, 6)


def test_mutation_reaches_every_operator() -> None:
    """From the middle depth a unit may grow, shrink, swap, or stay as it is."""
    space = get_space("mobile-mini")
    arch = Architecture(
        space="mobile-mini", resolution_px=32, units=(("mbconv_k3_e3", "mbconv_k5_e6"),) * 3
    )
    rng = np.random.default_rng(0)
    changes = Counter(
        "same" if unit == arch.units[0] else len(unit) - 2
        for _ in range(300)
        for unit in space.mutate(arch, rng).units
    )
    assert set(changes) == {"same", -1, 0, 1}
    assert 0.33 < changes["same"] / 900 < 0.53  # (1/2 - 1/8) / (1 - 1/8) = 0.43


def test_mutation_of_a_reduced_space_does_not_shift_blocks_where_they_were_dropped() -> None:
    space = get_space("mobile-mini")
    e3, e6 = ("mbconv_k3_e3", "mbconv_k5_e3"), ("mbconv_k3_e6",)
    alive: Alive = {Slot(0, 0): e3, Slot(0, 1): e6, Slot(0, 2): e3[:1]}
    small = space.restrict(alive)
    rng = np.random.default_rng(0)
    arch = draws(small, n=1)[0]
    for _ in range(200):
        arch = small.mutate(arch, rng)
        small.validate(arch)


def test_a_space_of_one_network_has_no_neighbour() -> None:
    space = get_space("nasbench201")
    only = space.restrict(dict.fromkeys(space.slots, ("nor_conv_3x3",)))
    assert only.size().n_encodings == 1
    rng = np.random.default_rng(0)
    with pytest.raises(SpaceError, match="has no neighbour"):
        only.mutate(only.sample(rng), rng)


def test_literal_widths_are_for_cost_and_not_for_search() -> None:
    from hwprof.space import read_architecture

    arch = read_architecture("proxyless-gpu")
    space = space_of(arch)
    space.validate(arch)
    rng = np.random.default_rng(0)
    for refuse in (
        lambda: space.require_searchable(arch),
        lambda: space.encode(arch),
        lambda: space.mutate(arch, rng),
        lambda: space.crossover(arch, arch, rng),
    ):
        with pytest.raises(SpaceError, match="literal channels"):
            refuse()


def test_importing_the_spaces_stays_light() -> None:
    code = "import sys, hwprof.space; print([m for m in ('numpy', 'yaml', 'pandas', 'torch') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@every_space
def test_what_nothing_uses_is_left_out_and_once_is_enough(space: DesignSpace) -> None:
    rng = np.random.default_rng(4)
    codes = space.encode_many([space.sample(rng) for _ in range(200)])
    used = space.used_codes(codes)
    np.testing.assert_array_equal(space.used_codes(used), used)
    if space.name != "nasbench201":
        np.testing.assert_array_equal(used, codes)
    for row in used:
        space.validate(space.decode(row))


@every_space
def test_slots_that_meet_are_slots_in_order(space: DesignSpace) -> None:
    place = {slot: i for i, slot in enumerate(space.slots)}
    assert len(set(space.meeting_slots)) == len(space.meeting_slots)
    assert all(place[a] < place[b] for a, b in space.meeting_slots)


def test_an_edge_is_used_if_a_path_leads_to_the_output() -> None:
    """By hand: edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3; 0 is none, 3 a convolution."""
    space = get_space("nasbench201")
    cases = {
        (3, 3, 3, 3, 3, 3): (3, 3, 3, 3, 3, 3),
        # Node 2 is read by nobody: neither edge into it runs.
        (3, 3, 3, 3, 3, 0): (3, 0, 0, 3, 3, 0),
        # Node 1 is read by node 2 alone, and that by nobody.
        (3, 3, 3, 3, 0, 0): (0, 0, 0, 3, 0, 0),
        # Node 1 is nothing but zeros, but its readers run on them.
        (0, 3, 3, 3, 3, 3): (0, 3, 3, 3, 3, 3),
        (3, 3, 3, 0, 0, 0): (0, 0, 0, 0, 0, 0),
    }
    given, expected = (np.array(list(x)) for x in (cases, cases.values()))
    np.testing.assert_array_equal(space.used_codes(given), expected)
    # Where an edge has no none left, what the cell costs without it is not known.
    kept = space.restrict({Slot(0, 0): ("nor_conv_3x3", "skip_connect")})
    assert kept.used_codes(np.array([[3, 3, 0, 3, 0, 3]])).tolist() == [[3, 3, 0, 3, 0, 3]]
