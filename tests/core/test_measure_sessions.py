"""Sessions over scripted devices: two separate times, and going on with what was measured."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import pytest

from hwprof.measure import engine
from hwprof.measure.floor import SESSION_SD, interval_s
from hwprof.measure.level import estimate
from hwprof.measure.process import Worker
from hwprof.measure.records import Failure, Fingerprint, plan_for
from hwprof.measure.references import NETWORK
from hwprof.measure.session_spread import SessionLevel, session_spread
from tests.core.scripted import PLAN, MemoryHistory, MemorySink, block, measured, null, run

pytestmark = pytest.mark.usefixtures("no_worker_is_left")

STRICT = plan_for("strict", workers=2, looks=(3,), session_gap_s=0.0)


def test_resuming_measures_only_what_is_left() -> None:
    first = MemorySink()
    half = plan_for("quick", workers=2, looks=(2,))
    run([block("a")], null(), half, sink=first)
    (earlier,) = first.bursts.values()
    second = MemorySink()
    key = block("a").key
    result = measured(run([block("a")], null(), PLAN, sink=second, earlier={key: earlier})["a"])
    fresh = [b for b in second.bursts[key] if "first" not in b.causes]
    assert [(b.worker, b.round_index) for b in sorted(fresh, key=lambda b: b.worker)] == [
        ("w2", 2),
        ("w3", 2),
    ]
    assert result.bursts == (*earlier, *second.bursts[key])


def test_workers_of_a_later_call_bear_other_labels() -> None:
    first = measured(run([block("a")], null(), PLAN)["a"])
    taken = set(first.telemetry["worker_levels_s"])
    second = measured(run([block("b")], null(), PLAN, taken=taken)["b"])
    assert taken == {"w0", "w1"}
    assert set(second.telemetry["worker_levels_s"]) == {"w2", "w3"}


def test_resuming_with_enough_measures_nothing() -> None:
    first = MemorySink()
    run([block("a")], null(), PLAN, sink=first)
    key = block("a").key
    second = MemorySink()
    again = run([block("a")], null(), PLAN, sink=second, earlier=first.bursts)
    assert measured(again["a"]).bursts == tuple(first.bursts[key])
    assert second.bursts == {}
    assert second.measurements == [again["a"]]


def test_strict_looks_at_two_separate_times() -> None:
    result = measured(run([block("a")], null(), STRICT)["a"])
    timed = [b for b in result.bursts if "first" not in b.causes]
    first, second = (
        {b.worker for b in timed if (b.round_index < 3) is early} for early in (True, False)
    )
    assert len(first) == len(second) == 2
    assert first.isdisjoint(second)  # fresh processes
    assert sorted({b.round_index for b in timed}) == list(range(6))
    assert len(result.telemetry["worker_levels_s"]) == 4


@pytest.fixture
def unscripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scripted device pass for hardware."""
    monkeypatch.setattr(Fingerprint, "is_scripted", False)


@pytest.mark.usefixtures("unscripted")
def test_every_session_is_remembered_and_known_to_the_next() -> None:
    history = MemoryHistory()
    strict = replace(STRICT, round_s=0.0)
    first = measured(run([block("a")], null(), strict, history=history)["a"])
    one, two = history.kept  # of both sessions
    assert one.setting == two.setting
    assert one.setting.startswith(first.fingerprint.digest)
    assert one.level_s == pytest.approx(1e-3, rel=0.01)  # the script's floor
    assert first.telemetry["sessions_known"] == 0  # one alone has nothing to differ from
    cold = plan_for("quick", workers=2, looks=(3,), round_s=0.0, cache="cold")
    second = measured(run([block("a")], null(), cold, history=history)["a"])
    assert second.telemetry["sessions_known"] == 2
    assert history.kept[2].setting != one.setting


@pytest.mark.usefixtures("unscripted")
def test_the_reference_is_told_of_the_sessions_that_the_level_is_of() -> None:
    history = MemoryHistory()
    strict = replace(STRICT, round_s=0.0)
    ref = null(noise={"worker": 0.1, "call": 0.0})
    found = measured(run([block("a")], ref, strict, history=history)["a"])
    one, two = (session.level_s for session in history.kept)
    told = found.telemetry["reference_level_s"]
    assert told != pytest.approx(two, rel=1e-6)  # not of the last session alone
    assert told < max(one, two)


