"""Suites: files read and refused, baselines that grow, are found by commit, and are compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from hwprof import api
from hwprof.api.suites import suite_workloads
from hwprof.errors import (
    DeviceUnavailableError,
    IncompatibleRunError,
    ModelError,
    PlanError,
    SpaceError,
    StoreError,
)
from hwprof.progress import Progress
from hwprof.regression.baseline import (
    find_baseline,
    next_session,
    read_baseline,
    runs_of,
    sessions_of,
)
from hwprof.regression.stored import Stored
from hwprof.regression.suite import Config, read_suite
from hwprof.space import NAMED_ARCHITECTURES
from hwprof.store import Run

SUITE = """
format: 1
name: tiny
devices: [null]
preset: standard
workloads:
  - networks: [proxyless-gpu]
"""


def suite(folder: Path, text: str = SUITE) -> Path:
    file = folder / "suite.yaml"
    # YAML's own null would be no name.
    file.write_text(text.replace("[null]", '["null"]'))
    return file


def script(latency_s: float) -> str:
    return json.dumps({"latency": {"labels": {"proxyless*": latency_s}}})


def measured(file: Path, out: Path, latency_s: float, sessions: int = 1, seed: int = 0) -> Path:
    api.suite_run(file, out=out, sessions=sessions, script=script(latency_s), seed=seed)
    return out


class TestFiles:
    def test_the_stock_suite_has_every_block_and_the_published_networks(self) -> None:
        stock = read_suite("stock")
        labels = [w.label for w in suite_workloads(stock, 0)]
        assert sum(name.startswith("mobile-mini") for name in labels) > 20
        assert {"proxyless-gpu", "proxyless-cpu", "proxyless-mobile"} <= set(labels)
        assert max(Counter(labels).values()) == 1

    def test_axes_are_crossed(self, tmp_path: Path) -> None:
        text = "devices: [cpu, null]\nthreads: [1, 2]\nprecision: [fp32, int8]\n"
        read = read_suite(
            suite(tmp_path, f"format: 1\n{text.replace('null', 'tflite')}workloads: [blocks: x]\n")
        )
        assert [str(c) for c in read.configs[:3]] == ["cpu-t1-fp32", "cpu-t1-int8", "cpu-t2-fp32"]
        assert len(read.configs) == 8

    def test_a_boards_configuration_names_one_folder(self) -> None:
        config = Config(device="cpu@ssh://pi@192.0.2.1:22", threads=2, precision="fp32")
        assert str(config) == "cpu@ssh_pi@192.0.2.1_22-t2-fp32"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("format: 2\nworkloads: [blocks: x]", "expected a mapping with format: 1"),
            ("format: 1\ndevice: [cpu]\nworkloads: [blocks: x]", "field 'device'; expected format"),
            # No axis: a user's model has it in its inputs, and no label may say otherwise.
            ("format: 1\nbatch: [8]\nworkloads: [blocks: x]", "unknown field 'batch'"),
            ("format: 1\nworkloads: []", "lists no workloads"),
            ("format: 1\nthreads: [0]\nworkloads: [blocks: x]", r"threads is \[0\]"),
            ("format: 1\nprecision: fp32\nworkloads: [blocks: x]", "precision is 'fp32'"),
            ("format: 1\npreset: long\nworkloads: [blocks: x]", "preset 'long'"),
            ("format: 1\npreset: [quick]\nworkloads: [blocks: x]", r"preset \['quick'\]"),
            ("format: 1\nworkloads: [block: x]", "expected blocks: SPACE"),
            ("format: 1\nworkloads: [{blocks: x, inputs: []}]", "expected blocks: SPACE"),
            ("a: [", "is no YAML"),
            ("name: 2026-13-01", "is no YAML"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(PlanError, match=message):
            read_suite(suite(tmp_path, text))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="cannot read the suite"):
            read_suite(tmp_path / "none.yaml")

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        file = tmp_path / "suite.yaml"
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(PlanError, match="is no YAML"):
            read_suite(file)

    def test_a_networks_file_lies_beside_the_suite(self, tmp_path: Path) -> None:
        arch = NAMED_ARCHITECTURES["proxyless-gpu"]
        (tmp_path / "mine.json").write_text(json.dumps(arch.to_json()))
        file = suite(tmp_path, SUITE.replace("proxyless-gpu", "mine.json"))
        (workload,) = suite_workloads(read_suite(file), 0)
        assert workload.label == f"network {arch.arch_id}"

    def test_equal_models_are_timed_each_under_its_own_name(self, tmp_path: Path) -> None:
        """The day that they become equal, or cease to be, is no day without a comparison."""
        lines = "".join(f"\n  - model: {name}.onnx" for name in "abc")
        file = suite(tmp_path, SUITE.replace("\n  - networks: [proxyless-gpu]", lines))
        for out in ("base", "new"):
            for name in "abc":
                same = out == "new" and name in "ab"
                (tmp_path / f"{name}.onnx").write_text("same" if same else name)
            measured(file, tmp_path / out, 1e-4, sessions=3)
        rows = api.suite_compare(tmp_path / "base", tmp_path / "new").rows
        assert [r.workload.partition(" ")[0] for r in rows] == ["a.onnx", "b.onnx", "c.onnx"]
        assert {r.verdict for r in rows} == {"EQUIVALENT"}

    def test_a_file_of_a_space_lies_beside_the_suite_too(self, tmp_path: Path) -> None:
        file = suite(tmp_path, "format: 1\nworkloads: [blocks: mine.yaml]")
        with pytest.raises(SpaceError, match=re.escape(str(tmp_path / "mine.yaml"))):
            suite_workloads(read_suite(file), 0)

    def test_shapes_of_inputs_go_with_a_model(self, tmp_path: Path) -> None:
        line = 'model: proxyless-cpu\n    inputs: ["image=1x3x8x8"]'
        file = suite(tmp_path, SUITE.replace("networks: [proxyless-gpu]", line))
        with pytest.raises(PlanError, match=r"'proxyless-cpu' is a network of a space"):
            suite_workloads(read_suite(file), 0)

    def test_a_model_that_is_gone_is_said_before_anything_is_measured(self, tmp_path: Path) -> None:
        file = suite(tmp_path, SUITE + "  - model: gone.onnx\n")
        with pytest.raises(ModelError, match=r"gone\.onnx"):
            measured(file, tmp_path / "out", 1e-4)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"suite": 3}', '{"suite": []}'])
    def test_a_baseline_of_nonsense(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "suite.json").write_text(content)
        with pytest.raises(StoreError, match=r"suite\.json' is damaged"):
            measured(suite(tmp_path), tmp_path, 1e-4)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_leaves_no_half_a_baseline(self, tmp_path: Path) -> None:
        full = tmp_path / f".suite.json.{os.getpid()}.partial"
        full.symlink_to("/dev/full")
        with pytest.raises(StoreError, match="No space left on device; free some space"):
            measured(suite(tmp_path), tmp_path, 1e-4)
        assert not list(tmp_path.glob("*suite.json*"))


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return baselines: three sessions of one commit, then what is judged against them."""
    folder = tmp_path_factory.mktemp("baselines")
    file = suite(folder)
    measured(file, folder / "abc123", 1e-4, sessions=2)
    measured(file, folder / "abc123", 1e-4, seed=2)
    measured(file, folder / "abd999", 1e-4, seed=7)
    measured(file, folder / "slow", 1.1e-4, seed=7)
    return folder


