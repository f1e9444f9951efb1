"""The engine over scripted devices: every kind of fault, determinism, looks, groups."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwprof.errors import DeviceUnavailableError, PlanError
from hwprof.measure import engine, machine
from hwprof.measure.process import Worker, living_pids
from hwprof.measure.records import DeviceRef, Failure, Fingerprint, Result, plan_for
from hwprof.progress import Progress
from tests.core.scripted import PLAN, MemorySink, block, measured, null, run

pytestmark = pytest.mark.usefixtures("no_worker_is_left")


def failed(result: Result) -> Failure:
    assert isinstance(result, Failure), result
    return result


def test_levels_are_the_scripted_floors_and_every_burst_reaches_the_sink() -> None:
    sink = MemorySink()
    latency = {"labels": {"fast": 1e-4, "slow": 2e-3}}
    found = run([block("fast", 8), block("slow", 16)], null(latency=latency), sink=sink)
    assert measured(found["fast"]).level_s == pytest.approx(1e-4, rel=0.01)
    assert measured(found["slow"]).level_s == pytest.approx(2e-3, rel=0.01)
    for result in found.values():
        kept = sink.bursts[result.workload.key]
        assert measured(result).bursts == tuple(kept)
        rounds = [(b.worker, b.round_index) for b in kept if "first" not in b.causes]
        assert sorted(rounds) == [(w, i) for w in ("w0", "w1") for i in range(3)]
        assert sum("first" in b.causes for b in kept) == 2  # one warm-up a worker
    assert sink.measurements == list(found.values())
    assert [f.stable["hardware"] for f in sink.fingerprints] == ["scripted"]
    reference = measured(found["fast"]).telemetry["reference_level_s"]
    assert reference == pytest.approx(1e-3, rel=0.01)


def test_same_seed_same_nanoseconds() -> None:
    ref = null(seed=4, slow_mode={"share": 0.2})
    first, again = (run([block("a", 8), block("b", 16)], ref) for _ in range(2))
    for label in first:
        one, two = measured(first[label]), measured(again[label])
        assert one.to_json() == two.to_json()
        for mine, other in zip(one.bursts, two.bursts, strict=True):
            assert (mine.worker, mine.round_index) == (other.worker, other.round_index)
            np.testing.assert_array_equal(mine.burst.duration_ns, other.burst.duration_ns)


FAULTS = {
    "supports unsupported": ("unsupported", 1),
    "compile refuse": ("refused", 1),
    "compile model": ("model", 1),
    "compile plan": ("plan", 1),
    "compile die": ("died", 2),
    "compile kill": ("died", 2),
    "compile memory": ("out_of_memory", 1),
    "check nan": ("non_finite", 1),
    "check fallback": ("fallback", 1),
    "check garbage": ("garbage", 1),
    "check die": ("died", 2),
    "warmup garbage": ("garbage", 1),
    "burst garbage": ("garbage", 1),
    "burst die": ("died", 2),
}


def test_every_fault_is_its_own_and_takes_nobody_with_it() -> None:
    sink = MemorySink()
    bad = {name: block(name, 16 + i) for i, name in enumerate(FAULTS)}
    faults = [
        dict(zip(("label", "stage", "kind"), (name, *name.split()), strict=True)) for name in FAULTS
    ]
    found = run([block("a", 8), *bad.values(), block("z", 9)], null(faults=faults), sink=sink)
    for name, (kind, attempts) in FAULTS.items():
        failure = failed(found[name])
        assert (failure.stage, failure.kind, failure.attempts) == (name.split()[0], kind, attempts)
        assert failure.retryable is (kind in ("died", "out_of_memory")), name
        assert failure.message
    for label in ("a", "z"):
        assert measured(found[label]).level_s == pytest.approx(1e-3, rel=0.01)
    assert {f.workload.label for f in sink.failures} == set(FAULTS)
    dead = failed(found["compile die"]).message
    assert "exit code 13" in dead
    assert "the script lets the process die" in dead
    assert "not JSON compliant" in failed(found["check garbage"]).message
    assert "SIGKILL" in failed(found["compile kill"]).message
    assert "scripted operator" in failed(found["check fallback"]).message


def test_the_systems_want_of_memory_is_told_from_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter(range(1000))
    monkeypatch.setattr(machine, "oom_kills", lambda: next(kills))
    ref = null(faults=[{"label": "bad", "stage": "burst", "kind": "kill"}])
    failure = failed(run([block("bad", 16)], ref)["bad"])
    assert (failure.stage, failure.kind, failure.attempts) == ("burst", "out_of_memory", 1)
    assert "want of memory" in failure.message


def test_the_references_alone_are_not_timed() -> None:
    sink = MemorySink()
    run(
        [block("bad")],
        null(faults=[{"label": "bad", "stage": "compile", "kind": "refuse"}]),
        sink=sink,
    )
    assert [f.workload.label for f in sink.failures] == ["bad"]
    assert sink.references == []


def test_a_worker_that_hangs_is_ended() -> None:
    ref = null(faults=[{"label": "bad", "stage": "burst", "kind": "hang"}])
    plan = plan_for("quick", workers=2, looks=(2,), timeout_s=1.0)
    found = run([block("a", 8), block("bad", 16)], ref, plan)
    failure = failed(found["bad"])
    assert (failure.stage, failure.kind, failure.attempts) == ("burst", "hung", 2)
    assert "no answer to 'burst' within 1 s" in failure.message
    assert "or raise --timeout" in failure.message
    measured(found["a"])


def test_a_fault_that_happens_once_is_survived(tmp_path: Path) -> None:
    fault = {"label": "a", "stage": "burst", "kind": "die", "once": str(tmp_path / "marker")}
    result = measured(run([block("a", 8), block("b", 16)], null(faults=[fault]))["a"])
    assert result.telemetry["attempts"] == 2
    # The replaced process is another worker: its bursts are not mixed with the lost one's.
    assert len({b.worker for b in result.bursts}) == 3
    assert result.level_s == pytest.approx(1e-3, rel=0.01)


def test_noise_on_standard_output_corrupts_nothing() -> None:
    faults = [
        {"label": "a", "stage": stage, "kind": "print"} for stage in ("compile", "warmup", "burst")
    ]
    assert measured(run([block("a")], null(faults=faults))["a"]).n_samples > 0


def test_a_device_that_cannot_be_opened_ends_the_campaign() -> None:
    ref = DeviceRef(name="ghost", factory="hwprof.no_such_module:Adapter")
    with pytest.raises(DeviceUnavailableError, match="cannot open the device 'ghost'"):
        run([block("a")], ref)


def no_device_here() -> str:
    """What a registration's check says of a device that is not there."""
    return "its driver is missing"


