"""Names, files and what is said about those that do not fit."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hwprof.errors import FormatVersionError, SpaceError
from hwprof.interval import Interval
from hwprof.space import (
    NAMED_ARCHITECTURES,
    Architecture,
    Channels,
    Slot,
    get_space,
    read_architecture,
    reduced_space,
    reduction_from_yaml,
    reduction_to_yaml,
    space_names,
    space_of,
)
from hwprof.space.mbconv import mbconv_names, parse_mbconv
from hwprof.space.reduction import Drop, Reduction

MINI = Architecture(
    space="mobile-mini",
    resolution_px=32,
    units=(("mbconv_k3_e3", "mbconv_k5_e6"), ("mbconv_k7_e3",), ("mbconv_k3_e6",) * 3),
)
RESNET = Architecture(
    space="ofa-resnet50",
    resolution_px=224,
    units=tuple(("bottleneck_e0.25",) * depth for depth in (2, 2, 4, 2)),
    stem_depth=0,
    widths=(0, 1, 2, 0, 1, 2),
)
CELL = Architecture(
    space="nasbench201",
    resolution_px=32,
    cell="|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
)


def test_the_documented_names() -> None:
    assert set(space_names()) == {
        "proxylessnas",
        "ofa-proxylessnas-w1.3",
        "ofa-mbv3-w1.0",
        "ofa-mbv3-w1.2",
        "ofa-resnet50",
        "nasbench201",
        "mobile-mini",
    }
    for name in space_names():
        assert get_space(name).name == name
        assert get_space(name).resolution_px == (
            32 if name in ("nasbench201", "mobile-mini") else 224
        )


def test_blocks_come_expansion_by_expansion() -> None:
    """The order of the block-profiling paper's B1 to B9: e3k3 e3k5 e3k7 e4k3 ..."""
    ofa = get_space("ofa-mbv3-w1.2").choices(Slot(0, 0))
    assert [parse_mbconv(block) for block in ofa] == [(k, e) for e in (3, 4, 6) for k in (3, 5, 7)]
    space = get_space("proxylessnas")
    six = mbconv_names((3, 5, 7), (3, 6))
    edges = [space.choices(slot) for slot in space.slots]
    assert edges.count((*six, "skip")) == 15
    assert edges.count(six) == 6
    assert [s for s in space.slots if "skip" not in space.choices(s)] == [
        Slot(unit, 0) for unit in range(6)
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("proxylesnas", "unknown design space 'proxylesnas': did you mean 'proxylessnas'"),
        ("nothing-like-it", r"expected proxylessnas, .* or mobile-mini"),
        ("nowhere.yaml", "cannot read the space 'nowhere.yaml'"),
    ],
)
def test_unknown_spaces(name: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        get_space(name)


def test_read_architecture_from_name_text_file_and_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_architecture("proxyless-gpu") is NAMED_ARCHITECTURES["proxyless-gpu"]
    file = tmp_path / "arch.json"
    for arch in (MINI, RESNET, CELL, *NAMED_ARCHITECTURES.values()):
        text = json.dumps(arch.to_json(), indent=1)
        file.write_text(text)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert read_architecture(str(file)) == read_architecture("-") == arch
        assert read_architecture(text) == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proxyless-gpus", "no architecture 'proxyless-gpus': did you mean 'proxyless-gpu'"),
        ("no-such-file.json", "expected a JSON file, '-' for standard input, or one of"),
        ("{nonsense", "the architecture: line 1 column 2 is no JSON"),
        ("{}", "the architecture: the architecture names no space"),
        ('{"space": "mobile", "resolution_px": 32, "units": []}', "unknown design space 'mobile'"),
        ('{"space": "x.yaml", "resolution_px": 32, "units": []}', "unknown design space 'x.yaml'"),
        (
            '{"space": "mobile-mini", "resolution_px": 32, "units": []}',
            "0 units; mobile-mini has 3",
        ),
    ],
)
def test_architectures_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        read_architecture(text)


def test_lists_without_end_are_no_architecture(tmp_path: Path) -> None:
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(SpaceError, match=r"deep.json: lists in lists without end"):
        read_architecture(str(deep))


def test_bytes_on_standard_input_are_no_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"{\xff"), encoding="utf-8"))
    with pytest.raises(SpaceError, match="standard input is no text"):
        read_architecture("-")


