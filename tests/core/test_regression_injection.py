"""Slowdowns made on purpose: what is put behind calls, and that the gate sees it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hwprof import api
from hwprof.checks.probing import WORK
from hwprof.checks.workloads import BLOCK
from hwprof.devices import device_ref
from hwprof.errors import MeasurementError, PlanError
from hwprof.measure.records import DeviceOptions
from hwprof.regression import injection
from hwprof.regression.injection import (
    Slowdown,
    power_points,
    run_trial,
    work_bytes,
)
from hwprof.regression.side_by_side import running_workers
from hwprof.reports.check_text import power_text

NULL = device_ref("null", DeviceOptions(script=json.dumps({"latency": {"base_s": 1e-4}})))


@pytest.mark.parametrize(("size", "verdict"), [(0.0, "equivalent"), (0.03, "regressed")])
def test_a_delay_is_found_on_the_scripted_clock(size: float, verdict: str) -> None:
    slowdown = Slowdown(kind="delay", size=size, level_s=1e-4)
    trial = run_trial(BLOCK, NULL, slowdown, seed=3, cap_s=600)
    assert trial.verdict == verdict
    assert trial.shift == pytest.approx(size, abs=0.004)


def test_comparisons_in_turn_share_workers_and_nothing_else() -> None:
    slowdown = Slowdown(kind="delay", size=0.03, level_s=1e-4)
    with running_workers(slowdown.put_into(NULL)) as workers:
        pids = {seat.worker.pid for seat in workers.seats if seat.worker is not None}
        trials = [
            run_trial(BLOCK, NULL, slowdown, seed=i, cap_s=600, workers=workers) for i in range(3)
        ]
        assert {seat.worker.pid for seat in workers.seats if seat.worker is not None} == pids
        # What a comparison compiled has left the workers.
        assert all(not seat.ready for seat in workers.seats)
    assert [t.verdict for t in trials] == ["regressed"] * 3
    weights = {m.workload.seed for t in trials for m in (t.timed.base, t.timed.new)}
    assert len(weights) == 6
    assert all(t.seconds >= workers.start_s for t in trials)


def test_no_real_work_goes_into_a_scripted_device() -> None:
    with pytest.raises(MeasurementError, match="cannot be put into the calls"):
        run_trial(BLOCK, NULL, Slowdown(kind="work", size=0.03, level_s=1e-4), seed=0)


def test_nothing_is_slowed_down_on_another_machine() -> None:
    with pytest.raises(PlanError, match=r"run hwprof selftest --inject --device cpu$"):
        api.power_curve("cpu@ssh://pi@192.0.2.1")


def test_work_is_sized_by_the_slope_of_two_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    # 1 us to begin with and 0.5 ns a byte: 4 us take 8000 bytes, whatever the beginning costs.
    monkeypatch.setattr(injection, "_hashing_s", lambda n: 1e-6 + 0.5e-9 * n)
    assert work_bytes(4e-6) == 8000
    assert work_bytes(0.0) == 1


@pytest.mark.parametrize("what", [0.01, f"{WORK}30000000"])
def test_both_kinds_lengthen_a_call_of_this_process(what: Any) -> None:
    from hwprof.checks.probing import open_probing, probing_ref
    from hwprof.measure.records import plan_for

    ref = probing_ref(device_ref("cpu", DeviceOptions()), {BLOCK.label: what})
    adapter = open_probing(ref.options)
    try:
        executable = adapter.compile(BLOCK, plan_for("quick"))
        # A wait of 10 ms, or 30 MB to hash, is beyond any doubt behind every call.
        burst = executable.burst(0.0, 3, "hot")
        executable.close()
    finally:
        adapter.close()
    assert burst.calls_per_sample == 1
    assert int(burst.duration_ns.min()) > 5_000_000


def test_points_count_what_was_said() -> None:
    said = ("regressed", "regressed", "inconclusive", "equivalent", "improved")
    trials: Any = [
        SimpleNamespace(workload="b", kind="delay", size=0.03, verdict=v, shift=0.01 * i, seconds=i)
        for i, v in enumerate(said)
    ]
    (point,) = power_points(trials)
    row = point.to_row()
    assert (row["regressed"], row["improved"], row["equivalent"], row["inconclusive"]) == (
        2,
        1,
        1,
        1,
    )
    assert (row["n_trials"], row["median_shift"], row["median_seconds"]) == (5, 0.02, 2)


def test_the_power_curve_says_what_a_row_means_in_words() -> None:
    trial: Any = SimpleNamespace(
        workload="b", kind="work", size=0.03, verdict="regressed", shift=0.03, seconds=2.0
    )
    (point,) = power_points([trial] * 4)
    text = io.StringIO()
    Console(file=text, width=160).print(power_text([point.to_row()]))
    # Four of four: (0.025)^(1/4) = 39.8 %.
    assert "real work" in text.getvalue()
    assert "4 of 4" in text.getvalue()
    assert "40% to 100%" in text.getvalue()
    assert "At +0% every regression is a false alarm" in " ".join(text.getvalue().split())
