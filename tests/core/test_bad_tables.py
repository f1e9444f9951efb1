"""Tables that cannot be right: the unit that slips through, and architectures by the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.errors import DataError
from hwprof.graph import network_graph
from hwprof.space import get_space


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


def test_networks_to_predict_are_named_by_line(tmp_path: Path) -> None:
    good = write_networks(tmp_path / "good.csv", "mobile-mini", 1.0)
    api.import_(good, space="mobile-mini", device_name="phone", out=tmp_path / "run")
    rows = good.read_text().splitlines()
    for broken, message in (
        ('"{not json",1', r"line 3, arch: .*expected JSON or a cell string"),
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
