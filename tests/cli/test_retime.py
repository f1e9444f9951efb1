"""``hwprof retime`` and ``hwprof report`` on searches for several devices."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwprof import api
from hwprof.api.finalists import FinalistMeasurer
from hwprof.api.placing import place
from hwprof.api.reporting import report
from hwprof.api.retiming import _workloads, read_retimed, retime
from hwprof.api.runs import latency_model
from hwprof.api.searching import load_search, save_search, search
from hwprof.errors import DeviceError, IncompatibleRunError, PlanError, StoreError
from hwprof.measure.records import DeviceOptions, Failure, Fingerprint, Measurement, plan_for
from hwprof.results import SearchResult, Trial
from hwprof.search.journal import CHECKPOINT_FILE
from hwprof.space import Architecture, get_space
from hwprof.store import Run
from tests.cli.running import hwprof

SPACE = get_space("nasbench201")
# The scripted device, as it tells of itself.
NULL = {
    "device": "null",
    "hardware": "scripted",
    "runtime": "scripted",
    "runtime_version": "1",
    "threads": 1,
    "batch": 1,
    "precision": "fp32",
}


def cells(n: int) -> list[Architecture]:
    rng = np.random.default_rng(7)
    found = {SPACE.canonical(a).arch_id: a for a in (SPACE.sample(rng) for _ in range(4 * n))}
    return list(found.values())[:n]


def fingerprint(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"digest": Fingerprint(stable=facts).digest, "stable": dict(facts)}


def made_up(
    folder: Path, archs: list[Architecture], facts: Mapping[str, Any] | None, device: str = "null"
) -> Path:
    """Write the ``search.json`` of a search that measured ``archs`` as its front."""
    trials = tuple(
        Trial(
            arch=arch,
            accuracy_pct=80.0 + i,
            accuracy_source="table:acc.csv",
            latency_s=1e-3 * (i + 1),
            latency_source="measured",
            macs=1,
            params=1,
            predicted_s=1e-3,
            ci95_s=(0.99e-3 * (i + 1), 1.01e-3 * (i + 1)),
            verdict="clean",
        )
        for i, arch in enumerate(archs)
    )
    folder.mkdir()
    save_search(
        folder,
        SearchResult(
            space=SPACE.name,
            reduced=False,
            strategy="nsga2",
            seed=0,
            device=device,
            front=trials,
            finalists=trials,
            trials=trials,
            confirmed=True,
            ledger={},
            measured_fingerprint=None if facts is None else fingerprint(facts),
        ),
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a device called null, and three searches: for it, at batch 8, on another machine."""
    path = tmp_path_factory.mktemp("several")
    lines = ["arch,latency_ms"]
    lines += [f"{a.cell},{1.0 + 0.01 * i}" for i, a in enumerate(cells(60))]
    (path / "null.csv").write_text("\n".join(lines) + "\n")
    api.import_(path / "null.csv", space="nasbench201", device_name="null", out=path / "run")
    archs = cells(6)
    made_up(path / "here", archs[:2], run_facts(path / "run"))
    made_up(path / "batch8", archs[2:4], {**NULL, "batch": 8})
    made_up(path / "elsewhere", archs[4:6], {**NULL, "hardware": "another machine"})
    return path


def run_facts(path: Path) -> dict[str, Any]:
    with Run.open(path) as run:
        return dict(run.fingerprint.stable)