def test_a_device_that_is_not_there_is_told_before_workers_start() -> None:
    check = f"{__name__}:{no_device_here.__name__}"
    ref = DeviceRef(name="ghost", factory="hwprof.no_such_module:Adapter", check=check)
    with pytest.raises(DeviceUnavailableError, match=r"'ghost' cannot be used: its driver"):
        run([block("a")], ref)


def test_telemetry_of_the_device_decides_the_verdict() -> None:
    ref = null(load={"foreign_cores": 0.9, "steal_share": 0.05, "throttled": True})
    result = measured(run([block("a")], ref)["a"])
    assert result.verdict == "throttled"
    assert any("other processes kept 0.9" in line for line in result.evidence)
    assert any("hypervisor gave 5.0%" in line for line in result.evidence)
    superseded = [b for b in result.bursts if "superseded" in b.causes]
    # A quarter of the bursts (6, rounded up) may be repeated; the first ones stay in the data.
    assert len(superseded) == 2
    assert result.telemetry["n_excluded"] == 2
    assert {"stolen", "throttled", "foreign_load"} <= set(result.bursts[-1].causes)


def test_another_process_on_the_device_contaminates() -> None:
    other = {"pid": 4711, "name": "python", "memory_bytes": 512 * 2**20}
    result = measured(run([block("a")], null(load={"foreign_processes": [other]}))["a"])
    assert result.verdict == "contaminated"
    assert "in 100% of the bursts: python (pid 4711, 512 MiB); end it" in result.evidence[0]
    assert {"foreign_process"} <= set(result.bursts[-1].causes)


def test_sustained_keeps_the_throttled_bursts_that_it_is_there_to_time() -> None:
    plan = plan_for("quick", workers=2, looks=(3,), timeout_s=20.0, sustained_s=1.0)
    result = measured(run([block("a")], null(load={"throttled": True}), plan)["a"])
    timed = [b for b in result.bursts if "first" not in b.causes]
    assert [b.causes for b in timed] == [("throttled",)] * 6
    assert (result.telemetry["n_bursts"], result.telemetry["n_excluded"]) == (6, 0)


