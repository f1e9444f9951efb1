"""Tables that cannot be right: the unit that slips through, and architectures by the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof import api
from hwprof.errors import DataError
from hwprof.graph import network_graph, piece_graph
from hwprof.space import get_space

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is absent")


def write_networks(path: Path, name: str, scale: float) -> Path:
    """Write 12 networks that take 20 µs an operator, in ms times ``scale``."""
    space, rng = get_space(name), np.random.default_rng(0)
    lines = ["arch,latency_ms"]
    for _ in range(12):
        arch = space.sample(rng)
        text = arch.canonical_json().replace('"', '""')
        milliseconds = 0.02 * len(network_graph(space, arch).live_nodes)
        lines.append(f'"{text}",{milliseconds * scale:.9f}')
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("name", ["mobile-mini", "ofa-mbv3-w1.0", "proxylessnas"])
def test_seconds_in_a_column_of_milliseconds_are_refused(tmp_path: Path, name: str) -> None:
    good = write_networks(tmp_path / "good.csv", name, 1.0)
    api.import_(good, space=name, device_name="phone", out=tmp_path / "run")
    bad = write_networks(tmp_path / "bad.csv", name, 1e-3)
    with pytest.raises(DataError, match=r"bad\.csv.*latency_ms.*(ns an operator|median)"):
        api.import_(bad, space=name, device_name="phone", out=tmp_path / "other")
    assert not (tmp_path / "other" / "run.json").exists()


def write_blocks(path: Path, name: str, scale: float) -> Path:
    """Write every block at 200 µs an operator, in ms times ``scale``."""
    space = get_space(name)
    lines = ["resolution_px,unit,layer,block,latency_ms"]
    for piece, places in space.block_places().items():
        milliseconds = 0.2 * max(1, len(piece_graph(piece).live_nodes)) * scale
        lines += [
            f"{space.resolution_px},{p.slot.unit},{p.slot.layer},{p.block},{milliseconds:.9f}"
            for p in places
        ]
    path.write_text("\n".join([*lines, f"{space.resolution_px},,,fixed,{3 * scale:.9f}"]) + "\n")
    return path


@pytest.mark.parametrize("name", ["mobile-mini", "ofa-mbv3-w1.0", "proxylessnas"])
def test_blocks_in_seconds_in_a_column_of_milliseconds_are_refused(
    tmp_path: Path, name: str
) -> None:
    """At over a microsecond a block, the median of latencies alone says nothing."""
    good = write_blocks(tmp_path / "good.csv", name, 1.0)
    api.import_(good, space=name, device_name="phone", out=tmp_path / "run")
    bad = write_blocks(tmp_path / "bad.csv", name, 1e-3)
    with pytest.raises(DataError, match=r"bad\.csv.*latency_ms of .* ns an operator"):
        api.import_(bad, space=name, device_name="phone", out=tmp_path / "other")
    assert not (tmp_path / "other" / "run.json").exists()


@needs_data
def test_shapes_in_seconds_in_a_column_of_milliseconds_are_refused(tmp_path: Path) -> None:
    """The Note10's blocks take over a microsecond even as seconds called milliseconds."""
    published = pd.read_csv(DATA / "note10_ofa_mbv3_w12_blocks.csv.gz")
    published["mean_ms"] /= 1e3
    table = tmp_path / "bad.csv"
    published.to_csv(table, index=False)
    with pytest.raises(DataError, match=r"bad\.csv.*mean_ms of .*"):
        api.import_(
            table,
            space="ofa-mbv3-w1.2",
            device_name="note10",
            out=tmp_path / "run",
            latency_column="mean_ms",
        )


def test_a_count_that_no_database_holds_is_named_by_line(tmp_path: Path) -> None:
    table = write_networks(tmp_path / "table.csv", "mobile-mini", 1.0)
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},count", *(f"{row},1e30" for row in rows)]) + "\n")
    with pytest.raises(DataError, match=r"table\.csv line 2, count is '1e30'; expected a whole"):
        api.import_(table, space="mobile-mini", device_name="phone", out=tmp_path / "run")


def test_networks_to_predict_are_named_by_line(tmp_path: Path) -> None:
    good = write_networks(tmp_path / "good.csv", "mobile-mini", 1.0)
    api.import_(good, space="mobile-mini", device_name="phone", out=tmp_path / "run")
    rows = good.read_text().splitlines()
    for broken, message in (
        ('"{not json",1', r"line 3, arch: .*expected JSON or a cell string"),
        ("[" * 100_000 + ",1", r"line 3, arch: .*expected JSON or a cell string"),
        (rows[2].replace("k3", "k9").replace("k5", "k9").replace("k7", "k9"), r"line 3, arch: .*k9"),
        ('"{""space"": ""elsewhere"", ""resolution_px"": 32, ""units"": []}",1',
         r"line 3, arch: unknown design space 'elsewhere'"),
    ):  # fmt: skip
        table = tmp_path / "asked.csv"
        table.write_text("\n".join([*rows[:2], broken]) + "\n")
        with pytest.raises(DataError, match=message):
            api.predict(tmp_path / "run", table)
    table.write_text("network\n1\n")
    with pytest.raises(DataError, match="no column 'arch'; it has network"):
        api.predict(tmp_path / "run", table)
