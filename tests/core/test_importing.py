"""Tables of other people become runs, or are refused by line and column."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwprof.errors import DataError, IncompatibleRunError
from hwprof.importing import import_csv, parse_architecture, read_latency_table
from hwprof.isolated import isolated_table
from hwprof.space import Architecture, DesignSpace, Slot, get_space
from hwprof.store import Run

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is absent")

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"


@pytest.fixture(scope="module")
def mini() -> DesignSpace:
    return get_space("mobile-mini")


@pytest.fixture(scope="module")
def archs(mini: DesignSpace) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [mini.sample(rng) for _ in range(6)]


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(columns: Sequence[str], rows: Iterable[Sequence[Any]], name: str = "t.csv") -> Path:
        path = tmp_path / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
        return path

    return write


def read(path: Path, space: DesignSpace, latency_column: str | None = None) -> Run:
    import_csv(path, space, "npu", path.parent / "run", latency_column).close()
    return Run.open(path.parent / "run")


def refusal(path: Path, space: DesignSpace, latency_column: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        import_csv(path, space, "npu", path.parent / "run", latency_column)
    message = str(caught.value)
    assert "\n" not in message
    assert not (path.parent / "run").exists(), "nothing is kept of a table that is refused"
    return message


def test_networks_with_all_columns(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    rows = [
        [a.canonical_json(), 10.0 + i, 0.5, "" if i == 2 else 60 + i] for i, a in enumerate(archs)
    ]
    with read(table(["arch", "latency_ms", "sd_ms", "accuracy_pct"], rows), mini) as run:
        samples = run.networks()
        assert run.kind == "import"
        assert run.request["space"] == "mobile-mini"
        assert run.fingerprint.stable["device"] == "npu"
        assert run.fingerprint.stable["runtime"] == "imported"
    assert [s.arch for s in samples] == archs
    assert [s.latency_s for s in samples] == pytest.approx([0.010 + 0.001 * i for i in range(6)])
    assert samples[0].latency_se_s == pytest.approx(0.0005)
    assert [s.accuracy_pct for s in samples] == [60, 61, None, 63, 64, 65]


def test_seconds_and_compressed_tables(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    plain = table(["arch", "latency_s"], [[archs[0].canonical_json(), 0.02]])
    path = plain.with_name("t.csv.gz")
    path.write_bytes(gzip.compress(plain.read_bytes()))
    with read(path, mini) as run:
        assert run.networks()[0].latency_s == 0.02


def test_importing_again_changes_nothing(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    path = table(["arch", "latency_ms"], [[a.canonical_json(), 10.0] for a in archs])
    for _ in range(2):
        with read(path, mini) as run:
            assert len(run.networks()) == len(archs)
    other = table(["arch", "latency_ms"], [[archs[0].canonical_json(), 11.0]])
    with pytest.raises(IncompatibleRunError, match="sha256"):
        import_csv(other, mini, "npu", path.parent / "run")


def test_cells_are_read_as_strings(table: Callable[..., Path]) -> None:
    space = get_space("nasbench201")
    with read(table(["arch", "pixel3_ms"], [[CELL, 4.0]]), space, "pixel3_ms") as run:
        (sample,) = run.networks()
    assert sample.arch == Architecture(space="nasbench201", resolution_px=32, cell=CELL)
    assert sample.latency_s == 0.004


def test_cells_by_index_are_looked_up_beside_the_table(table: Callable[..., Path]) -> None:
    space = get_space("nasbench201")
    path = table(["index", "latency_ms"], [[7, 4.0]])
    assert "found 0" in refusal(path, space)
    table(["index", "arch", "accuracy"], [[6, "x"], [7, CELL]], name="archs.csv")
    with read(path, space) as run:
        assert run.networks()[0].arch.cell == CELL


def network_rows(archs: Sequence[Architecture], latency: object = 10.0) -> list[list[object]]:
    return [[a.canonical_json(), 10.0] for a in archs[:3]] + [[archs[3].canonical_json(), latency]]


@pytest.mark.parametrize("latency", ["nan", "inf", "-3", "0", "", "fast"])
def test_what_is_no_latency_is_refused(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path], latency: str
) -> None:
    said = refusal(table(["arch", "latency_ms"], network_rows(archs, latency)), mini)
    assert said.startswith("t.csv line 5, latency_ms is ")
    assert "expected a number above 0" in said


def test_a_network_of_another_space_is_refused(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    rows = network_rows(archs)
    rows[1][0] = get_space("proxylessnas").sample(np.random.default_rng(0)).canonical_json()
    said = refusal(table(["arch", "latency_ms"], rows), mini)
    assert said.startswith("t.csv line 3, arch: ")
    assert "'proxylessnas'" in said


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"space": "mobile-mini"}', "|broken|"])
def test_what_is_no_architecture_is_refused(
    mini: DesignSpace, table: Callable[..., Path], text: str
) -> None:
    said = refusal(table(["arch", "latency_ms"], [[text, 1.0]]), mini)
    assert said.startswith("t.csv line 2, arch: ")


def test_a_network_twice_is_refused(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    rows = network_rows([*archs[:3], archs[0]])
    assert "line 5, arch is that of line 2" in refusal(table(["arch", "latency_ms"], rows), mini)


def test_fractions_are_no_percentages(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    rows = [[a.canonical_json(), 10.0, 0.76] for a in archs]
    said = refusal(table(["arch", "latency_ms", "accuracy_pct"], rows), mini)
    assert "multiply by 100" in said
    rows[2][2] = 760.0
    said = refusal(table(["arch", "latency_ms", "accuracy_pct"], rows), mini)
    assert said.startswith("t.csv line 4, accuracy_pct is '760.0'")


@pytest.mark.parametrize(("column", "value"), [("latency_ms", 5e-4), ("latency_s", 500.0)])
def test_a_mixed_up_unit_is_refused(
    mini: DesignSpace,
    archs: list[Architecture],
    table: Callable[..., Path],
    column: str,
    value: float,
) -> None:
    said = refusal(table(["arch", column], [[a.canonical_json(), value] for a in archs]), mini)
    assert f"median {column} of {value:g}" in said


@pytest.mark.parametrize(
    ("columns", "picked", "said"),
    [
        (["arch", "pixel3_ms"], None, "rename one of pixel3_ms, or pick it with `hwprof import"),
        (["arch", "latency_ms"], "gpu_ms", "has no column 'gpu_ms'"),
        (["arch", "latency"], "latency", "end it in _ms or _s"),
        (["net", "latency_ms"], None, "has no column 'arch'"),
        (["latency_ms", "latency_ms"], None, "twice"),
    ],
)
def test_missing_columns_are_named(
    mini: DesignSpace,
    table: Callable[..., Path],
    columns: list[str],
    picked: str | None,
    said: str,
) -> None:
    assert said in refusal(table(columns, [["x", 1.0]]), mini, picked)


def test_two_latency_columns_need_a_choice(mini: DesignSpace, table: Callable[..., Path]) -> None:
    path = table(["arch", "latency_ms", "latency_s"], [["x", 1.0, 1.0]])
    assert "has latency_ms and latency_s; keep one, or pick it" in refusal(path, mini)


def test_files_that_are_no_tables(mini: DesignSpace, tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "not.csv.gz").write_bytes(b"plain")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("arch,latency_ms\n")
    (tmp_path / "wide.csv").write_text('arch,latency_ms\n{"a": 1, "b": 2},3.0\n')
    for name in ("absent.csv", "binary.csv", "not.csv.gz"):
        assert "cannot read" in refusal(tmp_path / name, mini)
    for name in ("empty.csv", "header.csv"):
        assert "has no rows" in refusal(tmp_path / name, mini)
    assert "wide.csv line 2 has 3 cells under 2 columns" in refusal(tmp_path / "wide.csv", mini)


PLACES = ["resolution_px", "unit", "layer", "block", "latency_ms", "sd_ms"]


def block_rows(space: DesignSpace, fixed: bool = True) -> list[list[object]]:
    rows: list[list[object]] = [
        [space.resolution_px, slot.unit, slot.layer, block, 0.5 + 0.01 * i, 0.02]
        for slot in space.slots
        for i, block in enumerate(space.choices(slot))
    ]
    return [*rows, [space.resolution_px, "", "", "fixed", 3.0, ""]] if fixed else rows


def test_blocks_by_place(
    mini: DesignSpace, table: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with read(table(PLACES, block_rows(mini)), mini) as run:
        rows = isolated_table(run, mini)
        assert run.networks() == []
    assert not caplog.records
    assert len(rows) == 1 + sum(len(mini.choices(s)) for s in mini.slots)
    first = rows[0]
    assert (first.slot, first.block) == (Slot(0, 0), mini.choices(Slot(0, 0))[0])
    assert first.isolated_hot_s.value == pytest.approx(0.5e-3)
    assert first.isolated_hot_s.half_width == pytest.approx(1.96 * 0.02e-3, rel=1e-3)
    assert rows[-1].slot is None
    assert rows[-1].isolated_hot_s == pytest.approx((3e-3, 3e-3, 3e-3))


def test_blocks_without_a_constant_part_are_relative(
    mini: DesignSpace, table: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    read(table(PLACES, block_rows(mini, fixed=False)), mini).close()
    assert "are relative" in caplog.text


def test_bad_blocks_are_refused(mini: DesignSpace, table: Callable[..., Path]) -> None:
    good = block_rows(mini)
    resolution = mini.resolution_px
    last = len(good) + 2

    def said(row: Sequence[object]) -> str:
        return refusal(table(PLACES, [*good, row]), mini)

    assert f"line {last}, block is 'tail'" in said([resolution, "", "", "tail", 1, ""])
    assert "both unit and layer" in said([resolution, 0, "", "skip", 1, ""])
    assert "has no layer 0 in unit 99" in said([resolution, 99, 0, "mbconv_k3_e3", 1, ""])
    assert "line 2" in said(good[0])
    assert f"line {last}, block is 'mbconv_k9_e9'" in said(
        [resolution, 0, 0, "mbconv_k9_e9", 1, ""]
    )
    missing = refusal(table(PLACES, good[1:]), mini)
    assert f"lacks 1 blocks of mobile-mini at {resolution} px" in missing
    assert f"{good[0][3]} at u0.l0" in missing
    elsewhere = [[resolution + 32, *row[1:]] for row in good]
    assert f"it has {resolution + 32}:" in refusal(table(PLACES, elsewhere), mini)


def test_latency_tables_of_a_search(
    archs: list[Architecture], table: Callable[..., Path], mini: DesignSpace
) -> None:
    path = table(["arch", "latency_ms"], [[a.canonical_json(), 5.0] for a in archs] + [[CELL, 2.0]])
    found = read_latency_table(path)
    assert found[mini.canonical(archs[0]).arch_id] == 0.005
    cell = parse_architecture(CELL)
    assert found[get_space("nasbench201").canonical(cell).arch_id] == 0.002
    with pytest.raises(DataError, match="line 2, arch: "):
        read_latency_table(table(["arch", "latency_ms"], [["{}", 5.0]]))


def test_encodings_of_one_network_share_their_mean(table: Callable[..., Path]) -> None:
    space = get_space("nasbench201")
    rng = np.random.default_rng(0)
    for _ in range(200):
        a = space.sample(rng)
        if (b := space.canonical(a)) != a:
            break
    found = read_latency_table(table(["arch", "latency_s"], [[a.cell, 0.2], [b.cell, 0.4]]))
    assert found == {b.arch_id: pytest.approx(0.3)}


@needs_data
def test_note10_table_by_shape(tmp_path: Path) -> None:
    """Exact figures of the table at 224 px, from the block-profiling method note [M]."""
    space = get_space("ofa-mbv3-w1.2", 224)
    path = DATA / "note10_ofa_mbv3_w12_blocks.csv.gz"
    with import_csv(path, space, "note10", tmp_path / "run") as run:
        blocks = run.imported_blocks()
        here = {(b.unit, b.layer, b.block): b.latency_s * 1e3 for b in run.imported_blocks(224)}
        assert len(isolated_table(run, space)) == len(here) == 3 + 20 * 9
    assert {b.resolution_px for b in blocks} == {192, 208, 224}
    fixed_ms = sum(v for (unit, *_), v in here.items() if unit is None)
    assert fixed_ms == pytest.approx(4.90872, abs=1e-5)
    mean_ms, least_ms, most_ms = fixed_ms, fixed_ms, fixed_ms
    for unit in range(space.n_units):
        layers = [
            [here[unit, layer, b] for b in space.choices(Slot(unit, layer))]
            for layer in range(space.max_depth[unit])
        ]
        depths = space.depths(unit)
        mean_ms += float(np.mean([sum(np.mean(x) for x in layers[:d]) for d in depths]))
        least_ms += min(sum(min(x) for x in layers[:d]) for d in depths)
        most_ms += max(sum(max(x) for x in layers[:d]) for d in depths)
    assert (mean_ms, least_ms, most_ms) == pytest.approx((41.79615, 17.76906, 92.39804), abs=1e-5)


@needs_data
def test_note10_table_of_another_space_or_size(tmp_path: Path) -> None:
    path = DATA / "note10_ofa_mbv3_w12_blocks.csv.gz"
    with pytest.raises(DataError, match=r"it has 192, 208 or 224: choose .* --resolution"):
        import_csv(path, get_space("ofa-mbv3-w1.2", 160), "note10", tmp_path / "run")
    with pytest.raises(DataError, match=r"has no line for stem of ofa-mbv3-w1\.0 at 192"):
        import_csv(path, get_space("ofa-mbv3-w1.0", 224), "note10", tmp_path / "run")
    with pytest.raises(DataError, match="keyed by shape"):
        import_csv(path, get_space("ofa-resnet50", 224), "note10", tmp_path / "run")


@needs_data
def test_nasbench201_latencies(tmp_path: Path) -> None:
    path = DATA / "nb201_latency.csv.gz"
    space = get_space("nasbench201")
    with import_csv(path, space, "pixel3", tmp_path / "run", "pixel3_ms") as run:
        samples = run.networks()
    assert len(samples) == 15_625
    assert samples[0].latency_s == pytest.approx(3.60585e-3)
    assert samples[1].arch.cell == (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|"
        "skip_connect~2|"
    )


def test_json_with_resolution_of_another_size_is_refused(
    mini: DesignSpace, archs: list[Architecture], table: Callable[..., Path]
) -> None:
    data = {**archs[0].to_json(), "resolution_px": mini.resolution_px * 2}
    said = refusal(table(["arch", "latency_ms"], [[json.dumps(data), 1.0]]), mini)
    assert f"{mini.resolution_px * 2} px" in said