def test_looks_let_the_settled_go_and_keep_the_others() -> None:
    plan = plan_for("standard", workers=2, looks=(4, 6), target_rel=0.02)
    script: dict[str, Any] = {
        "noise": {"worker": 0.0, "call": 0.001},
        "latency": {"labels": {"calm": 1e-3}},
    }
    drifting: dict[str, Any] = {**script, "drift_per_burst": 0.03}
    calm = measured(run([block("calm")], null(**script), plan)["calm"])
    moving = measured(run([block("calm")], null(**drifting), plan)["calm"])
    assert max(b.round_index for b in calm.bursts) == 3
    assert calm.verdict == "clean"
    assert max(b.round_index for b in moving.bursts) == 5
    assert moving.verdict == "drifting"


def test_an_abandoned_campaign_leaves_no_worker() -> None:
    results = engine.measure([block("a", 8), block("b", 16)], null(), PLAN)
    next(results)
    assert living_pids()
    del results


def test_deadline_begins_no_new_group() -> None:
    workloads = [block(f"n{i}", 8 * (i + 1)) for i in range(3)]
    assert run(workloads, null(), deadline_s=time.monotonic() - 1) == {}


def test_progress_counts_workloads_and_failures() -> None:
    told: list[Progress] = []
    ref = null(faults=[{"label": "bad", "stage": "compile", "kind": "refuse"}])
    run([block("a", 8), block("bad", 16)], ref, progress=told.append)
    assert {p.stage for p in told} == {"measure"}
    assert (told[-1].done, told[-1].total, told[-1].n_failed) == (2, 2, 1)
    assert "round 3 of 3" in [p.label for p in told]
    assert told[-1].eta_s == pytest.approx(0.0)


def test_several_threads_have_a_process_each() -> None:
    found = run([block("a", 8), block("b", 16)], null(threads=2))
    workers = [{b.worker for b in measured(r).bursts} for r in found.values()]
    assert len(workers[0]) == len(workers[1]) == 2
    assert workers[0].isdisjoint(workers[1])


def test_equal_workloads_are_measured_once() -> None:
    assert len(list(engine.measure([block("a"), block("again")], null(), PLAN))) == 1


def test_bad_script_is_the_users_error() -> None:
    with pytest.raises(PlanError, match="unknown field 'latnecy'"):
        run([block("a")], null(latnecy={}))
    assert issubclass(PlanError, ValueError)


def test_rounds_begin_no_sooner_than_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device whose time is this host's; a scripted one need not wait."""
    slept: list[float] = []
    monkeypatch.setattr("hwprof.measure.group.time.sleep", slept.append)
    plan = plan_for("quick", workers=2, looks=(3,), round_s=60.0)
    measured(run([block("a")], null(), plan)["a"])
    assert slept == []
    monkeypatch.setattr(Fingerprint, "is_scripted", False)
    measured(run([block("a")], null(), plan)["a"])
    assert len(slept) == 3
    assert slept[0] == 0.0
    assert all(50.0 < s <= 60.0 for s in slept[1:])


def test_a_reference_block_that_is_lost_at_once_stops_nobody() -> None:
    faults = [{"label": "reference block", "stage": "burst", "kind": "garbage"}]
    result = measured(run([block("a")], null(faults=faults))["a"])
    assert "reference_level_s" not in result.telemetry


def test_what_failed_its_check_is_freed_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[str] = []
    request = Worker.request

    def seen(worker: Worker, op: str, timeout_s: float, **fields: Any) -> Any:
        if op == "drop":
            dropped.append(fields["key"])
        return request(worker, op, timeout_s, **fields)

    monkeypatch.setattr(Worker, "request", seen)
    bad, good = block("bad", 8), block("good", 16)
    ref = null(faults=[{"label": "bad", "stage": "check", "kind": "fallback"}])
    assert failed(run([bad, good], ref)["bad"]).kind == "fallback"
    assert dropped == [bad.key]


def test_all_are_compiled_before_the_first_is_warmed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metering a workload's memory takes freed pages from those that are warm."""
    asked: list[str] = []
    send = Worker.send

    def noted(self: Worker, op: str, **fields: Any) -> None:
        asked.append(op)
        send(self, op, **fields)

    monkeypatch.setattr(Worker, "send", noted)
    run([block("a", 8), block("b", 16)], null(), plan_for("quick", workers=1, looks=(1,)))
    warm_up = asked.index("burst")
    assert asked[:warm_up].count("compile") == 3  # with the reference block
    assert "compile" not in asked[warm_up:]