def test_a_folder_is_no_architecture(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="cannot read the architecture"):
        read_architecture(str(tmp_path))


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (replace(MINI, units=(("mbconv_k9_e3",), *MINI.units[1:])), "unit 0 layer 0 holds 'mb"),
        (replace(MINI, units=(("skip",), *MINI.units[1:])), "unit 0 layer 0 holds 'skip'"),
        (replace(MINI, units=((), *MINI.units[1:])), "unit 0 has 0 layers; .* expects 1 to 3"),
        (replace(MINI, units=MINI.units[:2]), "has 2 units; mobile-mini has 3"),
        (replace(MINI, stem_depth=2), "neither cell, stem_depth nor widths"),
        (replace(RESNET, stem_depth=1), r"stem_depth is 1; .* expects 0 or 2"),
        (replace(RESNET, stem_depth=None), '"stem_depth": 0 or 2'),
        (replace(RESNET, widths=(0, 0, 0, 0, 3, 0)), "width_u2 is 3"),
        (replace(RESNET, widths=(0, 0)), r"widths are \[0, 0\]; .* six indices"),
        (replace(RESNET, widths=None), "widths are None"),
        (replace(CELL, cell="|nor_conv_3x3~0|"), "the cell is '.nor_conv_3x3~0.'; expected the"),
        (replace(CELL, cell=(CELL.cell or "").replace("~2", "~0")), "expected the form"),
        (replace(CELL, cell=(CELL.cell or "").replace("none~1", "sep~1")), "layer 4 holds 'sep'"),
        (replace(CELL, cell=None), 'needs a "cell" string'),
        (replace(CELL, stem_depth=0), "neither stem_depth, widths nor channels"),
        (
            replace(MINI, channels=Channels(stem=8, first=8, units=(8, 8), head=8)),
            "expected a positive width",
        ),
        (
            replace(RESNET, channels=Channels(stem=8, first=8, units=(8,) * 4, head=8)),
            "neither cell nor channels",
        ),
    ],
)
def test_architectures_that_do_not_fit(arch: Architecture, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        space_of(arch).validate(arch)
    with pytest.raises(SpaceError, match=message):
        space_of(arch).pieces(arch)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (replace(CELL, cell=(CELL.cell or "").replace("none~1", "sep~1")), "layer 4 holds 'sep'"),
        (replace(RESNET, widths=(7, 0, 0, 0, 0, 0)), "width_stem_middle is 7"),
        (replace(RESNET, widths=()), "six indices"),
    ],
)
def test_what_does_not_fit_is_neither_encoded_nor_canonical(
    arch: Architecture, message: str
) -> None:
    space = space_of(arch)
    for use in (space.encode, space.canonical):
        with pytest.raises(SpaceError, match=message):
            use(arch)
    with pytest.raises(SpaceError, match="0 units"):
        space_of(MINI).encode(replace(MINI, units=()))


def test_architectures_of_another_space_or_size() -> None:
    space = get_space("mobile-mini")
    with pytest.raises(SpaceError, match="is of 'nasbench201'; expected 'mobile-mini'"):
        space.validate(CELL)
    with pytest.raises(SpaceError, match="for 64 px, this mobile-mini space for 32 px"):
        space.validate(replace(MINI, resolution_px=64))


def test_blocks_need_a_known_name_and_resnet_its_widths() -> None:
    with pytest.raises(SpaceError, match="holds 'conv'"):
        get_space("nasbench201").block_pieces(Slot(0, 0), "conv")
    with pytest.raises(SpaceError, match="needs the six width indices"):
        get_space("ofa-resnet50").block_pieces(Slot(0, 0), "bottleneck_e0.2")
    for name in ("mbconv_k4_e3", "mbconv_k3_e0", "conv3x3"):
        with pytest.raises(SpaceError, match="is no block"):
            parse_mbconv(name)


def test_edges_of_a_cell_are_isolated_at_three_widths() -> None:
    pieces = get_space("nasbench201").block_pieces(Slot(0, 5), "nor_conv_3x3")
    assert [(p.in_channels, p.size_px, count) for p, count in pieces] == [
        (16, 32, 5),
        (32, 16, 5),
        (64, 8, 5),
    ]


def reduction(**changes: Any) -> Reduction:
    space = get_space("mobile-mini")
    alive = {slot: space.choices(slot)[:4] for slot in space.slots if slot.layer < 2}
    drop = Drop(
        rule="R1",
        block="mbconv_k7_e6",
        latency_s=Interval(1e-4, 5e-5, float(np.float64(2e-4))),
        accuracy_pct=Interval(-0.125, -0.5, 0.25),
        why="costs a fifth of the mean latency: more than it gains",
    )
    whole = Reduction(
        space="mobile-mini",
        resolution_px=32,
        device="cpu",
        fingerprint={"cpu": "Some CPU", "threads": 1, "runtime": {"name": "onnxruntime"}},
        alive=alive,
        max_depth=(2, 2, 2),
        accuracy_budget_points=0.5,
        drops=(drop, Drop(rule="R3", unit=2, depth=3)),
        notes=("a note: with a colon",),
    )
    return replace(whole, **changes)


