"""`hwprof bench --parts`: what it refuses at once, and one run from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hwprof.space import get_space
from tests.cli.running import hwprof, hwprof_here


@pytest.fixture
def network(tmp_path: Path) -> str:
    path = tmp_path / "net.json"
    arch = get_space("mobile-mini").sample(np.random.default_rng(0))
    path.write_text(json.dumps(arch.to_json()))
    return str(path)


def test_a_device_without_a_trace_names_those_with_one(network: str) -> None:
    done = hwprof("bench", network, "--parts", "--device", "null", "--preset", "quick")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "no operator trace" in done.stderr
    assert "devices that do: cpu" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--isolated",), "--parts"),
        (("--parts", "--cache", "cold"), "--cache cold"),
        (("--parts", "--prefixes"), "--prefixes"),
        (("--cut", "stem"), "--parts"),
        (("--parts", "--isolated", "--cut", "stem"), "--isolated or --cut"),
        (("--parts", "--cut", "nowhere"), "no operator makes a tensor 'nowhere'"),
    ],
)
def test_options_that_contradict_each_other(
    network: str, options: tuple[str, ...], named: str
) -> None:
    done = hwprof_here("bench", network, *options)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_parts_of_a_network(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # How near the sum comes to the level is measured by tests/bench/bench_parts.py.
    monkeypatch.setattr("hwprof.api.parts.MOST_REPEATS", 0)
    done = hwprof_here("bench", network, "--parts", "--preset", "quick", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["grouped_by"] == "blocks"
    assert {"level_s", "verdict", "parts", "reconciliation"} <= set(data)
    blocks = [part["part"] for part in data["parts"] if part["kind"] == "block"]
    assert blocks[0] == "stem"
    assert blocks[-1] == "head"
    total_s = sum(part["traced_s"] for part in data["parts"])
    assert data["reconciliation"]["sum_s"] == pytest.approx(total_s)
    assert data["reconciliation"]["residual_pct"] == pytest.approx(
        100 * (total_s / data["level_s"] - 1)
    )


def test_prefixes_need_no_trace(network: str) -> None:
    done = hwprof("bench", network, "--prefixes", "--device", "null", "--preset", "quick", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [rows[0]["part"], rows[-1]["part"]] == ["stem", "head"]
    assert set(rows[0]) == {"part", "block", "upto_s", "added_s", "added_lo_s", "added_hi_s"}
