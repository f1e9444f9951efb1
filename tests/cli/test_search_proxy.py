"""``--accuracy proxy:NAME``: ranks without training, from effects to a front."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hwprof.space import get_space
from tests.cli.running import hwprof

WARNING = "proxy:macs gives no accuracies"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run imported from a table: 150 networks whose latencies are their codes, summed."""
    path = tmp_path_factory.mktemp("proxy")
    space = get_space("mobile-mini")
    rng = np.random.default_rng(0)
    with (path / "times.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arch", "latency_ms"])
        for arch in {a.arch_id: a for a in (space.sample(rng) for _ in range(150))}.values():
            codes = space.encode(arch)
            rows.writerow([arch.canonical_json(), 1.0 + float((codes + 1).sum()) / 100.0])
    done = hwprof(
        *("import", "times.csv", "--space", "mobile-mini", "--device-name", "made up"),
        *("--out", "run"),
        cwd=path,
    )
    assert done.returncode == 0, done.stderr
    return path


def test_a_search_finds_a_front_of_percentiles(folder: Path) -> None:
    done = hwprof(
        *("search", "--space", "mobile-mini", "--latency", "run", "--accuracy", "proxy:macs"),
        *("--max-evals", "40", "--out", "front", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert WARNING in done.stderr
    assert done.stderr.endswith("kept in front, for hwprof report\n")
    front = json.loads(done.stdout)["front"]
    assert {row["accuracy_source"] for row in front} == {"percentile by proxy:macs"}
    ranked = sorted(front, key=lambda row: row["accuracy_pct"])
    assert [row["macs"] for row in ranked] == sorted(row["macs"] for row in front)
    assert 0.0 < ranked[0]["accuracy_pct"] < ranked[-1]["accuracy_pct"] < 100.0


def test_effects_and_the_page_say_what_they_are_of(folder: Path) -> None:
    done = hwprof("effects", "run", "--accuracy", "proxy:macs", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert WARNING in done.stderr
    effects = {row["block"]: row for row in json.loads(done.stdout) if row["kind"] == "network"}
    # More channels, more multiply-accumulates.
    assert effects["mbconv_k3_e6"]["accuracy_pct"] > effects["mbconv_k3_e3"]["accuracy_pct"]
    done = hwprof("report", "run", "--accuracy", "proxy:macs", "--out", "page", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "proxy:macs, which gives none" in (folder / "page" / "index.html").read_text()


def test_an_unknown_proxy_is_one_line(folder: Path) -> None:
    done = hwprof("effects", "run", "--accuracy", "proxy:zen", cwd=folder)
    assert done.returncode == 2
    assert "there is no proxy 'zen'; expected one of naswot, synflow, macs, params" in done.stderr
    assert "Traceback" not in done.stderr
