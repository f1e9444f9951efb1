"""`hwprof search --strategy proxyless`: the whole way, and mistakes that get one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwprof.space import get_space
from tests.cli.running import hwprof, hwprof_here
from tests.made import block_table

MINI = get_space("mobile-mini")
QUICK = [
    *("search", "--space", "mobile-mini", "--latency", "table.csv", "--strategy", "proxyless"),
    *("--warmup-epochs", "1", "--epochs", "2", "--train-batch", "12", "--limit-images", "60"),
    *("--out", "out"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    block_table(tmp_path / "table.csv")
    return tmp_path


def test_sweeps_into_a_front_and_goes_on_where_it_stopped(folder: Path):
    command = [*QUICK, "--latency-weights", "0,2", "--json"]
    done = hwprof(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["strategy"] == "proxyless"
    assert not found["confirmed"]
    assert [p["weight"] for p in found["settings"]["penalties"]] == [0.0, 2.0]
    for trial in found["front"]:
        assert trial["latency_source"] == "predicted"
        assert trial["test_accuracy_pct"] is not None
    again = hwprof(*command, cwd=folder)
    assert json.loads(again.stdout)["front"] == found["front"]


MISTAKES = {
    "weights that are no numbers": (["--latency-weights", "a,b"], "expected numbers"),
    "an unknown mode": (["--mode", "three-path"], "recompute, two-path, reinforce"),
    "an unknown penalty": (["--penalty", "cubic"], "linear, power, hinge"),
    "two kinds of target": (["--target-ms", "2", "--targets-ms", "2,3"], "give one of them"),
    "data that is not there": (["--data", "nowhere"], "nowhere"),
    "a device that is not one": (["--train-device", "abacus"], "cpu or cuda"),
    "a checkpoint that is not there": (["--supernet", "no.pt"], "no.pt"),
    "accuracies": (["--accuracy", "table:a.csv"], "--supernet"),
    "a target out of reach": (["--target-ms", "50"], "out of reach: by the latency model"),
    "a target with weights": (
        ["--target-ms", "2", "--penalty", "target", "--latency-weights", "0.1"],
        "leave --latency-weights out",
    ),
    "a target of nothing": (["--target-ms", "0"], "--target-ms is 0"),
    "a time limit": (["--max-time", "5m"], "set --warmup-epochs and --epochs"),
    "a budget of networks": (["--max-evals", "5"], "--max-evals 5 means nothing to proxyless"),
    "epochs that search nothing": (["--epochs", "1"], "at least 2 with --epochs"),
    "another strategy": (["--strategy", "nsga2"], "mean nothing to nsga2"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_code_2(name: str, folder: Path):
    more, expected = MISTAKES[name]
    done = hwprof_here(*QUICK, *more, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert expected in " ".join(done.stderr.split())


def test_a_folder_that_cannot_be_made_is_named(folder: Path):
    (folder / "out").mkdir()
    (folder / "out" / "training").write_text("")
    done = hwprof_here(*QUICK, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot use the folder 'out' for a search: File exists" in done.stderr
