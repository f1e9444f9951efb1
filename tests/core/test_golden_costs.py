"""MACs and parameters of published networks.

Origin of the figures: networks built from the released code of once-for-all and ProxylessNAS and
counted there (convolutions and linear layers, squeeze-excite included), two counters agreeing;
NAS-Bench-201's own table. Blocks are written ``ek`` (expansion, kernel), units apart by ``|``.
"""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from hwprof.graph import architecture_cost, network_graph
from hwprof.space import Architecture, get_space, make_divisible, read_architecture, space_of
from hwprof.space.nasbench201 import parse_cell

NB201_TABLE = Path(__file__).resolve().parents[2] / ".." / "shared/data/nb201_accuracy.csv.gz"

MBV3_10, MBV3_12, PN = "ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxylessnas-w1.3"
UNIFORM = {"S": ("33", 2), "L": ("67", 4), "M": ("45", 3)}
"""Block and depth, the same everywhere."""
R1 = "63 43 | 45 65 33 | 35 47 37 | 47 37 35 | 33 67 | 35"

GOLDEN_MBCONV = [
    (MBV3_10, "S", 224, 3_410_792, 121_278_672),
    (MBV3_12, "S", 224, 4_602_456, 193_078_200),
    (PN, "S", 224, 3_718_832, 265_526_256),
    (MBV3_10, "L", 224, 7_664_760, 566_170_656),
    (MBV3_12, "L", 224, 10_701_632, 843_101_040),
    (PN, "L", 224, 7_942_056, 1_004_908_032),
    (MBV3_10, "M", 224, 4_551_792, 250_746_944),
    (MBV3_12, "M", 224, 6_245_312, 385_659_168),
    (PN, "M", 224, 5_053_864, 486_974_112),
    (MBV3_10, "R1", 224, 4_308_912, 213_995_312),
    (MBV3_12, "R1", 224, 5_873_728, 334_257_496),
    (PN, "R1", 224, 4_520_280, 424_493_624),
    (MBV3_12, "S", 192, 4_602_456, 142_834_656),
    (MBV3_12, "S", 208, 4_602_456, 170_564_736),
    (MBV3_12, "L", 192, 10_701_632, 621_268_416),
    (MBV3_12, "L", 208, 10_701_632, 740_840_160),
    (PN, "L", 192, 7_942_056, 738_741_248),
    (PN, "L", 208, 7_942_056, 896_501_520),
]


def ofa_network(space: str, name: str, resolution_px: int) -> Architecture:
    depths = get_space(space).max_depth
    if name == "R1":
        codes = [unit.split() for unit in R1.split("|")][: len(depths)]
    else:
        code, depth = UNIFORM[name]
        codes = [[code] * min(depth, most) for most in depths]
    return Architecture(
        space=space,
        resolution_px=resolution_px,
        units=tuple(tuple(f"mbconv_k{ek[1]}_e{ek[0]}" for ek in unit) for unit in codes),
    )


@pytest.mark.parametrize(("space", "name", "resolution_px", "params", "macs"), GOLDEN_MBCONV)
def test_ofa_mobile_networks(
    space: str, name: str, resolution_px: int, params: int, macs: int
) -> None:
    arch = ofa_network(space, name, resolution_px)
    cost = architecture_cost(space_of(arch), arch)
    assert (cost.params, cost.macs) == (params, macs)


MIXED = ".25 .25 .25 .35 .25 .2 .2 .25 .2 .25 .25 .35 .2 .35 .25 .25 .35 .2"
GOLDEN_RESNET = [
    ((0, 0, 0, 0, 0), ".2 " * 18, (0,) * 6, 6_539_280, 962_192_128),
    ((2, 2, 2, 2, 2), ".35 " * 18, (2,) * 6, 48_105_992, 7_491_643_904),
    ((0, 1, 2, 2, 1), ".25 " * 18, (2,) * 6, 25_566_984, 4_213_219_328),
    ((0, 2, 0, 1, 0), MIXED, (2, 0, 1, 0, 0, 0), 8_961_624, 1_923_213_056),
]


def resnet50(depths: tuple[int, ...], ratios: str, widths: tuple[int, ...]) -> Architecture:
    """Read the encoding d[5], e[18] (4, 4, 6, 4 slots), w[6]."""
    blocks = [f"bottleneck_e0{ratio}" for ratio in ratios.split()]
    units, first = [], 0
    for extra, least, most in zip(depths[1:], (2, 2, 4, 2), (4, 4, 6, 4), strict=True):
        units.append(tuple(blocks[first : first + least + extra]))
        first += most
    return Architecture(
        space="ofa-resnet50",
        resolution_px=224,
        units=tuple(units),
        stem_depth=depths[0],
        widths=widths,
    )