@pytest.fixture(scope="module")
def timed(folder: Path) -> Path:
    """The networks of two of the searches, timed at batch 8."""
    done = hwprof(
        *("retime", "here", "batch8", "--device", "null", "--batch", "8"),
        *("--out", "on8", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["n_done"], found["n_failed"]) == (4, 0)
    assert found["fingerprint"] == fingerprint({**NULL, "batch": 8})
    assert all(row["ci95_s"][0] <= row["level_s"] <= row["ci95_s"][1] for row in found["networks"])
    return folder / "on8"


def test_a_search_keeps_what_predicted_and_what_measured(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "acc.csv"
    rows = [f"{a.cell},{70 + i / 100}" for i, a in enumerate(cells(2000))]
    table.write_text("\n".join(["arch,accuracy_pct", *rows]) + "\n")
    result = search(
        space="nasbench201",
        latency=folder / "run",
        accuracy=f"table:{table}",
        strategy="random",
        max_evals=6,
        n_finalists=1,
        measure_on="null",
        batch=8,
        allow_other_device=True,
        out=tmp_path / "front",
    )
    assert result.latency_fingerprint == fingerprint(run_facts(folder / "run"))
    assert result.measured_fingerprint == fingerprint({**NULL, "batch": 8})
    assert result.fingerprint == result.measured_fingerprint
    assert replace(result, confirmed=False).fingerprint == result.latency_fingerprint
    read = load_search(tmp_path / "front")
    assert read.fingerprint == result.fingerprint
    # As an earlier version wrote it.
    path = tmp_path / "front" / "search.json"
    data = json.loads(path.read_text())
    for key in ("latency_fingerprint", "measured_fingerprint", "targets"):
        del data[key]
    path.write_text(json.dumps(data))
    old = load_search(tmp_path / "front")
    assert (old.fingerprint, old.targets) == (None, ())
    assert old.front == result.front


class TestRetime:
    def test_goes_on_and_takes_more_searches(self, folder: Path, timed: Path) -> None:
        before = read_retimed(timed)
        again = retime(
            [folder / "here", folder / "batch8", folder / "elsewhere"],
            out=timed,
            device="null",
            batch=8,
        )
        assert set(before.results) < set(again.results)
        for key, result in before.results.items():
            now = again.results[key]
            assert isinstance(result, Measurement)
            assert isinstance(now, Measurement)
            assert now.level_s == result.level_s

    def test_a_later_call_is_another_session(self, folder: Path, tmp_path: Path) -> None:
        """Networks of one call are held beside each other; those of two are not."""
        retime(folder / "here", out=tmp_path / "on", device="null")
        first = set(read_retimed(tmp_path / "on").results)
        found = retime([folder / "here", folder / "batch8"], out=tmp_path / "on", device="null")
        placed = place(found.fingerprint, [], [found])
        (timed,) = (p.timed for p in placed.places)
        early = [timed[key] for key in timed if key in first]
        late = [timed[key] for key in timed if key not in first]
        assert len(early) == len(late) == 2
        assert early[0].workers == early[1].workers
        assert late[0].workers == late[1].workers
        assert early[0].workers.isdisjoint(late[0].workers)
        for key, one in timed.items():
            result = found.results[key]
            assert isinstance(result, Measurement)
            assert one.level is not None
            assert one.beside is not None
            assert one.beside[1:] == result.beside_ci95_s
            assert one.beside.half_width < one.level.half_width

    def test_networks_of_all_searches_take_turns(self, folder: Path) -> None:
        """Groups are formed in this order: none of them holds those of one search alone."""
        names = ["here", "batch8"]
        found = _workloads([load_search(folder / name) for name in names], names)
        first, second, third, fourth = cells(4)
        assert [w.arch for w in found] == [first, third, second, fourth]

    def test_another_batch_does_not_go_into_the_same_run(self, folder: Path, timed: Path) -> None:
        with pytest.raises(IncompatibleRunError, match=r"batch.* 8, not 1"):
            retime(folder / "here", out=timed, device="null", batch=1)

    def test_a_network_that_fails_has_a_reason_and_no_number(
        self, folder: Path, tmp_path: Path
    ) -> None:
        bad = cells(1)[0]
        fault = {"label": f"network {bad.arch_id}", "stage": "compile", "kind": "refuse"}
        script = json.dumps({"faults": [fault]})
        found = retime(folder / "here", out=tmp_path / "on", device="null", script=script)
        failures = [r for r in found.results.values() if isinstance(r, Failure)]
        assert [f.kind for f in failures] == ["refused"]
        (row,) = (r for r in found.to_json()["networks"] if r["failure"])
        assert (row["level_s"], row["ci95_s"]) == (None, None)
        assert row["arch"] == bad.to_json()

    def test_where_nothing_can_be_timed_it_says_so(self, folder: Path, tmp_path: Path) -> None:
        script = json.dumps(
            {"faults": [{"label": "network *", "stage": "compile", "kind": "refuse"}]}
        )
        with pytest.raises(DeviceError, match="none of the 2 networks could be timed on 'null'"):
            retime(folder / "here", out=tmp_path / "on", device="null", script=script)

    def test_the_folder_of_a_search_is_left_to_it(self, tmp_path: Path) -> None:
        tables = {"acc.csv": "accuracy_pct", "lat.csv": "latency_ms"}
        for name, column in tables.items():
            rows = [f"{a.cell},{i / 30}" for i, a in enumerate(cells(2000), 60)]
            (tmp_path / name).write_text("\n".join([f"arch,{column}", *rows]) + "\n")
        asked: dict[str, Any] = {
            "space": "nasbench201",
            "latency": tmp_path / "lat.csv",
            "accuracy": f"table:{tmp_path / 'acc.csv'}",
            "out": tmp_path / "front",
        }
        search(**asked, max_evals=2)
        front = asked["out"]
        for other in (
            lambda: retime(front, out=front, device="null"),
            lambda: api.profile(space="nasbench201", device="null", networks=1, out=front),
            lambda: api.import_(asked["latency"], space="nasbench201", device_name="x", out=front),
            lambda: api.adapt(runs=[front], device="null", out=front),
        ):
            with pytest.raises(IncompatibleRunError, match="is the folder of a search"):
                other()
        assert len(search(**asked, max_evals=3).trials) > 0

    def test_what_was_begun_beside_a_search_goes_on(self, folder: Path, tmp_path: Path) -> None:
        """An earlier version let other runs begin there."""
        on = tmp_path / "on"
        first = retime(folder / "here", out=on, device="null")
        (on / CHECKPOINT_FILE).touch()
        found = retime([folder / "here", folder / "batch8"], out=on, device="null")
        assert len(found.results) > len(first.results)

    def test_an_empty_front_and_two_spaces_are_refused(self, folder: Path, tmp_path: Path) -> None:
        empty = made_up(tmp_path / "empty", [], NULL)
        with pytest.raises(PlanError, match="there is nothing to time"):
            retime(empty, out=tmp_path / "on", device="null")
        mini = get_space("mobile-mini").sample(np.random.default_rng(0))
        other = made_up(tmp_path / "other", [mini], NULL)
        with pytest.raises(IncompatibleRunError, match="time searches of one space together"):
            retime([folder / "here", other], out=tmp_path / "on", device="null")
        done = hwprof("retime", "nowhere", "--device", "null", "--out", "on", cwd=tmp_path)
        assert done.returncode == 2
        told = " ".join(done.stderr.split())
        assert "'nowhere' holds no finished search (search.json: No such file or directory)" in told
        assert "expected the --out of `hwprof search`" in told


class TestReport:
    def rows(self, page: Path, name: str) -> list[dict[str, str]]:
        with (page.parent / "tables" / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def test_fronts_of_other_batches_and_machines_stay_apart(
        self, folder: Path, timed: Path, tmp_path: Path
    ) -> None:
        pytest.importorskip("plotly")
        runs = ["run", "here", "batch8", "elsewhere", "on8"]
        page = report([folder / r for r in runs], out=tmp_path / "page")
        # The page's own front has its own device's networks only.
        front = {row["arch"] for row in self.rows(page, "front")}
        assert front == {a.canonical_json() for a in cells(2)}
        found = self.rows(page, "matrix")
        labels = {row["searched_for_digest"]: row["searched_for"] for row in found}
        assert len(labels) == 3
        assert all(label.startswith("null (") for label in labels.values())
        at8 = fingerprint({**NULL, "batch": 8})["digest"]
        assert "batch 8" in labels[at8]
        assert (
            "another machine"
            in labels[fingerprint({**NULL, "hardware": "another machine"})["digest"]]
        )
        timed_at8 = [r for r in found if r["timed_on_digest"] == at8]
        with_number = {r["arch"] for r in timed_at8 if r["latency_s"]}
        assert {a.canonical_json() for a in cells(4)} <= with_number
        own = {r["arch"] for r in timed_at8 if r["outcome"] == "own"}
        assert own == {a.canonical_json() for a in cells(4)[2:]}
        text = page.read_text().replace("\u00a0", " ")
        assert "Does a network searched for one device suit another?" in text
        assert "2 searches of other devices, or with other options" in text
        assert (tmp_path / "page" / "figures" / "device_fronts.png").exists()

    def test_an_interrupted_search_is_named_with_the_way_on(self, tmp_path: Path) -> None:
        """Its folder is that of a run of finalists, which is of no space."""
        arch = get_space("mobile-mini").sample(np.random.default_rng(0))
        FinalistMeasurer(tmp_path, "null", DeviceOptions(), plan_for("quick"), None)([arch])
        with pytest.raises(StoreError, match="holds an interrupted search; call the same"):
            report(tmp_path, out=tmp_path / "page")
        with pytest.raises(StoreError, match="is a run of 'finalists'; expected the --out of"):
            latency_model(tmp_path)

    def test_one_device_has_no_such_section(self, folder: Path, tmp_path: Path) -> None:
        pytest.importorskip("plotly")
        page = report([folder / "run", folder / "here"], out=tmp_path / "page")
        assert "suit another" not in page.read_text()

    def test_an_old_search_is_told_by_its_devices_name(self, folder: Path, tmp_path: Path) -> None:
        pytest.importorskip("plotly")
        same = made_up(tmp_path / "same", cells(2), None, device="null")
        other = made_up(tmp_path / "other", cells(4)[2:], None, device="phone")
        page = report([folder / "run", same, other], out=tmp_path / "page")
        text = page.read_text().replace("\u00a0", " ")
        assert "1 search kept no fingerprint" in text
        assert {r["arch"] for r in self.rows(page, "front")} == {
            a.canonical_json() for a in cells(2)
        }
        assert {r["searched_for"] for r in self.rows(page, "matrix")} == {"null", "phone"}

    def test_another_space_is_refused(self, folder: Path, tmp_path: Path) -> None:
        mini = get_space("mobile-mini").sample(np.random.default_rng(0))
        other = made_up(tmp_path / "other", [mini], NULL)
        with pytest.raises(IncompatibleRunError, match="a page of its own"):
            report([folder / "run", other], out=tmp_path / "page")
