"""Foreign files of pytest-benchmark: what they can support, and that they never pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwprof import api
from hwprof.errors import DataError, PlanError
from hwprof.regression.pytest_file import is_pytest_file, read_pytest_file

MACHINE: dict[str, Any] = {
    "node": "ci-7",
    "machine": "x86_64",
    "python_version": "3.11.2",
    "cpu": {"brand_raw": "A CPU", "count": 2},
}


def file(
    folder: Path,
    name: str,
    level_s: float,
    *,
    raw: bool = True,
    samples: int = 30,
    machine: dict[str, Any] | None = None,
) -> Path:
    data = [level_s * (1 + 0.001 * i) for i in range(samples)]
    stats = {"min": level_s, "mean": level_s, **({"data": data} if raw else {})}
    benchmark = {"name": "t", "fullname": "test_a.py::t", "stats": stats, "extra_info": {}}
    content = {"machine_info": machine or MACHINE, "benchmarks": [benchmark], "version": "5.3.1"}
    path = folder / name
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("factor", "verdict", "code"),
    [
        (1.0, "INCONCLUSIVE", 4),
        (1.08, "INCONCLUSIVE", 4),
        (1.2, "REGRESSED", 1),
        (0.8, "IMPROVED", 0),
    ],
)
def test_one_process_calls_nothing_below_ten_percent(
    tmp_path: Path, factor: float, verdict: str, code: int
) -> None:
    base, new = file(tmp_path, "a.json", 1e-3), file(tmp_path, "b.json", 1e-3 * factor)
    result = api.compare(base, new)
    (row,) = result.rows
    assert (row.verdict, result.exit_code()) == (verdict, code)
    assert row.method == "pytest-benchmark"
    assert "samples of one process" in row.reason
    # p10 of 30 values that rise by 0.1 %: the 2.9th, so 1.0029 of the level.
    assert row.base_s == pytest.approx(1.0029e-3)


def test_as_many_samples_as_such_a_file_often_holds(tmp_path: Path) -> None:
    # 1200 samples can be ordered in more ways than a float can count.
    base = file(tmp_path, "a.json", 1e-3, samples=600)
    (row,) = api.compare(base, file(tmp_path, "b.json", 1.2e-3, samples=600)).rows
    assert row.verdict == "REGRESSED"
    assert row.detectable == pytest.approx(0.1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_without_raw_data_nothing_is_called(tmp_path: Path, factor: float) -> None:
    base = file(tmp_path, "a.json", 1e-3, raw=False)
    result = api.compare(base, file(tmp_path, "b.json", 1e-3 * factor, raw=False))
    assert result.rows[0].verdict == "INCONCLUSIVE"
    assert result.rows[0].shift == pytest.approx(factor - 1)
    assert "no raw data" in result.rows[0].reason
    assert result.rows[0].to_row()["detectable"] is None
    assert result.exit_code() == 4


@pytest.mark.parametrize("raw", [True, False])
def test_no_time_at_all_is_not_comparable(tmp_path: Path, raw: bool) -> None:
    base = file(tmp_path, "a.json", 1e-3, raw=raw)
    result = api.compare(base, file(tmp_path, "b.json", 0.0, raw=raw))
    assert result.rows[0].verdict == "NOT_COMPARABLE"
    assert result.rows[0].reason.startswith("new: its file says 0 s")
    assert result.exit_code({"inconclusive"}) == 5


def test_another_machine_is_named_but_not_another_container(tmp_path: Path) -> None:
    base = file(tmp_path, "a.json", 1e-3)
    other = {**MACHINE, "node": "ci-8", "cpu": {"brand_raw": "B CPU", "count": 2}}
    row = api.compare(base, file(tmp_path, "b.json", 1e-3, machine=other)).rows[0]
    assert row.verdict == "NOT_COMPARABLE"
    assert dict(row.differences) == {"cpu.brand_raw": ("A CPU", "B CPU")}


def test_what_is_no_such_file(tmp_path: Path) -> None:
    damaged = tmp_path / "a.json"
    damaged.write_text(json.dumps({"machine_info": {}, "benchmarks": [{"name": "t"}]}))
    assert is_pytest_file(damaged)
    with pytest.raises(DataError, match="not what pytest-benchmark writes"):
        read_pytest_file(damaged)
    damaged.write_text(json.dumps({"machine_info": [], "benchmarks": []}))
    with pytest.raises(DataError, match="not what pytest-benchmark writes"):
        read_pytest_file(damaged)
    (tmp_path / "b.json").write_text("{}")
    assert not is_pytest_file(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("[" * 100_000)
    assert not is_pytest_file(tmp_path / "b.json")


def test_a_file_against_a_model_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="stored measurements"):
        api.compare(file(tmp_path, "a.json", 1e-3), "proxyless-gpu")
