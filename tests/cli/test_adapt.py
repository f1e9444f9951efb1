"""``hwprof adapt`` on the scripted device, and models that are kept to the device they are of."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.errors import IncompatibleRunError, PlanError, StoreError
from hwprof.space import get_space
from tests.cli.running import hwprof
from tests.cli.test_devices_compared import COST_MS, make_run

SCRIPT = json.dumps({"latency": {"base_s": 2e-3, "per_operator_s": 2e-5}})
CELL = {
    "space": "nasbench201",
    "resolution_px": 32,
    "cell": "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapt")
    make_run(path, "phone", COST_MS)
    make_run(path, "flat", dict.fromkeys(COST_MS, 1.0))
    (path / "cell.json").write_text(json.dumps(CELL))
    done = hwprof(
        *("adapt", "--device", "null", "--from", "phone", "--from", "flat", "--networks", "8"),
        *("--out", "new", "--script", SCRIPT, "--json"),
        cwd=path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n_done"] == 8
    assert found["from"] == ["phone", "flat"]
    assert set(found["holdout"]) >= {"spearman", "coverage95"}
    return path


def test_an_adapted_run_predicts_as_a_profile_does(folder: Path) -> None:
    done = hwprof("predict", "new", "cell.json", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["lo_s"] < row["latency_s"] < row["hi_s"]
    # The script prices operators alone: ten networks of a flat device tell it within a few %.
    space = get_space("nasbench201")
    fresh = [space.sample(np.random.default_rng(100 + i)) for i in range(20)]
    from hwprof.graph import network_graph

    actual = np.array([2e-3 + 2e-5 * len(network_graph(space, a).nodes) for a in fresh])
    predicted = np.array([r.latency_s for r in api.predict(folder / "new", fresh)])
    assert np.median(np.abs(predicted / actual - 1.0)) < 0.05


def test_an_interrupted_transfer_says_how_to_go_on(folder: Path) -> None:
    """The model comes last: a run that was stopped before holds networks alone."""
    shutil.copytree(folder / "new", folder / "stopped")
    (folder / "stopped" / "latency_model.npz").unlink()
    with pytest.raises(StoreError, match=r"interrupted transfer.*`hwprof adapt` again"):
        api.predict(folder / "stopped", str(folder / "cell.json"))


def test_effects_of_ten_networks_are_refused(folder: Path) -> None:
    done = hwprof("effects", "new", cwd=folder)
    assert done.returncode == 2
    assert "8 networks cannot price" in done.stderr


def test_predicting_for_other_options_names_what_differs(folder: Path) -> None:
    done = hwprof("predict", "new", "cell.json", "--device", "null", "--threads", "4", cwd=folder)
    assert done.returncode == 2
    assert re.search(r"threads 1, not 4", done.stderr)
    assert "hwprof adapt" in done.stderr
    assert "Traceback" not in done.stderr
    allowed = hwprof(
        *("predict", "new", "cell.json", "--device", "null", "--threads", "4"),
        "--allow-other-device",
        cwd=folder,
    )
    assert allowed.returncode == 0, allowed.stderr


def test_options_of_no_device_are_refused(folder: Path, tmp_path: Path) -> None:
    """Latencies of the run would pass for latencies at batch 8."""
    with pytest.raises(PlanError, match=r"--threads 4, --batch 8: options.*with --device"):
        api.predict(folder / "new", folder / "cell.json", threads=4, batch=8)
    with pytest.raises(PlanError, match=r"--precision fp16: options.*with --measure-on"):
        api.search(
            space="nasbench201",
            latency=folder / "new",
            accuracy="table:a.csv",
            out=tmp_path / "found",
            precision="fp16",
        )
    assert not (tmp_path / "found").exists()


def test_search_by_latencies_of_another_space_is_refused_before_it_begins(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleRunError, match=r"are of 'nasbench201'.*in 'mobile-mini'"):
        api.search(
            space="mobile-mini",
            latency=folder / "new",
            accuracy="table:a.csv",
            out=tmp_path / "found",
        )


def test_search_that_measures_elsewhere_is_refused_before_it_begins(
    folder: Path, tmp_path: Path
) -> None:
    table = folder / "accuracy.csv"
    table.write_text(f"arch,accuracy_pct\n{CELL['cell']},90.0\n")
    with pytest.raises(IncompatibleRunError, match=r"batch 1, not 2.*--allow-other-device"):
        api.search(
            space="nasbench201",
            latency=folder / "new",
            accuracy=f"table:{table}",
            out=tmp_path / "found",
            measure_on="null",
            batch=2,
            script=SCRIPT,
        )


def test_adapt_wants_runs_of_one_space_and_five_networks(folder: Path) -> None:
    few = hwprof("adapt", "--from", "phone", "--networks", "3", "--out", "x", cwd=folder)
    assert few.returncode == 2
    missing = hwprof("adapt", "--from", "nowhere", "--out", "x", cwd=folder)
    assert missing.returncode == 2
    assert "nowhere" in missing.stderr
