"""``hwprof compare``: exit codes and verdicts on the scripted device, bad input one by one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from hwprof import api
from hwprof.errors import PlanError
from hwprof.regression.environments import interpreter_of
from hwprof.space import NAMED_ARCHITECTURES
from tests.cli.running import hwprof, hwprof_here

BASE, NEW = "proxyless-gpu", "proxyless-mobile"
KEYS = {"workload", "verdict", "shift", "shift_ci99", "detectable"}


def compared(
    base: str = BASE,
    new: str = NEW,
    threshold: float = 0.01,
    base_python: str | None = None,
    **script: Any,
) -> tuple[int, Any]:
    """Return exit code and rows; what the command does, without starting an interpreter for it."""
    result = api.compare(
        base,
        new,
        device="null",
        threshold=threshold,
        base_python=base_python,
        max_time_s=600.0,
        script=json.dumps(script),
    )
    return result.exit_code(), result.to_json()


def slower(factor: float) -> dict[str, Any]:
    return {"labels": {NEW: 1e-4 * factor}, "base_s": 1e-4}


class TestModels:
    @pytest.mark.parametrize(
        ("factor", "verdict", "code"),
        [(1.05, "REGRESSED", 1), (1.0, "EQUIVALENT", 0), (0.95, "IMPROVED", 0)],
    )
    def test_verdicts(self, factor: float, verdict: str, code: int) -> None:
        rc, (row,) = compared(latency=slower(factor))
        assert (rc, row["verdict"]) == (code, verdict)
        assert set(row) >= KEYS
        low, high = row["shift_ci99"]
        assert low <= row["shift"] <= high
        assert row["shift"] == pytest.approx(factor - 1, abs=0.005)
        assert row["detectable"] >= 0.01

    def test_noise_is_inconclusive(self) -> None:
        # What each got for the life of each process differs by tens of per cent.
        rc, (row,) = compared(latency=slower(1.0), noise={"worker": 0.3})
        assert (rc, row["verdict"]) == (4, "INCONCLUSIVE")
        assert row["detectable"] > 0.02
        assert row["n_pairs"] == 64 * 5
        assert "all looks were spent" in row["reason"]
        # Time would not help: there is no look left.
        assert "--max-time" not in row["reason"]

    def test_a_threshold_above_the_shift_passes(self) -> None:
        rc, (row,) = compared(threshold=0.1, latency=slower(1.05))
        assert (rc, row["verdict"]) == (0, "EQUIVALENT")

    def test_a_model_against_itself(self) -> None:
        rc, (row,) = compared(base=BASE, new=BASE)
        assert (rc, row["verdict"], row["workload"]) == (0, "EQUIVALENT", BASE)

    def test_networks_as_json_are_longer_than_a_path_may_be(self) -> None:
        base, new = (json.dumps(NAMED_ARCHITECTURES[name].to_json()) for name in (BASE, NEW))
        assert len(base) > 255
        rc, (row,) = compared(base=base, new=new)
        assert (rc, row["verdict"]) == (0, "EQUIVALENT")

    def test_the_tail_is_judged_beside_the_floor(self) -> None:
        rc, (row,) = compared(latency=slower(1.0), noise={"spike_share": 0.01, "spike_s": 1e-5})
        assert rc == 0
        assert row["tail"]["verdict"] == "EQUIVALENT"

    def test_calls_that_waited_leave_the_tail_unjudged(self) -> None:
        _, (row,) = compared(latency=slower(1.0), wait={"share": 0.2, "s": 1e-5})
        assert row["tail"] is None
        assert "waited for a core" in row["tail_note"]

    def test_a_side_that_fails_is_not_comparable(self) -> None:
        faults = [{"label": NEW, "stage": "compile", "kind": "refuse"}]
        rc, (row,) = compared(faults=faults)
        assert (rc, row["verdict"], row["shift"]) == (5, "NOT_COMPARABLE", None)
        assert row["reason"].startswith("new: compile failed (refused)")

    def test_a_worker_that_dies_once_is_replaced(self, tmp_path: Path) -> None:
        marker = str(tmp_path / "once")
        faults = [{"label": NEW, "stage": "burst", "kind": "die", "once": marker}]
        rc, (row,) = compared(latency=slower(1.05), faults=faults)
        assert (rc, row["verdict"]) == (1, "REGRESSED")


class TestBaseInterpreter:
    def test_workers_of_the_base_run_on_it(self) -> None:
        rc, (row,) = compared(base_python=sys.executable, latency=slower(1.05))
        assert (rc, row["verdict"]) == (1, "REGRESSED")

    def test_the_same_model_on_two_interpreters(self) -> None:
        rc, (row,) = compared(base_python=sys.executable, base=BASE, new=BASE)
        assert (rc, row["verdict"]) == (0, "EQUIVALENT")

    def test_no_interpreter_is_the_users_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="which is no program"):
            compared(base_python=str(tmp_path / "python"))

    def test_a_device_elsewhere_has_no_interpreter_here(self) -> None:
        board = "cpu@ssh://pi@192.0.2.1"
        with pytest.raises(PlanError, match=r"compare with --device cpu$"):
            api.compare(BASE, NEW, device=board, base_python=sys.executable)

    def test_one_that_lacks_the_runtime_names_it(self, tmp_path: Path) -> None:
        bare = tmp_path / "venv"
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=120
        )
        python = str(bare / "bin" / "python")
        with pytest.raises(PlanError, match="lacks numpy, onnxruntime, onnx"):
            api.compare(BASE, NEW, base_python=python)
        # The package of another's adapter, say: pip knows it by the name of its distribution.
        lacks = pytest.raises(PlanError, match=r"lacks numpy, yaml: run .* install numpy PyYAML$")
        with lacks, interpreter_of(python, ["yaml"]):
            pass


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of run folders: the same space, and one timed with another seed of noise."""
    folder = tmp_path_factory.mktemp("runs")
    for name, preset, latency_s in (
        ("base", "quick", 1e-4),
        ("slow", "quick", 1.5e-4),
        ("other", "standard", 1e-4),
    ):
        told = json.dumps({"latency": {"labels": {"network*": latency_s}}})
        done = hwprof(
            *("profile", "--space", "mobile-mini", "--device", "null", "--script", told),
            *("--networks", "1", "--no-isolated", "--preset", preset),
            *("--out", str(folder / name)),
        )
        assert done.returncode == 0, done.stderr
    return folder