def test_reduction_survives_the_file(tmp_path: Path) -> None:
    written = reduction()
    text = reduction_to_yaml(written)
    assert reduction_from_yaml(text) == written
    file = tmp_path / "reduced.yaml"
    file.write_text(text)
    space = get_space(str(file))
    assert space == reduced_space(written)
    assert (space.name, space.max_depth, space.is_reduced) == ("mobile-mini", (2, 2, 2), True)
    assert dict(space.alive) == dict(written.alive)
    assert get_space(str(file), 64).resolution_px == 64
    arch = space.sample(np.random.default_rng(0))
    get_space("mobile-mini").validate(arch)
    assert arch.space == "mobile-mini"


def test_the_documented_keys_of_a_reduced_space() -> None:
    data = yaml.safe_load(reduction_to_yaml(reduction()))
    assert data["format"] == 1
    assert {"space", "resolution_px", "device", "fingerprint", "alive", "max_depth"} < set(data)
    assert data["accuracy_budget_points"] == 0.5
    assert data["alive"][2][1] == list(mbconv_names((3, 5, 7), (3, 6))[:4])
    first, second = data["drops"]
    assert first["latency_s"] == {"value": 1e-4, "lo": 5e-5, "hi": 2e-4}
    assert second == {"rule": "R3", "unit": 2, "depth": 3}


def test_every_reduction_of_every_space_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / "r.yml"
    for name in space_names():
        space = get_space(name)
        alive = {slot: space.choices(slot)[1:] for slot in space.slots}
        text = reduction_to_yaml(
            reduction(
                space=name,
                resolution_px=space.resolution_px,
                alive=alive,
                max_depth=space.max_depth,
                accuracy_budget_points=None,
            )
        )
        file.write_text(text)
        assert get_space(str(file)) == space.restrict(alive)


def write(path: Path, **fields: object) -> Path:
    data = yaml.safe_load(reduction_to_yaml(reduction()))
    path.write_text(yaml.safe_dump({**data, **fields}))
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "mobile"}, r"space is 'mobile'; expected .* by HWPROF_SPACES=my_space"),
        ({"space": None}, "space is None; expected a text"),
        ({"resolution_px": "32"}, "resolution_px is '32'; expected a whole number"),
        ({"resolution_px": -1}, "resolution_px is -1"),
        ({"alive": {0: {0: ["mbconv_k9_e9"]}}}, "unit 0 layer 0 holds 'mbconv_k9_e9'"),
        ({"alive": {0: {0: []}}}, "unit 0 layer 0 would have no block left"),
        ({"alive": {7: {0: ["mbconv_k3_e3"]}}}, "no layer 0 in unit 7"),
        ({"alive": {0: {0: "mbconv_k3_e3"}}}, "unit 0 layer 0 is 'mbconv_k3_e3'; expected a list"),
        ({"alive": {0: ["mbconv_k3_e3"]}}, "expected layer → block names"),
        ({"alive": [1]}, "alive is"),
        ({"max_depth": [2, 2]}, "max_depth has 2 entries; mobile-mini has 3 units"),
        ({"max_depth": [2, 2, 9]}, "max_depth of unit 2 is 9"),
        ({"max_depth": [2, 2, "x"]}, "expected a whole number for every unit"),
        ({"accuracy_budget_points": "low"}, "accuracy_budget_points is 'low'"),
        ({"drops": 3}, "drops is 3; expected a list"),
        ({"drops": [{"rule": "R1", "weather": 1}]}, "a drop is"),
        ({"drops": [{"rule": "R1", "latency_s": [1, 2, 3]}]}, "an interval is"),
        ({"fingerprint": "abc"}, "fingerprint is 'abc'"),
    ],
)
def test_reduced_spaces_that_do_not_fit(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    file = write(tmp_path / "reduced.yaml", **fields)
    with pytest.raises(SpaceError, match=message) as raised:
        get_space(str(file))
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


def test_another_format_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "reduced.yaml", format=2)
    with pytest.raises(FormatVersionError, match="format is 2; this hwprof reads format 1"):
        get_space(str(file))


@pytest.mark.parametrize(
    "text",
    ["format: [1", "just words", "", "\x00", "- 1\n- 2\n", "made: 2026-13-01\n", "[" * 2_000],
)
def test_damaged_yaml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "reduced.yaml"
    file.write_text(text)
    with pytest.raises(SpaceError) as raised:
        get_space(str(file))
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)
    assert "hwprof reduce" in str(raised.value)
