"""The runner: budget, refusals, finalists, log, and going on after a kill."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwprof.errors import (
    DataError,
    DeviceError,
    FormatVersionError,
    IncompatibleRunError,
    PlanError,
    StoreError,
)
from hwprof.graph import architecture_cost
from hwprof.measure.records import Failure, Fingerprint, Measurement, Result
from hwprof.pareto import front_indices
from hwprof.progress import Progress
from hwprof.results import SearchResult, Trial
from hwprof.search.runner import PROPOSALS_PER_EVALUATION, run_search
from hwprof.search.strategy import STRATEGIES, UsesForesight, make_strategy
from hwprof.space import Architecture, get_space
from hwprof.workload import Workload
from tests.made import measurement

SPACE = get_space("mobile-mini")


def code_of(arch: Architecture) -> int:
    return int(arch.arch_id, 16)


def true_latency_s(arch: Architecture) -> float:
    return 1e-9 * architecture_cost(SPACE, arch).macs


@dataclass
class FakeAccuracy:
    """Scores by cost and a hash; ``blind`` says for which networks it has none."""

    name: str = "fake"
    digest: str = "f" * 8
    blind: Callable[[Architecture], bool] = lambda arch: False
    asked: list[Architecture] = field(default_factory=list)
    dies_at: int | None = None

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        if self.dies_at is not None and len(self.asked) >= self.dies_at:
            raise KeyboardInterrupt
        self.asked += archs
        return [None if self.blind(a) else self.accuracy_of(a) for a in archs]

    @staticmethod
    def accuracy_of(arch: Architecture) -> float:
        return (
            60.0 + 5.0 * math.log10(architecture_cost(SPACE, arch).macs) + code_of(arch) % 97 / 50
        )


class FakeWithTestImages(FakeAccuracy):
    """The same, with test images."""

    def test_score(self, archs: Sequence[Architecture]) -> list[float | None]:
        return [self.accuracy_of(a) - 1.0 for a in archs]


def predicted(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
    """Predict 5 % too little, claiming to be 10 % exact."""
    return [(0.95 * true_latency_s(a), 0.1 * true_latency_s(a)) for a in archs]


def measurement_of(arch: Architecture) -> Measurement:
    level_s = true_latency_s(arch) * (1.0 + code_of(arch) % 7 / 100)
    ci95_s = (0.99 * level_s, 1.01 * level_s)
    fingerprint = Fingerprint(stable={"device": "fake"})
    return measurement(Workload.network(arch), level_s, ci95_s, fingerprint=fingerprint)


def failure(arch: Architecture) -> Failure:
    return Failure(
        workload=Workload.network(arch), stage="burst", kind="hung", message="no answer for 120 s"
    )


def measure_all(archs: Sequence[Architecture]) -> list[Result]:
    return [measurement_of(a) for a in reversed(archs)]


def search(name: str = "nsga2", *, seed: int = 3, **changes: Any) -> SearchResult:
    options: dict[str, Any] = {"accuracy": FakeAccuracy(), "latency": predicted, "max_evals": 60}
    options |= changes
    strategy = make_strategy(
        name, SPACE, np.random.default_rng(seed), target_s=options.get("target_s")
    )
    return run_search(SPACE, strategy, seed=seed, **options)


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def untimed(folder: Path) -> list[dict[str, Any]]:
    """Return the log without what depends on the clock."""
    out = []
    for event in events(folder):
        event = {k: v for k, v in event.items() if k != "time_s"}
        if "ledger" in event:
            event["ledger"] = {k: v for k, v in event["ledger"].items() if not k.endswith("_s")}
        out.append(event)
    return out


@pytest.fixture(params=sorted(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_unconfirmed_front_is_the_front_of_all_predictions(name: str) -> None:
    accuracy = FakeAccuracy()
    result = search(name, accuracy=accuracy)
    assert not result.confirmed
    assert len(result.trials) == len({t.arch for t in result.trials}) == 60
    best = front_indices(
        [t.latency_s for t in result.trials], [t.accuracy_pct for t in result.trials]
    )
    assert result.front == tuple(result.trials[i] for i in best)
    assert {t.latency_source for t in result.front} == {"predicted"}
    trial = result.trials[0]
    assert trial.latency_s == pytest.approx(0.95 * true_latency_s(trial.arch))
    assert trial.macs == architecture_cost(SPACE, trial.arch).macs
    assert trial.ci95_s == pytest.approx((0.85e-9 * trial.macs, 1.05e-9 * trial.macs))
    assert [t.arch for t in result.trials] == accuracy.asked
    assert not result.reduced
    assert result.strategy == name


def test_confirmed_front_is_the_front_of_the_measured() -> None:
    result = search(measure=measure_all, n_finalists=10)
    assert result.confirmed
    assert 1 <= len(result.finalists) <= 10
    for trial in result.finalists:
        assert trial.latency_source == "measured"
        assert trial.latency_s == measurement_of(trial.arch).level_s
        assert trial.predicted_s == pytest.approx(0.95 * true_latency_s(trial.arch))
        assert trial.verdict == "clean"
    best = front_indices(
        [t.latency_s for t in result.finalists], [t.accuracy_pct for t in result.finalists]
    )
    assert result.front == tuple(result.finalists[i] for i in best)
    assert {t.latency_source for t in result.trials} == {"predicted"}


def test_a_finalist_that_fails_is_a_state_and_not_on_the_front() -> None:
    def measure(archs: Sequence[Architecture]) -> list[Result]:
        return [failure(archs[0]), *(measurement_of(a) for a in archs[1:-1])]

    result = search(measure=measure, n_finalists=8)
    failed = [t for t in result.finalists if t.state != "done"]
    assert [t.state for t in failed] == [
        "failed: hung in burst: no answer for 120 s",
        "failed: the device gave no result",
    ]
    assert {t.latency_source for t in failed} == {"predicted"}
    assert {t.latency_source for t in result.front} == {"measured"}
    assert not {t.arch for t in failed} & {t.arch for t in result.front}
    assert result.ledger["measured"] == len(result.finalists) - 2
    assert Trial.from_row(json.loads(json.dumps(failed[0].to_row()))) == failed[0]


def test_a_device_that_measures_nothing_is_an_error() -> None:
    with pytest.raises(DeviceError, match=r"none of the \d+ finalists.*hung"):
        search(measure=lambda archs: [failure(a) for a in archs])


def test_what_cannot_be_judged_has_a_reason_and_no_number(tmp_path: Path) -> None:
    def patchy(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
        for arch in archs:
            if code_of(arch) % 5 == 0:
                raise DataError(f"no latency for {arch.arch_id}")
        return [(math.nan if code_of(a) % 5 == 1 else true_latency_s(a), 0.0) for a in archs]

    accuracy = FakeAccuracy(blind=lambda arch: code_of(arch) % 3 == 0)
    result = search(latency=patchy, accuracy=accuracy, folder=tmp_path)
    refused = [e for e in events(tmp_path) if e["event"] == "ArchRefused"]
    reasons = {(e["stage"], e["reason"].split(" is ")[0].split(" has ")[0][:14]) for e in refused}
    assert reasons == {
        ("latency", "no latency for"),
        ("latency", "the predicted "),
        ("accuracy", "fake"),
    }
    assert all(code_of(t.arch) % 5 > 1 and code_of(t.arch) % 3 for t in result.trials)
    assert result.ledger["refused"] == len(refused)
    assert result.ledger["proposals"] == len(refused) + len(result.trials)
    # Only what reached the accuracy source is charged, whether it was scored or not.
    assert result.ledger["evaluations"] == len(accuracy.asked) == 60


def test_nothing_to_judge_is_an_error_that_says_why() -> None:
    with pytest.raises(DataError, match="the first: fake has no accuracy for mobile-mini@"):
        search(accuracy=FakeAccuracy(blind=lambda arch: True), max_evals=16)
    with pytest.raises(DataError, match="give the search more time"):
        search(max_time_s=0.0)


@pytest.mark.parametrize("name_of_count", ["max_evals", "n_finalists"])
def test_counts_below_one_are_refused(name_of_count: str) -> None:
    with pytest.raises(PlanError, match=f"{name_of_count} is 0; expected at least 1"):
        run_search(
            SPACE,
            make_strategy("random", SPACE, np.random.default_rng(0)),
            accuracy=FakeAccuracy(),
            latency=predicted,
            **{"max_evals": 1, "n_finalists": 1, name_of_count: 0},  # type: ignore[arg-type]
        )


def test_networks_surely_over_the_target_cost_no_evaluation(name: str) -> None:
    target_s = float(np.quantile([t.latency_s for t in search("random").trials], 0.25))
    accuracy = FakeAccuracy()
    result = search(name, accuracy=accuracy, target_s=target_s, measure=measure_all)
    assert len(accuracy.asked) == 60
    # One that foresees latencies does not even propose them.
    foresees = isinstance(make_strategy(name, SPACE, np.random.default_rng(0)), UsesForesight)
    assert (result.ledger["refused"] == 0) is foresees
    assert all(0.85 * true_latency_s(a) <= target_s for a in accuracy.asked)
    assert result.front
    assert all(t.latency_s <= target_s for t in result.front)


def test_a_target_out_of_reach_ends_and_names_the_fastest() -> None:
    with pytest.raises(DataError, match=r"all 200 networks proposed are slower.*raise --target-ms"):
        search("random", target_s=1e-9, max_evals=200 // PROPOSALS_PER_EVALUATION)


def test_finalists_get_test_accuracy_where_the_source_has_it() -> None:
    result = search(accuracy=FakeWithTestImages(), measure=measure_all)
    assert all(t.test_accuracy_pct == pytest.approx(t.accuracy_pct - 1.0) for t in result.finalists)
    assert all(t.test_accuracy_pct is not None for t in result.front)
    assert all(t.test_accuracy_pct is None for t in search().front)


def test_the_log_tells_the_whole_search(tmp_path: Path) -> None:
    shown: list[Progress] = []
    result = search(folder=tmp_path, measure=measure_all, progress=shown.append)
    log = events(tmp_path)
    assert [e["seq"] for e in log] == list(range(len(log)))
    assert log[0]["event"] == "SearchStarted"
    assert log[0]["request"]["space"] == "mobile-mini"
    judged = [Trial.from_row(e["trial"]) for e in log if e["event"] == "ArchEvaluated"]
    assert tuple(judged) == result.trials
    measured = [Trial.from_row(e["trial"]) for e in log if e["event"] == "FinalistMeasured"]
    assert tuple(measured) == result.finalists
    assert log[-1]["event"] == "SearchFinished"
    assert log[-1]["ledger"] == result.ledger
    assert log[-1]["n_front"] == len(result.front)
    incumbents = [e["arch_id"] for e in log if e["event"] == "IncumbentChanged"]
    best = front_indices([t.latency_s for t in judged], [t.accuracy_pct for t in judged])
    assert incumbents[0] == judged[0].arch.arch_id
    assert {judged[i].arch.arch_id for i in best} <= set(incumbents)
    assert [p.done for p in shown] == sorted(p.done for p in shown)
    assert (shown[-1].done, shown[-1].total) == (60, 60)


@pytest.mark.parametrize("dies_at", [0, 1, 30])
def test_a_killed_search_goes_on_with_the_same_result(
    name: str, dies_at: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"measure": measure_all, "n_finalists": 6}
    whole = search(name, folder=tmp_path / "whole", **options)
    accuracy = FakeAccuracy(dies_at=dies_at)
    with pytest.raises(KeyboardInterrupt):
        search(name, folder=tmp_path / "killed", accuracy=accuracy, **options)
    # What was logged after the last checkpoint, torn in the middle of a line.
    with (tmp_path / "killed" / "events.jsonl").open("a") as file:
        file.write('{"seq": 99, "event": "ArchEval')
    again = FakeAccuracy()
    result = search(name, folder=tmp_path / "killed", accuracy=again, **options)
    assert (result.trials, result.finalists, result.front) == (
        whole.trials,
        whole.finalists,
        whole.front,
    )
    assert untimed(tmp_path / "killed") == untimed(tmp_path / "whole")
    # Only what no checkpoint knew of was judged again.
    assert len(accuracy.asked) + len(again.asked) == 60


def test_a_finished_search_judges_nothing_again_and_may_be_prolonged(tmp_path: Path) -> None:
    first = search(folder=tmp_path, max_evals=50)
    accuracy = FakeAccuracy()
    assert search(folder=tmp_path, max_evals=50, accuracy=accuracy).front == first.front
    assert not accuracy.asked
    prolonged = search(folder=tmp_path, max_evals=90)
    assert prolonged.trials == search(max_evals=90).trials
    assert prolonged.ledger["wall_s"] > first.ledger["wall_s"]


def test_interrupted_while_measuring_the_finalists_stay_the_same(tmp_path: Path) -> None:
    asked: list[Sequence[Architecture]] = []

    def dies(archs: Sequence[Architecture]) -> list[Result]:
        asked.append(archs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(folder=tmp_path, measure=dies)
    result = search(folder=tmp_path, measure=measure_all)
    assert [t.arch for t in result.finalists] == list(asked[0])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"name": "random"}, "strategy"),
        ({"target_s": 1.0}, "target_s"),
        ({"accuracy": FakeAccuracy(digest="other")}, "accuracy"),
        ({"latency": lambda archs: [(1.0, 0.1) for _ in archs]}, "latency source has changed"),
    ],
)
def test_another_search_is_refused_and_leaves_the_folder_alone(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    search(folder=tmp_path, max_evals=16)
    before = (tmp_path / "checkpoint.json").read_bytes()
    with pytest.raises(IncompatibleRunError, match=named):
        search(folder=tmp_path, **{"max_evals": 32, **changes})
    assert (tmp_path / "checkpoint.json").read_bytes() == before


def test_a_damaged_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    search(folder=tmp_path, max_evals=16)
    path = tmp_path / "checkpoint.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "format": 2}))
    with pytest.raises(FormatVersionError, match="format 2"):
        search(folder=tmp_path, max_evals=16)
    for damaged in (json.dumps(known)[:100], "[]"):
        path.write_text(damaged)
        with pytest.raises(StoreError, match="damaged"):
            search(folder=tmp_path, max_evals=16)
    path.write_text(json.dumps(known))
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(StoreError, match="ends too early"):
        search(folder=tmp_path, max_evals=16)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_the_search_goes_on(tmp_path: Path) -> None:
    search(folder=tmp_path, max_evals=16)
    full = tmp_path / ".checkpoint.json.partial"
    full.symlink_to("/dev/full")
    with pytest.raises(StoreError, match="No space left on device; free some space") as caught:
        search(folder=tmp_path, max_evals=32)
    assert "\n" not in str(caught.value)
    again, whole = search(folder=tmp_path, max_evals=32), search(max_evals=32)
    assert [t.arch for t in again.trials] == [t.arch for t in whole.trials]


def test_two_searches_do_not_write_in_one_folder(tmp_path: Path) -> None:
    def nested(archs: Sequence[Architecture]) -> list[Result]:
        search(folder=tmp_path, max_evals=16)
        return []

    with pytest.raises(StoreError, match="another search is writing"):
        search(folder=tmp_path, max_evals=16, measure=nested)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/run"):
        search(folder=tmp_path / "file" / "run")


def test_a_search_that_finds_nothing_new_does_not_claim_to_have_seen_all() -> None:
    """Of the rarest networks of a space 200 draws may miss every one."""
    few = SPACE.restrict({s: SPACE.choices(s)[:1] for s in SPACE.slots})
    strategy = make_strategy("random", few, np.random.default_rng(0))
    result = run_search(few, strategy, accuracy=FakeAccuracy(), latency=predicted, max_evals=10_000)
    assert result.settings["ended_by"] == "no new networks"


def test_time_ends_a_search_at_the_next_request() -> None:
    result = search("random", max_evals=10**6, max_time_s=0.05)
    assert result.settings["ended_by"] == "time"
    assert 0 < len(result.trials) < 10**6
