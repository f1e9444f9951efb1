"""The history of stored baselines: their order, what is left out, whose change it was, the reset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwprof import api
from hwprof.errors import StoreError
from hwprof.regression.history import Series, Visit, _series
from hwprof.regression.stored import Missing, Session
from hwprof.reports.history_text import sentences

SUITE = """
format: 1
name: tiny
devices: ["null"]
preset: quick
workloads:
  - networks: [proxyless-gpu]
"""


def visits(levels_s: Sequence[float], references_s: Sequence[float] | None = None) -> list[Visit]:
    rng = np.random.default_rng(0)
    return [
        Visit(
            session=f"{i:04d}",
            at=f"2026-01-{i + 1:02d}T00:00:00+00:00",
            match="k",
            label="net",
            facts={"runtime_version": "2"},
            levels=Session(
                level_s=level * float(np.exp(0.001 * rng.standard_normal())),
                units_s=(),
                reference_s=references_s[i] if references_s else None,
            ),
        )
        for i, level in enumerate(levels_s)
    ]


def series(found: Sequence[Visit], *failed: Missing) -> Series:
    return _series(found, failed, np.random.default_rng(1))


CHANGED = [1e-3] * 8 + [1.04e-3] * 8


def test_a_change_is_told_with_both_levels_and_when() -> None:
    found = series(visits(CHANGED))
    (change,) = found.changes
    assert (change.session, change.at[:10]) == ("0008", "2026-01-09")
    assert change.before_s == pytest.approx(1e-3, rel=1e-3)
    assert change.after_s == pytest.approx(1.04e-3, rel=1e-3)
    assert change.shift == pytest.approx(0.04, abs=2e-3)
    assert found.since == "0008"
    assert found.note == ""


@pytest.mark.parametrize(("moved", "is_machines"), [(1.02, True), (1.01, False), (0.98, True)])
def test_a_change_of_the_reference_is_the_machines(moved: float, is_machines: bool) -> None:
    found = series(visits(CHANGED, [5e-4] * 8 + [5e-4 * moved] * 8))
    assert found.changes[0].is_machines == is_machines
    assert found.changes[0].reference_shift == pytest.approx(moved - 1)
    assert any("the machine changed" in s for s in sentences([found.to_row()])) == is_machines


def test_sessions_under_another_key_are_left_out_and_said() -> None:
    early = [replace(v, facts={"runtime_version": "1"}) for v in visits([1e-3] * 3)]
    found = series([*early, *visits([2e-3] * 14)])
    assert (len(found.points), found.changes) == (14, ())
    assert found.left_out.startswith("3 sessions differ from the newest in runtime_version")


def test_too_few_sessions_are_said_not_passed_off_as_no_change() -> None:
    found = series(visits([1e-3] * 6 + [2e-3] * 6))
    assert found.changes == ()
    row = found.to_row()
    assert "too few sessions (12): fewer than 14" in row["note"]
    assert row["is_long_enough"] is False


def test_sessions_in_which_it_failed_are_said() -> None:
    gone = Missing(label="net", match="k", reason="0016: compile failed (refused)")
    found = series(visits(CHANGED), gone)
    assert len(found.changes) == 1
    assert found.note == "it failed in 1 sessions, last in 0016: compile failed (refused)"
    never = series([], gone).to_row()
    assert (never["n_sessions"], never["since"]) == (0, None)
    assert "it failed in 1 sessions" in never["note"]


def test_the_oldest_of_many_sessions_are_left_out_and_said() -> None:
    found = series(visits([1e-3] * 203))
    assert (len(found.points), found.changes) == (200, ())
    assert found.since == found.points[0].session == "0003"
    assert found.left_out.startswith("the 3 oldest sessions are left out")


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return baselines of two commits, of three and two sessions."""
    folder = tmp_path_factory.mktemp("history")
    (folder / "suite.yaml").write_text(SUITE)
    for number, (commit, sessions) in enumerate((("bbb", 3), ("aaa", 2))):
        told = json.dumps({"latency": {"labels": {"proxyless*": 1e-4}}})
        out = folder / "all" / commit
        api.suite_run(
            folder / "suite.yaml", out=out, sessions=sessions, seed=10 * number, script=told
        )
    return folder / "all"


class TestStored:
    def test_sessions_of_all_commits_stand_in_their_order_in_time(self, baselines: Path) -> None:
        (found,) = api.suite_history(baselines)
        assert [p.session for p in found.points[:3]] == ["bbb/0001", "bbb/0002", "bbb/0003"]
        assert [p.session for p in found.points[3:]] == ["aaa/0001", "aaa/0002"]
        assert all(p.level_s == pytest.approx(1e-4, rel=0.02) for p in found.points)

    def test_one_baseline_has_its_own_sessions(self, baselines: Path) -> None:
        (found,) = api.suite_history(baselines / "aaa")
        assert [p.session for p in found.points] == ["0001", "0002"]
        assert found.workload == "proxyless-gpu [null-t1-fp32]"

    def test_no_baseline_is_the_users_mistake(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "gone"):
            with pytest.raises(StoreError, match="is no baseline and holds none"):
                api.suite_history(folder)

    def test_what_is_said_of_a_workload_depends_on_no_other_and_compare_says_the_same(
        self, baselines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from hwprof.regression import baseline, history

        drawn: list[float] = []

        def found(levels_s: Sequence[float], rng: np.random.Generator) -> tuple[()]:
            drawn.append(float(rng.random()))
            return ()

        def since(levels_s: Sequence[float], rng: np.random.Generator) -> int:
            return len(found(levels_s, rng))

        monkeypatch.setattr(history, "change_points", found)
        monkeypatch.setattr(baseline, "since_change", since)
        both = [replace(v, match=match) for match in "ab" for v in visits(CHANGED)]
        with monkeypatch.context() as patched:
            patched.setattr(history, "_visits", lambda folder: iter(both))
            api.suite_history(baselines)
        api.suite_compare(baselines / "bbb", baselines / "aaa")
        assert len(drawn) == 4
        assert len(set(drawn)) == 1

    def test_a_confirmed_change_resets_what_is_compared_with(
        self, baselines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from hwprof.regression import baseline

        monkeypatch.setattr(baseline, "since_change", lambda levels, rng: len(levels) - 1)
        (row,) = api.suite_compare(baselines / "bbb", baselines / "aaa").rows
        assert "1 against 1 stored session" in row.reason
        assert "of bbb only the sessions since the change at 0003 count" in row.reason
        assert row.verdict == "INCONCLUSIVE"
