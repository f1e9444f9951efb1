"""The benchmarks judge hwprof: what they judge by is tested like the rest."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hwprof.interval import Interval
from hwprof.measure.floor import interval_s
from tests.bench import bench_coverage, common, otherwork

SAME = {"hardware": "this", "engine": "abc"}


class TestCells:
    def test_measured_cells_are_there_in_the_next_call(self, tmp_path: Path):
        path = tmp_path / "cells.jsonl"
        common.Cells(path, SAME).add({"workload": "block", "run": 1}, {"level_s": 0.5})
        cells = common.Cells(path, SAME)
        assert cells.get(workload="block", run=1) == {
            "key": {"workload": "block", "run": 1},
            "level_s": 0.5,
        }
        assert cells.get(workload="block") is None, "a part of a key is no key"
        assert len(cells.select(workload="block")) == 1
        assert cells.select(workload="network") == []

    def test_a_line_cut_off_by_a_kill_is_measured_again(self, tmp_path: Path):
        path = tmp_path / "cells.jsonl"
        common.Cells(path, SAME).add({"run": 1}, {"level_s": 0.5})
        with path.open("a") as file:
            file.write('{"key": {"run": 2}, "lev')
        cells = common.Cells(path, SAME)
        assert cells.get(run=2) is None
        cells.add({"run": 2}, {"level_s": 0.6})
        runs = [json.loads(line)["key"]["run"] for line in path.read_text().splitlines()[1:]]
        assert runs == [1, 2]

    def test_cells_of_another_engine_are_not_mixed_in(self, tmp_path: Path):
        path = tmp_path / "cells.jsonl"
        common.Cells(path, SAME)
        with pytest.raises(SystemExit, match=r"another engine: name a new file"):
            common.Cells(path, {**SAME, "engine": "abd"})

    @pytest.mark.parametrize(
        "changed",
        ["measure/level.py", "devices/cpu.py", "devices/agent/entry.py", "graph/build.py"],
    )
    def test_code_that_a_figure_depends_on_is_part_of_the_engine(
        self, tmp_path: Path, changed: str
    ):
        for name in (changed, "cli/main.py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x = 1")
        before = common.sources_digest(tmp_path)
        (tmp_path / "cli/main.py").write_text("x = 2")
        assert common.sources_digest(tmp_path) == before, "what is said, not what is measured"
        (tmp_path / changed).write_text("x = 2")
        assert common.sources_digest(tmp_path) != before
        (tmp_path / changed).write_text("x = 1")
        (tmp_path / changed).rename((tmp_path / changed).with_name("other.py"))
        assert common.sources_digest(tmp_path) != before

    def test_every_package_that_makes_up_the_engine_is_there(self):
        for part in common.FIGURE_PARTS:
            assert (common.ROOT / "hwprof" / part / "__init__.py").exists()


class TestMeasureMissing:
    @staticmethod
    def jobs(calls: list[int], n: int) -> list[common.Job]:
        def run(i: int) -> common.Cell:
            calls.append(i)
            return {"value": i}

        return [common.Job(key={"run": i}, run=partial(run, i), expected_s=1.0) for i in range(n)]

    def test_only_what_is_missing_is_measured(self, tmp_path: Path):
        cells, calls = common.Cells(tmp_path / "c", SAME), list[int]()
        assert common.measure_missing(cells, self.jobs(calls, 2), math.inf)
        assert common.measure_missing(cells, self.jobs(calls, 3), math.inf)
        assert calls == [0, 1, 2]

    def test_nothing_is_begun_that_would_end_too_late(self, tmp_path: Path):
        cells, calls = common.Cells(tmp_path / "c", SAME), list[int]()
        assert not common.measure_missing(cells, self.jobs(calls, 2), deadline_s=0.0)
        assert calls == []


class TestMonitor:
    def test_the_machines_seconds_are_split_into_busy_and_stolen(self):
        tick = os.sysconf("SC_CLK_TCK")
        ticks = [1, 2, 3, 1000, 2000, 4, 5, 7, 9, 9]  # proc(5): user … softirq, steal, guest ×2
        busy_s, steal_s = otherwork.cpu_seconds("cpu  " + " ".join(str(t * tick) for t in ticks))
        assert (busy_s, steal_s) == (1 + 2 + 3 + 4 + 5, 7)

    def test_a_process_is_read_whatever_its_name(self):
        tick = os.sysconf("SC_CLK_TCK")
        # proc(5): pid (comm) state ppid …, utime stime cutime cstime are fields 14 to 17.
        text = f"7 (a) b 9) S 5 {'0 ' * 9}{tick} {2 * tick} {3 * tick} {4 * tick} 20 0"
        assert otherwork.process_seconds(text) == (5, 10.0)

    def test_work_of_this_process_is_none_of_others_but_a_competitor_is(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        # Over 10 s: 14 s busy, of them 6 s ours, so that others had 0.8 of a core.
        readings = iter([(100.0, 50.0, 1.0, 20.0), (110.0, 64.0, 1.5, 26.0)])
        monkeypatch.setattr(otherwork.Watch, "_now", lambda self: next(readings))
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        load = otherwork.Watch().load()
        assert load == otherwork.Load(seconds=10.0, foreign_cores=0.8, steal_share=0.025)

    def test_the_tree_is_ours_but_for_what_stands_beside(self):
        # 1 started us (5); we started 6 and 7; 6 started 8, 7 started 9.
        processes = {1: (0, 99.0), 5: (1, 1.0), 6: (5, 2.0), 7: (5, 4.0), 8: (6, 8.0), 9: (7, 16.0)}
        assert otherwork.tree_seconds(processes, 5) == 1 + 2 + 4 + 8 + 16
        assert otherwork.tree_seconds(processes, 5, beside={7}) == 1 + 2 + 8


class TestIntervals:
    def test_share_is_that_of_clopper_and_pearson(self):
        # None of n: the upper end solves (1 − p)^n = 0.025; all of n mirrors it.
        end = 100 * (1 - 0.025 ** (1 / 20))
        assert common.share_pct(0, 20) == pytest.approx((0.0, 0.0, end))
        assert common.share_pct(20, 20) == pytest.approx((100.0, 100.0 - end, 100.0))

    def test_bootstrap_agrees_with_the_normal_interval_of_a_mean(self):
        values = np.random.default_rng(1).normal(10.0, 2.0, 400)
        half = 1.96 * values.std(ddof=1) / 20
        found = common.bootstrap(np.mean, values)
        assert found == pytest.approx(
            (values.mean(), values.mean() - half, values.mean() + half), abs=0.1 * half
        )

    def test_few_values_give_no_interval(self):
        found = common.bootstrap(common.cv_pct, [1.0, 3.0])
        assert found.value == pytest.approx(100 * math.sqrt(2) / 2)
        assert math.isnan(found.lo)

    def test_ratio_of_a_sample_three_times_as_wide_is_three(self):
        narrow = np.array([9.0, 10.0, 11.0])
        assert common.cv_ratio(10 + 3 * (narrow - 10), narrow) == pytest.approx(3.0)


class TestCoverage:
    def test_a_run_is_judged_by_the_workers_of_the_others_alone(self):
        runs = [{"worker_levels_s": [float(i)] * 4, "ci95_s": [0.0, 2.5]} for i in range(5)]
        others = bench_coverage.others(runs, 2)
        assert others == [*runs[:2], *runs[3:]]
        # Workers 0 ×4, 1 ×4, 3 ×4, 4 ×4: the lower quartile lies between the 4th and the 5th.
        assert bench_coverage.pooled_floor_s(others) == pytest.approx(0.75)
        assert bench_coverage.others(runs, 0, reach=2) == runs[1:3]
        assert bench_coverage.others(runs, 4, reach=1) == runs[3:4]

    def test_the_truth_is_the_median_of_the_others_and_what_was_known_is_told_apart(self):
        runs = [
            {
                "level_s": level_s,
                "ci95_s": interval_s(level_s, 0.01, 0.02),
                "session_sd": 0.02,
                "sessions_known": known,
                "worker_levels_s": [level_s],
            }
            for level_s, known in ((1.0, 0), (1.03, 4), (1.0, 5), (1.06, 6), (1.0, 7))
        ]
        found = bench_coverage.outcomes(runs)
        assert found["held"] == [True, True, True, False, True]
        assert found["held, machine known"] == [True, False, True]
        # ±1 % of its own and 0.4 % of the protocol's: 3 % away is beyond it.
        assert found["held by the constant alone"] == [False, False, False, False, False]
        assert bench_coverage.typical_level_s(runs[:4]) == pytest.approx(1.015)
        (total,) = bench_coverage.together([runs, runs])
        assert total["held, n"] == "8 of 10"

    @pytest.mark.parametrize(("truth_s", "held"), [(1.0, True), (2.0, True), (2.01, False)])
    def test_an_interval_holds_its_ends(self, truth_s: float, held: bool):
        assert bench_coverage.is_held({"ci95_s": [1.0, 2.0]}, truth_s) is held


def test_a_table_shows_what_is_not_known_as_such():
    rows = [
        {"name": "a", "value": 1.23456, "share": Interval(0.5, 0.25, 0.75)},
        {"name": "b", "value": math.nan, "share": Interval(0.5, math.nan, math.nan)},
    ]
    assert common.markdown(rows).splitlines() == [
        "| name | value | share |",
        "| --- | ---: | ---: |",
        "| a | 1.23 | 0.5 [0.25, 0.75] |",
        "| b | – | 0.5 |",
    ]