class TestRuns:
    def test_one_session_of_three_workers_cannot_decide(self, runs: Path) -> None:
        done = hwprof("compare", "base", "slow", "--json", cwd=runs)
        assert done.returncode == 4, done.stderr
        (row,) = json.loads(done.stdout)
        assert row["method"] == "stored"
        assert "fewer workers than needed" in row["reason"]

    def test_another_protocol_is_named(self, runs: Path) -> None:
        done = hwprof("compare", "base", "other", "--json", cwd=runs)
        assert done.returncode == 5, done.stderr
        (row,) = json.loads(done.stdout)
        assert row["differences"]["plan.preset"] == ["quick", "standard"]
        assert row["differences"]["plan.workers"] == [3, 5]
        assert "plan.workers 3, now 5" in row["reason"]

    def test_options_of_measuring_are_said_to_change_nothing(self, runs: Path) -> None:
        asked = ("--device", "tflite", "--threads", "4", "--input", "x=1x3")
        done = hwprof("compare", "base", "slow", "--json", *asked, cwd=runs)
        assert done.returncode == 4, done.stderr
        assert "--device tflite, --threads 4, --input: not used, since stored" in done.stderr
        assert json.loads(done.stdout)

    @pytest.mark.parametrize("model", [BASE, "package.module:net", "-"])
    def test_a_run_against_a_model_is_a_mistake(self, runs: Path, model: str) -> None:
        with pytest.raises(
            PlanError, match=r"' is stored measurements and .* is a model; expected"
        ):
            api.compare(runs / "base", model)

    def test_a_run_against_a_path_that_is_mistyped(self, runs: Path) -> None:
        done = hwprof("compare", "base", "bsae", cwd=runs)
        assert done.returncode == 2
        told = "'base' is stored measurements and 'bsae' is no file or folder; expected"
        assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("missing.onnx", BASE), "missing.onnx"),
        ((BASE, "no-such-net"), "or a model as .onnx, .tflite or package.module:callable"),
        ((".", BASE), "'.' holds neither a run nor a baseline; expected the --out of"),
        ((BASE, NEW, "--threshold", "1"), "expected a percentage"),
        ((BASE, NEW, "--allow", "regressed"), "expected inconclusive"),
        ((BASE, NEW, "--device", "nul"), "did you mean 'null'"),
    ],
)
def test_a_users_mistake_is_one_line(argv: tuple[str, ...], message: str) -> None:
    done = hwprof_here("compare", *argv)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_files_for_build_servers(tmp_path: Path) -> None:
    names = ("--markdown", "s.md", "--junit", "j.xml", "--badge", "b.svg")
    told = json.dumps({"latency": slower(1.05)})
    done = hwprof("compare", BASE, NEW, "--device", "null", "--script", told, *names, cwd=tmp_path)
    assert done.returncode == 1
    assert "| REGRESSED |" in (tmp_path / "s.md").read_text()
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert suite.attrib["failures"] == "1"
    assert suite.find("testcase/failure") is not None
    assert "1 regressed" in (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize("option", ["--markdown", "--junit", "--badge"])
def test_a_file_that_cannot_be_written_costs_no_result(option: str, tmp_path: Path) -> None:
    argv = ("compare", BASE, NEW, "--device", "null", "--json", option, "missing/file")
    done = hwprof(*argv, "--script", json.dumps({"latency": slower(1.05)}), cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot write 'missing/file'" in done.stderr
    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "REGRESSED"