@pytest.mark.parametrize(("depths", "ratios", "widths", "params", "macs"), GOLDEN_RESNET)
def test_ofa_resnet50(
    depths: tuple[int, ...], ratios: str, widths: tuple[int, ...], params: int, macs: int
) -> None:
    arch = resnet50(depths, ratios, widths)
    cost = architecture_cost(space_of(arch), arch)
    assert (cost.params, cost.macs) == (params, macs)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("proxyless-gpu", 7_119_848, 465_260_160),
        ("proxyless-mobile", 4_080_512, 320_427_584),
        ("proxyless-mobile-14", 6_857_568, 580_883_408),
    ],
)
def test_released_proxylessnas_networks(name: str, params: int, macs: int) -> None:
    arch = read_architecture(name)
    cost = architecture_cost(space_of(arch), arch)
    assert (cost.params, cost.macs) == (params, macs)


def test_released_proxyless_cpu_as_published_rounded() -> None:
    arch = read_architecture("proxyless-cpu")
    cost = architecture_cost(space_of(arch), arch)
    assert (round(cost.params, -5), round(cost.macs, -6)) == (4_400_000, 439_000_000)


def test_released_widths_are_multiples_of_the_space() -> None:
    """GPU is the base widths × 1.35 and CPU × 1.12, by MobileNet's rounding."""
    base = (32, 16, 24, 40, 80, 96, 192, 320)
    for name, factor in (("proxyless-gpu", 1.35), ("proxyless-cpu", 1.12)):
        channels = read_architecture(name).channels
        assert channels is not None
        literal = (channels.stem, channels.first, *channels.units)
        assert literal == tuple(make_divisible(width * factor) for width in base)


def nb201_closed_form(cell: str) -> tuple[int, int]:
    """MACs and parameters from the number of convolutions on the six edges.

    Every cell position costs c²·s² a 1×1: 16²·32² = 32²·16² = 64²·8² = 262,144, fifteen times,
    and nine times that a 3×3; parameters likewise 5·(c² + 2c) over the three widths.
    """
    ops = parse_cell(cell)
    n3, n1 = ops.count("nor_conv_3x3"), ops.count("nor_conv_1x1")
    return 7_783_040 + 35_389_440 * n3 + 3_932_160 * n1, 73_306 + 243_040 * n3 + 28_000 * n1


def test_nasbench201_closed_form() -> None:
    space = get_space("nasbench201")
    rng = np.random.default_rng(0)
    for arch in [space.sample(rng) for _ in range(50)]:
        assert arch.cell is not None
        cost = architecture_cost(space, arch)
        assert (cost.macs, cost.params) == nb201_closed_form(arch.cell)


@pytest.mark.skipif(not NB201_TABLE.exists(), reason="needs ../shared/data (NAS-Bench-201 table)")
def test_nasbench201_costs_match_the_benchmark() -> None:
    """The benchmark's own columns, every tenth cell; it also counts the ten biases as MACs."""
    space = get_space("nasbench201")
    with gzip.open(NB201_TABLE, "rt") as file:
        rows = list(csv.DictReader(file))[::10]
    assert len(rows) == 1563
    for row in rows:
        arch = Architecture(space=space.name, resolution_px=32, cell=row["arch"])
        cost = architecture_cost(space, arch)
        published = (int(row["macs_c10"]), int(row["params_c10"]))
        assert (cost.macs + space.n_classes, cost.params) == published


def test_mobile_mini_by_hand() -> None:
    """Depth 1, k3 e3 everywhere, at 32 px: every convolution written out."""
    arch = Architecture(space="mobile-mini", resolution_px=32, units=(("mbconv_k3_e3",),) * 3)
    stem = 16 * 16 * 16 * 27
    first = 16 * 16 * (16 * 9 + 16 * 16)
    unit0 = 16 * 16 * 16 * 48 + 8 * 8 * (48 * 9 + 48 * 24)
    unit1 = 8 * 8 * 24 * 72 + 4 * 4 * (72 * 9 + 72 * 40)
    unit2 = 4 * 4 * (40 * 120 + 120 * 9 + 120 * 64) + 2 * 120 * 32
    head = 4 * 4 * 64 * 160 + 160 * 10
    cost = architecture_cost(space_of(arch), arch)
    assert cost.macs == stem + first + unit0 + unit1 + unit2 + head


@pytest.mark.parametrize("name", ["mobile-mini", "ofa-resnet50", "nasbench201", "proxylessnas"])
def test_summed_pieces_equal_the_whole_graph(name: str) -> None:
    space = get_space(name)
    rng = np.random.default_rng(1)
    for arch in [space.sample(rng) for _ in range(3)]:
        graph, cost = network_graph(space, arch), architecture_cost(space, arch)
        assert (graph.macs, graph.params) == (cost.macs, cost.params)
        assert graph.output_shape == (space.n_classes,)