@pytest.mark.usefixtures("unscripted")
def test_intervals_know_how_far_sessions_lie_apart() -> None:
    apart = [
        SessionLevel(kind="block", setting="s", level_s=1e-3 * (1 + 0.03 * (-1) ** i), se=0.0)
        for i in range(40)
    ]
    plan = replace(PLAN, round_s=0.0)
    still = measured(run([block("a")], null(), plan)["a"])
    known = measured(run([block("a")], null(), plan, history=MemoryHistory(apart))["a"])
    assert known.level_s == still.level_s
    assert known.beside_ci95_s == still.beside_ci95_s
    sd = session_spread(apart, "block").sd
    assert known.telemetry["session_sd"] == sd > 0.025
    assert known.ci95_s == pytest.approx(
        interval_s(known.level_s, math.log(known.beside_ci95_s[1] / known.level_s), sd)
    )
    assert still.telemetry["session_sd"] == SESSION_SD
    assert known.verdict == "noisy"
    assert "sessions on this machine differ" in known.evidence[0]


@pytest.mark.usefixtures("unscripted")
def test_sessions_with_networks_know_how_far_those_lie_apart() -> None:
    history = MemoryHistory()
    network = replace(NETWORK, label="a network")
    run([block("a"), network], null(), replace(PLAN, round_s=0.0), history=history)
    assert [session.kind for session in history.kept] == ["block", "network"]


def test_with_several_threads_every_reference_has_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two sessions of one process would spin against each other."""
    compiled: dict[int, list[str]] = {}
    send = Worker.send

    def noted(self: Worker, op: str, **fields: Any) -> None:
        if op == "compile":
            compiled.setdefault(self.pid, []).append(fields["workload"]["label"])
        send(self, op, **fields)

    monkeypatch.setattr(Worker, "send", noted)
    network = replace(NETWORK, label="a network")
    monkeypatch.setattr(engine, "require_fit", lambda monitor, threads: None)
    run([block("a"), network], null(threads=2), PLAN)
    assert all(len(labels) == 1 for labels in compiled.values())
    assert sum(labels == [NETWORK.label] for labels in compiled.values()) == 1


def test_a_script_has_no_sessions_to_remember() -> None:
    history = MemoryHistory()
    found = measured(run([block("a")], null(), PLAN, history=history)["a"])
    assert history.kept == []
    assert "sessions_known" not in found.telemetry


def test_sessions_alternate_so_that_waiting_is_used() -> None:
    a, b, c = ([block(name)] for name in "abc")
    order = [(t.waiting[0].label, t.session) for t in engine.turns([a, b, c], 2)]
    assert order == [("a", 0), ("b", 0), ("a", 1), ("c", 0), ("b", 1), ("c", 1)]
    assert [t.session for t in engine.turns([a, b], 1)] == [0, 0]


def test_the_second_session_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("hwprof.measure.engine.time.monotonic", lambda: now[0])
    monkeypatch.setattr("hwprof.measure.engine.time.sleep", sleep)
    plan = plan_for("strict", workers=1, looks=(1,), session_gap_s=4.5)
    measured(run([block("a")], null(), plan)["a"])
    assert sum(slept) == pytest.approx(4.5)


def test_a_failure_in_the_first_session_is_not_tried_in_the_second() -> None:
    faults = [{"label": "bad", "stage": "compile", "kind": "refuse"}]
    results = list(engine.measure([block("bad", 16), block("a")], null(faults=faults), STRICT))
    assert [(r.workload.label, isinstance(r, Failure)) for r in results] == [
        ("bad", True),
        ("a", False),
    ]


def test_resuming_between_sessions_measures_only_the_second() -> None:
    sink = MemorySink()
    first = plan_for("strict", workers=2, looks=(3,), sessions=1)
    run([block("a")], null(), first, sink=sink)
    again = MemorySink()
    result = measured(run([block("a")], null(), STRICT, sink=again, earlier=sink.bursts)["a"])
    timed = [b.round_index for b in again.bursts[block("a").key] if "first" not in b.causes]
    assert sorted(set(timed)) == [3, 4, 5]
    assert len(result.bursts) == len(sink.bursts[block("a").key]) + len(
        again.bursts[block("a").key]
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_resuming_tells_of_the_reference_beside_every_call(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several threads the reference has a worker that no candidate has."""
    monkeypatch.setattr(engine, "require_fit", lambda monitor, threads: None)
    ref = null(threads=threads, noise={"worker": 0.1, "call": 0.0})
    first = plan_for("strict", workers=2, looks=(3,), sessions=1)
    sink, again = MemorySink(), MemorySink()
    run([block("a")], ref, first, sink=sink)
    others = [("another", replace(b, worker="w99")) for _, b in sink.references]
    given = [*others, *sink.references]
    found = run([block("a")], ref, STRICT, sink=again, earlier=sink.bursts, references=given)
    beside, last = [*sink.references, *again.references], again.references
    levels_s = [estimate([b for _, b in kept], threads).level_s for kept in (beside, last)]
    assert measured(found["a"]).telemetry["reference_level_s"] == levels_s[0] != levels_s[1]


def test_a_deadline_is_kept_by_the_second_session(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for("strict", workers=1, looks=(1,), session_gap_s=3600.0)
    assert run([block("a")], null(), plan, deadline_s=time.monotonic() + 60.0) == {}
