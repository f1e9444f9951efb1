"""How many architectures the spaces hold, by published counts and by enumeration."""

import csv
import gzip
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest

from hwprof.space import SKIP, Architecture, Slot, get_space
from hwprof.space.counting import n_sequences
from hwprof.space.mbconv import UnitLayout, mbconv_names
from hwprof.space.nasbench201 import parse_cell, topology
from tests.made import own_space

NB201_TABLE = Path(__file__).resolve().parents[2] / ".." / "shared/data/nb201_accuracy.csv.gz"

GOLDEN = {
    # once-for-all: 9² + 9³ + 9⁴ fillings of each of five units
    "ofa-mbv3-w1.0": (21_758_655_492_572_485_851, 21_758_655_492_572_485_851),
    "ofa-mbv3-w1.2": (7371**5, 7371**5),
    "ofa-proxylessnas-w1.3": (9 * 7371**5, 9 * 7371**5),
    # two of three stem widths coincide
    "ofa-resnet50": (2_458_914_796_962, 1_639_276_531_308),
    # ProxylessNAS: where in a stage a layer is skipped makes no difference
    "proxylessnas": (6**6 * 7**15, 6**6 * 259**5),
    # NAS-Bench-201 (Dong & Yang, 2020)
    "nasbench201": (15_625, 6_466),
    # 6 + 6² + 6³ fillings of each of three units
    "mobile-mini": (258**3, 258**3),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_size(name: str) -> None:
    size = get_space(name).size()
    assert (size.n_encodings, size.n_distinct) == GOLDEN[name]


def enumerate_sequences(layers: list[tuple[str, ...]], depths: range) -> int:
    return len(
        {
            tuple(block for block in blocks if block != SKIP)
            for depth in depths
            for blocks in product(*layers[:depth])
        }
    )


@pytest.mark.parametrize("seed", range(20))
def test_sequences_by_enumeration(seed: int) -> None:
    """Random candidates, random skips, random depths: the walk agrees with brute force."""
    rng = np.random.default_rng(seed)
    names = np.array(["a", "b", "c", SKIP])
    layers = []
    for _ in range(4):
        kept = names[rng.random(4) < 0.6].tolist()
        layers.append(tuple(kept or ["a"]))
    depths = range(int(rng.integers(1, 5)), 5)
    assert n_sequences(layers, depths) == enumerate_sequences(layers, depths)


def test_reduced_skip_space_is_still_counted() -> None:
    space = get_space("proxylessnas")
    pair = ("mbconv_k3_e3", SKIP)
    small = space.restrict({Slot(0, layer): pair for layer in (1, 3)} | {Slot(0, 2): (SKIP,)})
    layers = [small.choices(Slot(0, layer)) for layer in range(4)]
    rest = 6**5 * 259**4
    assert small.size().n_distinct == enumerate_sequences(layers, range(4, 5)) * rest
    assert small.size().n_encodings == 6 * 2 * 1 * 2 * (6 * 7**3) ** 4 * 6


def skippable(*, channels: int, stride: int, min_depth: int, max_depth: int) -> UnitLayout:
    """A unit of two candidates and ``skip`` in every layer."""
    return UnitLayout(
        channels=channels,
        stride=stride,
        min_depth=min_depth,
        max_depth=max_depth,
        act="relu",
        candidates=mbconv_names((3,), (3, 6)),
        skip=True,
    )


def test_units_that_may_be_skipped_whole_are_not_counted() -> None:
    """Two such units in a row could swap blocks, so encodings no longer tell networks apart."""
    unit = skippable(channels=8, stride=1, min_depth=2, max_depth=2)
    space = own_space(unit, unit)
    assert all(SKIP in space.choices(slot) for slot in space.slots)
    assert (space.size().n_encodings, space.size().n_distinct) == (3**4, None)


def test_resnet50_reduced() -> None:
    space = get_space("ofa-resnet50").restrict({}, (2, 2, 4, 2))
    assert space.size().n_encodings == 3 ** (2 + 2 + 4 + 2) * 2 * 3**6
    assert space.size().n_distinct == space.size().n_encodings * 2 // 3


def test_distinct_counts_are_those_of_canonical_forms() -> None:
    """On a small part of NAS-Bench-201 and of ProxylessNAS every encoding is canonicalised."""
    nb201 = get_space("nasbench201")
    kept = ("none", "skip_connect", "nor_conv_3x3")
    nb201 = nb201.restrict(dict.fromkeys(nb201.slots, kept))
    cells = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops) for ops in product(kept, repeat=6)]
    archs = [Architecture(space="nasbench201", resolution_px=32, cell=cell) for cell in cells]
    assert len({nb201.canonical(arch) for arch in archs}) == nb201.size().n_distinct

    mobile = get_space("proxylessnas")
    few = {slot: mobile.choices(slot)[:1] for slot in mobile.slots}
    few |= {Slot(0, layer): ("mbconv_k3_e3", "mbconv_k5_e3", SKIP) for layer in (1, 2, 3)}
    mobile = mobile.restrict(few)
    units = [mobile.choices(slot)[:1] * 4 for slot in mobile.slots[:24:4]]
    found = {
        mobile.canonical(
            Architecture(
                space="proxylessnas",
                resolution_px=224,
                units=(("mbconv_k3_e3", *rest), *units[1:5], units[5][:1]),
            )
        )
        for rest in product(("mbconv_k3_e3", "mbconv_k5_e3", SKIP), repeat=3)
    }
    assert len(found) == mobile.size().n_distinct == 1 + 2 + 4 + 8


@pytest.mark.skipif(not NB201_TABLE.exists(), reason="needs ../shared/data (NAS-Bench-201 table)")
def test_topologies_are_those_of_the_benchmark() -> None:
    """The benchmark's ``unique`` column, all 15,625 cells."""
    with gzip.open(NB201_TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15_625
    assert all(topology(parse_cell(row["arch"])) == row["unique"] for row in rows)


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.2", "ofa-resnet50"])
def test_depth_counts_multiply(name: str) -> None:
    space = get_space(name)
    per_unit = [
        sum(9**d if "mbv3" in name else 3**d for d in space.depths(u)) for u in range(space.n_units)
    ]
    factors = prod(len(factor.levels) for factor in space.factors)
    assert space.size().n_encodings == prod(per_unit) * factors


def test_a_layer_that_is_skipped_is_one_that_is_not_there() -> None:
    """Where depths vary too, as many canonical forms as distinct networks, each in the space."""
    space = own_space(skippable(channels=16, stride=2, min_depth=2, max_depth=4))
    layers = [space.choices(Slot(0, layer)) for layer in range(4)]
    archs = [space.assemble((u,)) for depth in (2, 3, 4) for u in product(*layers[:depth])]
    forms = {space.canonical(arch) for arch in archs}
    assert len(forms) == space.size().n_distinct
    for form in forms:
        space.validate(form)
        assert space.canonical(form) == form
