"""A sweep of ProxylessNAS searches: its front, its targets, the same from Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hwprof.api import ProxylessOptions, export
from hwprof.api.courses import read_courses
from hwprof.api.searching import load_search, search
from hwprof.errors import DataError, IncompatibleRunError, PlanError
from hwprof.search.events import ChoicesUpdated
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.proxyless import front
from hwprof.search.proxyless.front import Sweep, names_of, search_front
from tests.made import block_table
from tests.search.kills import CONFIG, Killed, assert_same, killed_after, predictions

pytestmark = pytest.mark.usefixtures("small_and_quick")


class TestSweep:
    def test_one_search_for_each_weight_or_each_target(self):
        weights = Sweep(weights=(0.0, 0.3)).penalties(0.004)
        assert [(p.kind, p.weight, p.target_s) for p in weights] == [
            ("linear", 0.0, 0.004),
            ("linear", 0.3, 0.004),
        ]
        targets = Sweep(targets_s=(0.002, 0.003)).penalties(0.004)
        assert [(p.kind, p.target_s) for p in targets] == [("target", 0.002), ("target", 0.003)]
        ceilings = Sweep(kind="hinge", targets_s=(0.002, 0.003)).penalties(0.004)
        assert [(p.kind, p.weight) for p in ceilings] == [("hinge", 1.0), ("hinge", 1.0)]

    def test_both_at_once_and_the_same_twice_are_refused(self):
        with pytest.raises(PlanError, match="sweep one of the two"):
            Sweep(weights=(0.1, 0.2), targets_s=(0.1, 0.2)).penalties(0.1)
        with pytest.raises(PlanError, match="twice"):
            Sweep(weights=(0.1, 0.1)).penalties(0.1)

    def test_two_searches_of_one_file_name_are_refused(self):
        near = Sweep(targets_s=(0.00200001, 0.00200002)).penalties(0.1)
        with pytest.raises(PlanError, match="name them further apart"):
            names_of(CONFIG, near)
        apart = Sweep(kind="hinge", targets_s=(0.002, 0.003)).penalties(0.1)
        assert names_of(CONFIG, apart) == ("recompute-hinge-w1-t2ms", "recompute-hinge-w1-t3ms")

    def test_ends_in_a_front_with_its_course_in_the_log(self, space, task, model, warmup, tmp_path):
        def run(weights=(0.0, 5.0)):
            return search_front(
                space,
                task,
                model,
                replace(CONFIG, epochs=2),
                Sweep(weights=weights),
                latency=predictions(model),
                folder=tmp_path,
                warmup=warmup,
            )

        result = run()
        assert (result.strategy, result.confirmed) == ("proxyless", False)
        assert {t.accuracy_source for t in result.trials} == {"proxyless:supernet"}
        assert result.ledger["training_s"] > 0.0
        events = [
            json.loads(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()
        ]
        course = [ChoicesUpdated.from_json(e) for e in events if e["event"] == "ChoicesUpdated"]
        assert len({c.search for c in course}) == 2
        assert len(course) == 4
        derived = [e for e in events if e["event"] == "NetworkDerived"]
        for event in derived:
            assert (tmp_path / event["checkpoint"]).is_file()
        # Called again, nothing is trained or judged anew.
        assert run().front == result.front
        # Another sweep does not belong here, which is said before it is trained.
        with pytest.raises(IncompatibleRunError, match="holds a search with settings"):
            run(weights=(0.0, 5.0, 7.0))
        assert not list((tmp_path / "training").glob("*-w7-*"))

    def test_retrains_the_derived_networks(self, space, task, model, warmup, tmp_path):
        result = search_front(
            space,
            task,
            model,
            replace(CONFIG, epochs=2),
            Sweep(weights=(0.1,)),
            latency=predictions(model),
            folder=tmp_path,
            warmup=warmup,
            retrain_epochs=1,
        )
        (trial,) = result.trials
        assert trial.accuracy_source == "proxyless:retrained 1 epochs"
        saved = load_checkpoint(tmp_path / "training" / f"network-{trial.arch.arch_id}.pt")
        assert saved.meta.settings["lr"] == 0.05
        assert saved.meta.figures is not None
        assert saved.meta.figures["validation_pct"] == trial.accuracy_pct


class TestFromPython:
    OPTIONS = ProxylessOptions(
        latency_weights=(0.0, 2.0),
        warmup_epochs=1,
        epochs=2,
        train_batch=12,
        alpha_lr=0.05,
        limit_images=80,
    )

    def test_measures_its_finalists_as_every_strategy_does(self, space, tmp_path: Path):
        script = json.dumps({"latency": {"base_s": 1e-3, "per_mac_s": 1e-9}})
        out = tmp_path / "out"
        result = search(
            space=space,
            latency=block_table(tmp_path / "table.csv"),
            strategy="proxyless",
            measure_on="null",
            script=script,
            proxyless=self.OPTIONS,
            out=out,
        )
        assert result.confirmed
        assert all(t.latency_source == "measured" for t in result.front)
        assert load_search(out).front == result.front
        (best, *_) = result.front
        checkpoint = next((out / "training").glob("recompute-*.pt"))
        for form in ("onnx", "torch"):
            assert export(best.arch, tmp_path / f"n.{form}", format=form, checkpoint=checkpoint)

    def test_a_table_that_lacks_a_block_is_refused_by_its_name(self, space, tmp_path: Path):
        table = block_table(tmp_path / "table.csv", without="mbconv_k5_e3")
        with pytest.raises(DataError, match=r"first mbconv_k5_e3 at u0\.l0"):
            search(
                space=space,
                latency=table,
                strategy="proxyless",
                proxyless=self.OPTIONS,
                out=tmp_path / "out",
            )

    def test_accuracies_that_are_named_are_refused_or_missed(self, space, tmp_path: Path):
        table = block_table(tmp_path / "table.csv")
        common = {"space": space, "latency": table, "out": tmp_path / "out"}
        with pytest.raises(PlanError, match="means nothing to proxyless"):
            search(**common, strategy="proxyless", accuracy="table:a.csv")
        with pytest.raises(PlanError, match="random needs accuracies"):
            # As the command line calls it: options of proxyless that nobody named.
            search(**common, strategy="random", proxyless=ProxylessOptions())
        assert not (tmp_path / "out").exists()

    def test_targets_are_ceilings_only_under_a_hinge(self, space, tmp_path: Path, monkeypatch):
        sweeps: list[Sweep] = []

        def stop(space, task, model, config, sweep, **more):
            sweeps.append(sweep)
            raise Killed

        monkeypatch.setattr(front, "search_front", stop)
        table = block_table(tmp_path / "table.csv")
        for number, options in enumerate(
            (
                replace(self.OPTIONS, latency_weights=(), targets_ms=(5.0,)),
                replace(self.OPTIONS, latency_weights=(0.5, 2.0), targets_ms=(5.0,)),
                replace(self.OPTIONS, latency_weights=(), targets_ms=(5.0,), penalty="hinge"),
                replace(self.OPTIONS, latency_weights=(), targets_ms=(5.0, 6.0), penalty="power"),
            )
        ):
            with pytest.raises(Killed):
                search(
                    space=space,
                    latency=table,
                    strategy="proxyless",
                    proxyless=options,
                    out=tmp_path / f"out{number}",
                )
        found = [[(p.kind, p.weight, p.target_s) for p in s.penalties(0.1)] for s in sweeps]
        assert found == [
            [("target", 0.0, 0.005)],
            [("linear", 0.5, 0.005), ("linear", 2.0, 0.005)],
            [("hinge", 1.0, 0.005)],
            [("power", 1.0, 0.005), ("power", 1.0, 0.006)],
        ]

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ({"target_ms": 0.0}, "--target-ms is 0; expected a latency above 0 ms"),
            ({"target_ms": float("nan")}, "--target-ms is nan"),
            (
                {"strategy": "nsga2", "accuracy": "proxy:macs", "target_ms": -1.0},
                "--target-ms is -1",
            ),
            ({"max_time_s": 60.0}, "--max-time means nothing to proxyless"),
            ({"strategy": "proxylss"}, "unknown strategy 'proxylss'; did you mean 'proxyless'"),
            ({"batch": 8}, "--batch 8: options of a device, and none is named"),
            (
                {
                    "strategy": "nsga2",
                    "accuracy": "proxy:macs",
                    "preset": "strict",
                    "n_finalists": 3,
                },
                "--preset strict, --finalists 3: options of a device, and none is named",
            ),
            (
                {
                    "strategy": "nsga2",
                    "proxyless": ProxylessOptions(mode="two-path", targets_ms=(2.0,)),
                },
                r"options of proxyless \(--mode, --targets-ms\) mean nothing to nsga2",
            ),
        ],
    )
    def test_options_that_would_be_ignored_are_refused(
        self, asked, message: str, space, tmp_path: Path
    ):
        out = tmp_path / "out"
        common = {"space": space, "latency": "run", "out": out, "strategy": "proxyless"}
        with pytest.raises(PlanError, match=message):
            search(**{**common, **asked})
        assert not out.exists()

    def test_without_data_it_says_where_it_looked(self, space, tmp_path: Path):
        with pytest.raises(DataError, match="does not exist"):
            search(
                space=space,
                latency=block_table(tmp_path / "table.csv"),
                strategy="proxyless",
                data=str(tmp_path / "nowhere"),
                out=tmp_path / "out",
            )


def test_the_course_is_read_back_from_the_log(space, task, model, warmup, tmp_path: Path):
    result = search_front(
        space,
        task,
        model,
        replace(CONFIG, epochs=2),
        Sweep(weights=(0.0, 5.0)),
        latency=predictions(model),
        folder=tmp_path,
        warmup=warmup,
    )
    courses = read_courses(tmp_path, result)
    assert [len(c.points) for c in courses] == [2, 2]
    for course in courses:
        assert course.measured_s is None
        assert course.arch in {t.arch for t in result.trials}
        assert course.points[-1].argmax_s == model.predict_s(course.arch)[0]


def test_killed_in_any_phase_a_sweep_comes_to_the_same(
    space, task, model, tmp_path: Path, monkeypatch
):
    """Warm-up, first search, second search, retraining: the phases of a sweep, in turn."""

    def run(folder: Path):
        return search_front(
            space,
            task,
            model,
            replace(CONFIG, epochs=2),
            Sweep(weights=(0.0, 5.0)),
            latency=predictions(model),
            folder=folder,
            retrain_epochs=1,
        )

    whole = run(tmp_path / "whole")
    per_epoch = len(task.train) // CONFIG.batch
    kills = 0
    for _ in range(20):
        with monkeypatch.context() as patch:
            # No phase has fewer than per_epoch steps: some kill falls into each of them.
            killed_after(per_epoch // 2 + 1, patch)
            try:
                broken = run(tmp_path / "broken")
                break
            except Killed:
                kills += 1
    assert kills >= 3
    assert broken.front == whole.front
    assert broken.trials == whole.trials
    for path in sorted((tmp_path / "whole" / "training").glob("recompute-*.pt")):
        assert_same(path, tmp_path / "broken" / "training" / path.name)
