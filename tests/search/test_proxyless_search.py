"""A whole ProxylessNAS search: resumable to the bit, loud when it fails, a front at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hwprof.errors import DataError, DeviceUnavailableError, IncompatibleRunError, PlanError
from hwprof.search.data.image_files import Split
from hwprof.search.data.tasks import DIGITS, load_task
from hwprof.search.learning import sgd
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.learning.mixed_precision import Precision, require_precision
from hwprof.search.learning.training import train_supernet
from hwprof.search.proxyless import steps
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.front import Sweep, search_front
from hwprof.search.proxyless.search import (
    COURSE_IMAGES,
    Derived,
    course_images,
    search_network,
    warmup_settings,
)
from hwprof.search.proxyless.steps import MODES, ArchitectureSteps, Mode, StepOutcome
from hwprof.search.scoring.supernet_accuracy import SupernetAccuracy
from tests.search.kills import CONFIG, PENALTY, Killed, assert_same, killed_after, predictions

pytestmark = pytest.mark.usefixtures("small_and_quick")


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

        monkeypatch.setitem(steps._STEPS, "recompute", step)
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
