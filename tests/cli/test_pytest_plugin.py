"""The fixture under pytest-benchmark: its JSON, its gates, and what compare says of the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hwprof import api
from hwprof.api import pytest_bench

LIBRARY = """
def work(n, scale=1):
    return sum(range(n)) * scale


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def work(self, n):
        return work(n, self.scale)
"""
TESTS = """
import functools
import json

import mylib


def test_imported(hwprof_benchmark):
    assert hwprof_benchmark(mylib.work, 100, scale=2) == 9900


def test_closure(hwprof_benchmark):
    n = 50
    assert hwprof_benchmark(lambda: sum(range(n))) == 1225


def test_cached(hwprof_benchmark):
    assert hwprof_benchmark(functools.lru_cache(mylib.work), 100) == 4950


def test_wrapped(hwprof_benchmark):
    @functools.wraps(mylib.work)
    def wrapped(n):
        return 1 + mylib.work(n)

    assert hwprof_benchmark(wrapped, 100) == 4951


def test_bound(hwprof_benchmark):
    assert hwprof_benchmark(mylib.Scaled(3).work, 100) == 14850


def test_model(hwprof_benchmark):
    script = json.dumps({"latency": {"labels": {"proxyless*": LATENCY}}})
    found = hwprof_benchmark.model("proxyless-gpu", device="null", script=script)
    assert found is None or abs(found.level_s / LATENCY - 1) < 0.02
"""


def pytest_run(folder: Path, latency_s: float, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "mylib.py").write_text(LIBRARY)
    (folder / "test_it.py").write_text(TESTS.replace("LATENCY", str(latency_s)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Return a project after two runs, the second with a slower model and a gate on it."""
    folder = tmp_path_factory.mktemp("project")
    done = pytest_run(folder, 1e-4, "--benchmark-json=base.json", "--benchmark-autosave")
    assert done.returncode == 0, done.stdout + done.stderr
    gate = ("--benchmark-compare=0001", "--benchmark-compare-fail=min:15%", "-k", "model")
    return folder, pytest_run(folder, 1.3e-4, "--benchmark-json=new.json", *gate)


def benchmarks(file: Path) -> dict[str, Any]:
    return {b["name"]: b for b in json.loads(file.read_text())["benchmarks"]}


class TestJson:
    def test_fresh_workers_where_the_function_can_be_imported(self, saved: Any) -> None:
        found = benchmarks(saved[0] / "base.json")
        ours = found["test_imported"]["extra_info"]["hwprof"]
        assert ours["fresh_workers"] is True
        assert len(ours["worker_levels_s"]) == 5
        assert ours["facts"]["device"] == "python"

    def test_a_closure_is_timed_here_and_says_so(self, saved: Any) -> None:
        ours = benchmarks(saved[0] / "base.json")["test_closure"]["extra_info"]["hwprof"]
        assert ours["fresh_workers"] is False
        assert "lambda" in ours["note"]
        assert len(ours["worker_levels_s"]) == 1

    @pytest.mark.parametrize("name", ["test_cached", "test_wrapped", "test_bound"])
    def test_what_has_another_functions_name_is_timed_here(self, saved: Any, name: str) -> None:
        ours = benchmarks(saved[0] / "base.json")[name]["extra_info"]["hwprof"]
        assert ours["fresh_workers"] is False
        assert "is another object there" in ours["note"]

    def test_the_data_are_the_bursts_in_seconds(self, saved: Any) -> None:
        found = benchmarks(saved[0] / "base.json")["test_model"]
        data = found["stats"]["data"]
        assert len(data) == found["stats"]["rounds"]
        assert len(data) >= 8 * 5
        assert all(abs(d / 1e-4 - 1) < 0.02 for d in data)
        assert found["extra_info"]["hwprof"]["level_s"] == pytest.approx(1e-4, rel=0.02)

    def test_their_gate_works_untouched(self, saved: Any) -> None:
        done = saved[1]
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Performance has regressed" in done.stdout + done.stderr
        assert "test_model" in done.stdout + done.stderr


def test_compare_reads_what_the_fixture_wrote(saved: Any) -> None:
    folder = saved[0]
    rows = {r.workload: r for r in api.compare(folder / "base.json", folder / "new.json").rows}
    slow = rows["test_it.py::test_model"]
    # Five fresh workers a side, one session: above 10 % it may be called.
    assert slow.verdict == "REGRESSED"
    assert slow.shift == pytest.approx(0.3, abs=0.02)
    assert rows["test_it.py::test_closure"].verdict == "NOT_COMPARABLE"


def test_a_class_method_is_what_its_name_leads_to() -> None:
    assert pytest_bench._why_not_importable(Path.cwd, (), {}) is None
    # The same name, and Path's own behind it: a worker would call that one.
    reason = pytest_bench._why_not_importable(type(Path()).cwd, (), {})
    assert reason is not None
    assert "is another object there" in reason


def test_disabled_benchmarks_only_run_the_function(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, 1e-4, "--benchmark-disable")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_pytest_benchmark_it_says_what_to_install(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, 1e-4, "-p", "no:benchmark")
    assert done.returncode == 1
    assert "pip install 'hwprof[bench]'" in done.stdout


def test_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, hwprof.pytest_plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "onnx", "pandas", "scipy", "torch"} & set(done.stdout.split())