class TestBaselines:
    def test_a_session_that_was_never_begun_is_none(self, tmp_path: Path) -> None:
        out = measured(suite(tmp_path), tmp_path / "out", 1e-4)
        begun = out / "sessions" / "0002" / "null-t1-fp32"
        begun.mkdir(parents=True)
        (begun / "run.lock").touch()
        (stored,) = read_baseline(out)
        assert isinstance(stored, Stored)
        assert len(stored.sessions) == 1
        (series,) = api.suite_history(out)
        assert len(series.points) == 1
        assert next_session(out).name == "0003"

    def test_sessions_add_up_and_a_slowdown_is_found(self, baselines: Path) -> None:
        result = api.suite_compare(baselines, baselines / "slow", commit="abc")
        (row,) = result.rows
        assert row.verdict == "REGRESSED"
        assert row.workload == "proxyless-gpu [null-t1-fp32]"
        assert "1 against 3 stored sessions" in row.reason
        assert row.shift == pytest.approx(0.1, abs=0.01)
        assert result.exit_code() == 1

    def test_every_session_draws_its_own_order(self, tmp_path: Path) -> None:
        file = suite(tmp_path, SUITE.replace("standard", "quick"))
        for _ in range(2):
            measured(file, tmp_path / "out", 1e-4)
        seeds = []
        for session in sessions_of(tmp_path / "out"):
            with Run.open(session / "null-t1-fp32") as run:
                seeds += [m.plan.seed for m in run.measurements()]
        assert seeds == [0, 1]

    def test_a_models_file_may_change_but_not_what_it_is_given(self, tmp_path: Path) -> None:
        model = 'model: net.onnx\n    inputs: ["x=1x{}"]'
        text = SUITE.replace("networks: [proxyless-gpu]", model).replace("standard", "quick")
        for name, size in (("base", 8), ("mended", 8), ("smaller", 4)):
            (tmp_path / "net.onnx").write_text(name)
            measured(suite(tmp_path, text.format(size)), tmp_path / name, 1e-4)
        (mended,) = api.suite_compare(tmp_path / "base", tmp_path / "mended").rows
        assert mended.shift == pytest.approx(0.0, abs=0.01)
        (smaller,) = api.suite_compare(tmp_path / "base", tmp_path / "smaller").rows
        assert smaller.verdict == "NOT_COMPARABLE"
        assert "inputs [['1x8', 'float32']], now [['1x4', 'float32']]" in smaller.reason

    def test_the_same_again_passes(self, baselines: Path) -> None:
        result = api.suite_compare(baselines / "abc123", baselines / "abd999")
        assert [r.verdict for r in result.rows] == ["EQUIVALENT"]
        assert api.compare(baselines / "abc123", baselines / "abd999") == result

    def test_what_is_stored_is_not_held_against_itself(self, baselines: Path) -> None:
        with pytest.raises(StoreError, match="compared with itself"):
            api.suite_compare(baselines, baselines / "abc123", commit="abc")
        with pytest.raises(StoreError, match="compared with itself"):
            api.compare(baselines / "abc123", str(baselines / "abd999" / ".." / "abc123"))
        (run,) = runs_of(next(sessions_of(baselines / "abc123")))
        with pytest.raises(StoreError, match="compared with itself"):
            api.compare(run, run)

    def test_an_interrupted_call_keeps_what_was_finished_and_mixes_nothing_in(
        self, tmp_path: Path
    ) -> None:
        text = SUITE.replace("preset: standard", "preset: quick\nprecision: [fp32, fp16]")
        file, out = suite(tmp_path, text), tmp_path / "out"
        second = out / "sessions" / "0001" / "null-t1-fp16"

        def interrupt(event: Progress) -> None:
            if second.exists():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            api.suite_run(file, out=out, sessions=3, script=script(1e-4), progress=interrupt)
        measured(file, out, 1e-4)
        assert [p.name for p in sessions_of(out)] == ["0001", "0002"]
        found = {s.match.split()[0]: s for s in read_baseline(out) if isinstance(s, Stored)}
        n_sessions = {name: len(stored.sessions) for name, stored in found.items()}
        assert n_sessions == {"null-t1-fp32": 2, "null-t1-fp16": 1}
        assert {len(s.units_s) for stored in found.values() for s in stored.sessions} == {3}

    @pytest.mark.skipif(find_spec("tensorrt") is not None, reason="the device may be there")
    def test_a_device_that_is_not_there_is_told_before_the_others_are_measured(
        self, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        with pytest.raises(DeviceUnavailableError, match="tensorrt"):
            measured(suite(tmp_path, SUITE.replace("[null]", '["null", tensorrt]')), out, 1e-4)
        assert not out.exists()

    @pytest.mark.parametrize(("commit", "n"), [("ab", 2), ("f00", 0)])
    def test_a_commit_must_mean_one(self, baselines: Path, commit: str, n: int) -> None:
        with pytest.raises(StoreError, match=f"holds {n} baselines"):
            find_baseline(baselines, commit)

    def test_an_empty_commit_is_no_commit_where_there_is_but_one_baseline(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "abc123").mkdir()
        (tmp_path / "abc123" / "suite.json").write_text("{}")
        for commit in ("", " "):
            with pytest.raises(StoreError, match="is the variable set"):
                find_baseline(tmp_path, commit)

    def test_a_session_that_was_renamed_is_set_aside(self, tmp_path: Path) -> None:
        for name in ("0001", "0002-throttled", "notes"):
            (tmp_path / "sessions" / name).mkdir(parents=True)
        assert [p.name for p in sessions_of(tmp_path)] == ["0001"]
        assert next_session(tmp_path).name == "0002"

    def test_a_commit_is_told_by_a_longer_name_too(self, tmp_path: Path) -> None:
        full = "0123456789abcdef0123456789abcdef01234567"
        for name in (full[:9], "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "suite.json").write_text("{}")
        assert find_baseline(tmp_path, full).name == full[:9]
        with pytest.raises(StoreError, match="holds 0 baselines"):
            find_baseline(tmp_path, "*")

    def test_a_tag_or_branch_is_not_taken_for_another_of_like_name(self, tmp_path: Path) -> None:
        for name in ("v1.0.1", "release"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "suite.json").write_text("{}")
        assert find_baseline(tmp_path, "v1.0.1").name == "v1.0.1"
        for name in ("v1.0", "release-2"):
            with pytest.raises(StoreError, match="holds 0 baselines"):
                find_baseline(tmp_path, name)

    def test_a_name_of_git_is_looked_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "init", "-q", str(tmp_path)], check=True)
        monkeypatch.chdir(tmp_path)
        for number in range(2):
            commit = [*git, "commit", "-q", "--allow-empty", "-m", str(number)]
            subprocess.run(commit, check=True)
        first = subprocess.run(
            ["git", "rev-parse", "HEAD~1"], capture_output=True, text=True, check=True
        ).stdout.strip()
        (tmp_path / "kept" / first).mkdir(parents=True)
        (tmp_path / "kept" / first / "suite.json").write_text("{}")
        assert find_baseline(tmp_path / "kept", "HEAD~1").name == first
        with pytest.raises(StoreError, match="holds 0 baselines of commit 'HEAD'"):
            find_baseline(tmp_path / "kept", "HEAD")

    def test_no_baseline_says_what_was_expected(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is no baseline"):
            api.suite_compare(tmp_path, tmp_path)

    def test_another_suite_does_not_mix_in(self, baselines: Path, tmp_path: Path) -> None:
        other = suite(tmp_path, SUITE.replace("proxyless-gpu", "proxyless-cpu"))
        with pytest.raises(IncompatibleRunError, match="another suite"):
            measured(other, baselines / "slow", 1e-4)

    def test_an_entry_that_is_gone_never_passes(self, baselines: Path, tmp_path: Path) -> None:
        other = suite(tmp_path, SUITE.replace("proxyless-gpu", "proxyless-cpu"))
        measured(other, tmp_path / "new", 1e-4)
        result = api.suite_compare(baselines / "abc123", tmp_path / "new")
        said = "only the {} has it: measure the same on both sides"
        assert [r.reason for r in result.rows] == [said.format(side) for side in ("base", "new")]
        assert result.exit_code({"inconclusive"}) == 5
