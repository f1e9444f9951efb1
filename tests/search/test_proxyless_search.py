"""A whole ProxylessNAS search: resumable to the bit, loud when it fails, a front at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hwprof.api import ProxylessOptions, export
from hwprof.api.courses import read_courses
from hwprof.api.searching import load_search, search
from hwprof.errors import DataError, DeviceUnavailableError, IncompatibleRunError, PlanError
from hwprof.estimate.block_table import table_model
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.search import proxyless, proxyless_front, sgd, training
from hwprof.search.checkpoint import load_checkpoint
from hwprof.search.events import ChoicesUpdated
from hwprof.search.expected_latency import ExpectedLatency
from hwprof.search.mixed_precision import Precision, require_precision
from hwprof.search.penalties import Penalty
from hwprof.search.proxyless import MODES, ArchitectureSteps, Mode, ProxylessConfig, StepOutcome
from hwprof.search.proxyless_front import Sweep, names_of, search_front
from hwprof.search.proxyless_search import (
    COURSE_IMAGES,
    Derived,
    course_images,
    search_network,
    warmup_settings,
)
from hwprof.search.supernet_accuracy import SupernetAccuracy
from hwprof.search.tasks import DIGITS, ImageTask, Split, load_task
from hwprof.search.training import train_supernet
from hwprof.space import Architecture, DesignSpace, get_space
from hwprof.store import ImportedBlock

WHOLE = get_space("mobile-mini")
CONFIG = ProxylessConfig(
    warmup_epochs=1, epochs=4, batch=12, alpha_lr=0.05, networks_per_update=3, alpha_every=2, seed=3
)
PENALTY = Penalty(weight=0.1, target_s=0.002)


@pytest.fixture(scope="module", autouse=True)
def small_and_quick() -> Iterator[None]:
    # Tiny tensors: threads would only wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "JUDGED_NETWORKS", 2)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return load_task(DIGITS, resolution_px=32, limit_images=80)


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    kept = dict.fromkeys(WHOLE.slots, ("mbconv_k3_e3", "mbconv_k5_e3"))
    return WHOLE.restrict(kept, (2, 1, 1))


@pytest.fixture(scope="module")
def model() -> AdditiveLatencyModel:
    """A table of the whole space: later candidates cost more."""
    places = [(None, None, "fixed", 0.4e-3)] + [
        (slot.unit, slot.layer, block, (0.1 + 0.05 * i) * 1e-3)
        for slot in WHOLE.slots
        for i, block in enumerate(WHOLE.choices(slot))
    ]
    return table_model(
        WHOLE,
        [
            ImportedBlock(
                resolution_px=32,
                unit=unit,
                layer=layer,
                block=block,
                latency_s=latency_s,
                sd_s=None,
                count=None,
            )
            for unit, layer, block, latency_s in places
        ],
    )


@pytest.fixture(scope="module")
def warmup(space: DesignSpace, task: ImageTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("warm") / "warmup.pt"
    train_supernet(space, task, warmup_settings(CONFIG, task), out)
    return out


class Killed(BaseException):
    """Stands for the process being ended in the middle of a step."""


def killed_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """End training in the step after ``steps``; every step is checkpointed."""
    patch.setattr(sgd, "CHECKPOINT_INTERVAL_S", 0.0)
    ordinary, count = sgd.Training._step, iter(range(steps))

    def step(self, batch):
        if next(count, None) is None:
            raise Killed
        ordinary(self, batch)

    patch.setattr(sgd.Training, "_step", step)


def assert_same(a: Path, b: Path) -> None:
    first, second = load_checkpoint(a), load_checkpoint(b)
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[name]), name
    assert first.companion is not None
    assert second.companion is not None
    for name, alpha in first.companion["alpha"].items():
        assert torch.equal(alpha, second.companion["alpha"][name]), name
    assert first.companion["course"] == second.companion["course"]
    assert first.companion["baseline"] == second.companion["baseline"]


class TestOneSearch:
    @pytest.mark.parametrize("mode", MODES)
    def test_killed_and_gone_on_with_it_ends_bit_equal(
        self, mode: Mode, space, task, model, warmup, tmp_path: Path, monkeypatch
    ):
        """2N steps equal N, kill, resume, N; N in the middle of an epoch of both kinds of step."""
        config = replace(CONFIG, mode=mode)
        latency = ExpectedLatency(model, space)
        whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"

        def run(out: Path) -> Derived:
            return search_network(space, task, latency, PENALTY, config, warmup=warmup, out=out)

        first = run(whole)
        with monkeypatch.context() as patch:
            killed_after(first.course[-1].step // 2 + 1, patch)
            with pytest.raises(Killed):
                run(broken)
        assert load_checkpoint(broken).meta.step == first.course[-1].step // 2 + 1
        second = run(broken)
        assert_same(whole, broken)
        assert replace(second, checkpoint=whole, seconds=0.0) == replace(first, seconds=0.0)
        space.validate(first.arch)

    def test_weights_and_choices_both_learn(self, space, task, model, warmup, tmp_path: Path):
        out = tmp_path / "s.pt"
        latency = ExpectedLatency(model, space)
        found = search_network(space, task, latency, PENALTY, CONFIG, warmup=warmup, out=out)
        assert [e.epoch for e in found.course] == [1, 2, 3, 4]
        # No architecture step in the first epoch, and steps in the others.
        assert found.course[0].loss is None
        assert all(e.loss is not None for e in found.course[1:])
        before = found.course[0].entropy_nat
        assert any(found.course[-1].entropy_nat[name] < before[name] for name in before)
        warm = load_checkpoint(warmup).weights
        assert any(
            not torch.equal(tensor, warm[name])
            for name, tensor in load_checkpoint(out).weights.items()
        )
        assert found.arch == found.course[-1].argmax
        # The checkpoint is a supernet that every other command reads.
        accuracy = SupernetAccuracy.open(out)
        assert accuracy.score([found.arch]) == [found.validation_pct]
        assert accuracy.test_score([found.arch]) == [found.test_pct]

    def test_blind_to_latency_differs_from_pressed(self, space, task, model, warmup, tmp_path):
        latency = ExpectedLatency(model, space)
        config = replace(CONFIG, alpha_lr=0.5, epochs=6)
        expected = []
        for weight in (0.0, 50.0):
            found = search_network(
                space,
                task,
                latency,
                replace(PENALTY, weight=weight),
                config,
                warmup=warmup,
                out=tmp_path / f"{weight}.pt",
            )
            expected.append(found.course[-1].expected_s)
        assert expected[1] < expected[0]

    @pytest.mark.parametrize("where", ["loss", "logits"])
    def test_what_is_no_number_ends_it_and_the_last_checkpoint_is_kept(
        self, where: str, space, task, model, warmup, tmp_path: Path, monkeypatch
    ):
        monkeypatch.setattr(sgd, "CHECKPOINT_INTERVAL_S", 0.0)
        ordinary, count = ArchitectureSteps._recompute, iter(range(2))

        def step(self: ArchitectureSteps, batch, rng) -> StepOutcome:
            outcome = ordinary(self, batch, rng)
            if next(count, None) is not None:
                return outcome
            if where == "loss":
                return replace(outcome, loss=float("inf"))
            with torch.no_grad():
                next(iter(self.choices.alpha.values())).fill_(float("nan"))
            return outcome

        monkeypatch.setitem(proxyless._STEPS, "recompute", step)
        out = tmp_path / "s.pt"
        latency = ExpectedLatency(model, space)
        with pytest.raises(
            DataError, match=r"architecture step is (inf|nan), no number at step \d+ .*kept"
        ):
            search_network(space, task, latency, PENALTY, CONFIG, warmup=warmup, out=out)
        kept = load_checkpoint(out)
        assert kept.companion is not None
        assert all(bool(a.isfinite().all()) for a in kept.companion["alpha"].values())

    def test_a_checkpoint_of_another_space_is_refused(self, space, task, model, warmup, tmp_path):
        other = space.restrict({}, (1, 1, 1))
        latency = ExpectedLatency(model, other)
        with pytest.raises(IncompatibleRunError, match="train one of the space that is searched"):
            search_network(
                other, task, latency, PENALTY, CONFIG, warmup=warmup, out=tmp_path / "s.pt"
            )

    def test_a_warm_up_on_other_images_is_refused(self, space, model, warmup, tmp_path):
        """Their training images may be test images here."""
        other = load_task(DIGITS, resolution_px=32, limit_images=80, split_seed=1)
        latency = ExpectedLatency(model, space)
        with pytest.raises(IncompatibleRunError, match="was trained on other images"):
            search_network(
                space, other, latency, PENALTY, CONFIG, warmup=warmup, out=tmp_path / "s.pt"
            )
        assert not (tmp_path / "s.pt").exists()

    def test_an_unfinished_warm_up_warns(
        self, space, task, model, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        half = tmp_path / "half.pt"
        settings = replace(warmup_settings(CONFIG, task), epochs=2, max_time_s=0.0)
        train_supernet(space, task, settings, half)
        caplog.clear()
        search_network(
            space,
            task,
            ExpectedLatency(model, space),
            PENALTY,
            replace(CONFIG, epochs=2),
            warmup=half,
            out=tmp_path / "s.pt",
        )
        assert "half.pt is not fully trained (step 4 of 8)" in caplog.text

    def test_epochs_without_an_architecture_step_are_refused(
        self, space, task, model, warmup, tmp_path: Path
    ):
        config = replace(CONFIG, epochs=1)
        latency = ExpectedLatency(model, space)
        with pytest.raises(PlanError, match="at least 2 with --epochs"):
            search_network(
                space, task, latency, PENALTY, config, warmup=warmup, out=tmp_path / "s.pt"
            )
        with pytest.raises(PlanError, match="at least 2 with --epochs"):
            search_front(
                space,
                task,
                model,
                config,
                Sweep(),
                latency=predictions(model),
                folder=tmp_path / "front",
            )
        # Not even the warm-up was trained.
        assert not (tmp_path / "front").exists()

    def test_another_search_in_the_same_file_is_refused(self, space, task, model, warmup, tmp_path):
        out = tmp_path / "s.pt"
        latency = ExpectedLatency(model, space)
        config = replace(CONFIG, epochs=2)
        search_network(space, task, latency, PENALTY, config, warmup=warmup, out=out)
        with pytest.raises(IncompatibleRunError, match="was trained with other penalty"):
            search_network(
                space, task, latency, replace(PENALTY, weight=0.5), config, warmup=warmup, out=out
            )


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


def predictions(model: AdditiveLatencyModel):
    def predicted(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
        latency, half = model.predict_many(archs)
        return list(zip(latency.tolist(), half.tolist(), strict=True))

    return predicted


class TestFromPython:
    def table(self, path: Path, space: DesignSpace, *, without: str | None = None) -> Path:
        lines = ["resolution_px,unit,layer,block,latency_ms", "32,,,fixed,0.4"]
        for slot in WHOLE.slots:
            for i, block in enumerate(WHOLE.choices(slot)):
                if block != without:
                    lines.append(f"32,{slot.unit},{slot.layer},{block},{0.1 + 0.05 * i}")
        path.write_text("\n".join(lines))
        return path

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
            latency=self.table(tmp_path / "table.csv", space),
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
        table = self.table(tmp_path / "table.csv", space, without="mbconv_k5_e3")
        with pytest.raises(DataError, match=r"first mbconv_k5_e3 at u0\.l0"):
            search(
                space=space,
                latency=table,
                strategy="proxyless",
                proxyless=self.OPTIONS,
                out=tmp_path / "out",
            )

    def test_accuracies_that_are_named_are_refused_or_missed(self, space, tmp_path: Path):
        table = self.table(tmp_path / "table.csv", space)
        common = {"space": space, "latency": table, "out": tmp_path / "out"}
        with pytest.raises(PlanError, match="means nothing to proxyless"):
            search(**common, strategy="proxyless", accuracy="table:a.csv")
        with pytest.raises(PlanError, match="random needs accuracies"):
            # As the command line calls it: options of proxyless that nobody named.
            search(**common, strategy="random", proxyless=ProxylessOptions())

    def test_targets_are_ceilings_only_under_a_hinge(self, space, tmp_path: Path, monkeypatch):
        sweeps: list[Sweep] = []

        def stop(space, task, model, config, sweep, **more):
            sweeps.append(sweep)
            raise Killed

        monkeypatch.setattr(proxyless_front, "search_front", stop)
        table = self.table(tmp_path / "table.csv", space)
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
            ({"strategy": "nsga2", "target_ms": -1.0}, "--target-ms is -1"),
            ({"max_time_s": 60.0}, "--max-time means nothing to proxyless"),
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
                latency=self.table(tmp_path / "table.csv", space),
                strategy="proxyless",
                data=str(tmp_path / "nowhere"),
                out=tmp_path / "out",
            )


def test_the_course_is_followed_on_all_classes_alike():
    """Validation images of a folder of class folders are sorted by class."""
    labels = np.repeat(np.arange(10), 300).astype(np.int64)
    images = np.broadcast_to(np.arange(3000).reshape(-1, 1, 1, 1) % 256, (3000, 1, 1, 3))
    whole = Split(images=images.astype(np.uint8), labels=labels)
    few = course_images(whole, seed=0)
    assert len(few) == COURSE_IMAGES == 1000
    assert np.bincount(few.labels).tolist() == [100] * 10
    again = course_images(whole, seed=0)
    assert np.array_equal(few.images, again.images)
    small = Split(images=whole.images[:7], labels=labels[:7])
    assert course_images(small, seed=0) is small


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_keeps_weights_in_float32(
    precision: Precision, space, task, model, warmup, tmp_path: Path
):
    try:
        require_precision("cpu", precision)
    except DeviceUnavailableError as error:
        pytest.skip(str(error))
    config = replace(CONFIG, precision=precision, epochs=2)
    out = tmp_path / "s.pt"
    found = search_network(
        space, task, ExpectedLatency(model, space), PENALTY, config, warmup=warmup, out=out
    )
    kept = load_checkpoint(out)
    assert {t.dtype for t in kept.weights.values() if t.is_floating_point()} == {torch.float32}
    assert found.course[-1].loss is not None
    plain = search_network(
        space,
        task,
        ExpectedLatency(model, space),
        PENALTY,
        replace(config, precision="fp32"),
        warmup=warmup,
        out=tmp_path / "plain.pt",
    )
    # They have 8 and 11 bits of mantissa: near the same loss, and not the same.
    assert plain.course[-1].loss is not None
    assert found.course[-1].loss != plain.course[-1].loss
    assert found.course[-1].loss == pytest.approx(plain.course[-1].loss, rel=0.2)


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
