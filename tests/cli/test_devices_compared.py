"""``hwprof effects RUN RUN`` and ``hwprof report RUN RUN``, from tables to text, JSON and page."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwprof import api
from hwprof.errors import IncompatibleRunError, StoreError
from hwprof.space import get_space, reduction_from_yaml, reduction_to_yaml
from tests.cli.running import hwprof

COST_MS = {"nor_conv_3x3": 3.0, "nor_conv_1x1": 1.0, "avg_pool_3x3": 0.5, "skip_connect": 0.1}


def make_run(folder: Path, name: str, cost_ms: dict[str, float]) -> Path:
    """Import 60 random cells whose latency is the sum of their operators'."""
    space, rng = get_space("nasbench201"), np.random.default_rng(4)
    cells = {space.sample(rng).cell for _ in range(60)}
    lines = ["arch,latency_ms"]
    for cell in sorted(filter(None, cells)):
        ops = [edge.split("~")[0] for edge in cell.replace("+", "").split("|") if edge]
        total = 5.0 + sum(cost_ms.get(op, 0.0) for op in ops) + rng.normal(0.0, 0.01)
        lines.append(f"{cell},{total:.6f}")
    table = folder / f"{name}.csv"
    table.write_text("\n".join(lines) + "\n")
    return api.import_(table, space="nasbench201", device_name=name, out=folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("devices")
    make_run(path, "phone", COST_MS)
    make_run(path, "npu", {**COST_MS, "nor_conv_3x3": 0.2, "avg_pool_3x3": 4.0})
    return path


def test_effects_of_two_runs(folder: Path) -> None:
    done = hwprof("effects", "phone", "npu", "--json", "--csv", "both.csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [d["device"] for d in found["devices"]] == ["phone", "npu"]
    flipped = {f["block"]: f["slower_on"] for f in found["flips"] if f["kind"] == "network"}
    assert flipped["nor_conv_3x3"] == "phone"
    assert flipped["avg_pool_3x3"] == "npu"
    assert {c["of"] for c in found["correlations"]} == {"networks", "network", "block"}
    frame = pd.read_csv(io.StringIO((folder / "both.csv").read_text()))
    assert len(frame) == len(found["effects"])
    text = hwprof("effects", "phone", "npu", cwd=folder)
    assert text.returncode == 0
    assert "slower than its rivals on phone" in " ".join(text.stdout.split())


def test_imported_runs_have_nothing_for_the_gate(folder: Path) -> None:
    with pytest.raises(StoreError, match="nothing was measured"):
        api.compare(folder / "phone", folder / "npu")


def test_runs_of_two_spaces_are_refused(folder: Path) -> None:
    table = folder / "blocks.csv"
    space = get_space("mobile-mini")
    lines = ["resolution_px,unit,layer,block,latency_ms", "32,,,fixed,1.0"]
    lines += [
        f"32,{slot.unit},{slot.layer},{block},{1 + k}"
        for slot in space.slots
        for k, block in enumerate(space.choices(slot))
    ]
    table.write_text("\n".join(lines) + "\n")
    api.import_(table, space="mobile-mini", device_name="board", out=folder / "board")
    done = hwprof("effects", "phone", "board", cwd=folder)
    assert done.returncode == 2
    assert "space is 'nasbench201' in the first and 'mobile-mini' in the second" in done.stderr
    assert "Traceback" not in done.stderr


def test_report_shows_the_other_device(folder: Path) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    page = api.report([folder / "phone", folder / "npu"], out=folder / "page").read_text()
    assert "Is it the same on other devices?" in page
    assert "slower than its rivals on npu" in page.replace("\u00a0", " ")
    flips = pd.read_csv(next((folder / "page").rglob("device_flips.csv")))
    assert {"slower_s", "faster_hi_s", "adjusted_p"} <= set(flips.columns)


def test_report_shows_the_drops_of_its_own_device(folder: Path) -> None:
    """Of two jobs the page is about the first: its profile, its drops, its time."""
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    reductions = []
    for seconds, name in enumerate(("phone", "npu"), start=1):
        job = folder / f"job-{name}"
        shutil.copytree(folder / name, job / "profile")
        journal = {"format": 1, "request": {}, "seconds": {"profile": float(seconds)}}
        (job / "quickstart.json").write_text(json.dumps(journal))
        reductions.append(api.reduce(folder / name, out=job / "reduced.yaml"))
    phone, npu = ([drop.block for drop in r.drops] for r in reductions)
    assert phone != npu
    jobs = [folder / "job-npu", folder / "job-phone"]
    page = api.report(jobs, out=folder / "first").read_text().replace("\u00a0", " ")
    assert "Time spent: profile 2.0 s." in page
    assert "1 reduced space of other devices" in page
    drops = pd.read_csv(folder / "first" / "tables" / "drops.csv")
    assert drops["block"].tolist() == npu
    other = reduction_to_yaml(
        replace(reduction_from_yaml((jobs[0] / "reduced.yaml").read_text()), resolution_px=64)
    )
    (folder / "other.yaml").write_text(other)
    with pytest.raises(IncompatibleRunError, match="at 64 px, the first profile of nasbench201"):
        api.report([folder / "phone", folder / "other.yaml"], out=folder / "never")
