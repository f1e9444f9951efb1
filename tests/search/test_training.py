"""Training: resumable to the bit, honest when stopped early, loud when it diverges."""

from __future__ import annotations

import math
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hwprof.api import train
from hwprof.errors import (
    DataError,
    DeviceUnavailableError,
    IncompatibleRunError,
    MissingExtraError,
    SpaceError,
    StoreError,
)
from hwprof.progress import Progress
from hwprof.search.data.tasks import DIGITS, load_task
from hwprof.search.learning import sgd
from hwprof.search.learning.checkpoint import load_checkpoint, only_writer
from hwprof.search.learning.sgd import TrainSettings
from hwprof.search.learning.training import default_settings, train_network, train_supernet
from hwprof.space import Architecture, Slot, get_space
from tests.search.kills import Killed, assert_same_weights, killed_after, weights
from tests.search.mini import FEW

pytestmark = pytest.mark.usefixtures("small_and_quick")

ARCH = Architecture(
    space="mobile-mini",
    resolution_px=32,
    units=(("mbconv_k3_e3",), ("mbconv_k5_e3",), ("mbconv_k3_e3",)),
)


SETTINGS = TrainSettings(epochs=3, batch=16, lr=0.05, warmup_epochs=1.0, seed=5)


class TestSupernetTraining:
    @pytest.mark.parametrize("steps", [2, 5])
    def test_interrupted_and_gone_on_with_it_ends_bit_equal(
        self, steps: int, space, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
        first = train_supernet(space, task, SETTINGS, whole)
        with monkeypatch.context() as patch:
            killed_after(steps, patch)
            with pytest.raises(Killed):
                train_supernet(space, task, SETTINGS, broken)
        assert load_checkpoint(broken).meta.step == steps
        second = train_supernet(space, task, SETTINGS, broken)
        assert_same_weights(whole, broken)
        assert second.meta.figures == first.meta.figures
        assert second.meta.loss == first.meta.loss

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_between_steps_with_all_of_them_saved(
        self, number: int, space, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
    ):
        ordinary = sgd.Training._step

        def step(self, batch):
            if self.meta.step == 2:
                signal.raise_signal(number)
            ordinary(self, batch)

        def end(number: int, frame: object) -> None:
            raise Killed

        monkeypatch.setattr(sgd.Training, "_step", step)
        monkeypatch.setattr(sgd, "CHECKPOINT_INTERVAL_S", math.inf)
        path, before = tmp_path / "s.pt", signal.signal(number, end)
        try:
            with pytest.raises(Killed):
                train_supernet(space, task, SETTINGS, path)
            assert signal.getsignal(number) is end
        finally:
            signal.signal(number, before)
        assert load_checkpoint(path).meta.step == 3
        assert f"the checkpoint of step 3 in {str(path)!r} is written" in caplog.text

    def test_the_seed_decides(self, space, task, tmp_path: Path):
        paths = [tmp_path / f"{i}.pt" for i in range(3)]
        for path, seed in zip(paths, (5, 5, 6), strict=True):
            train_supernet(space, task, replace(SETTINGS, epochs=1, seed=seed), path)
        assert_same_weights(paths[0], paths[1])
        name = "head.head.classifier.weight"
        assert not torch.equal(weights(paths[0])[name], weights(paths[2])[name])

    def test_a_finished_one_is_returned_as_it_is(self, space, task, tmp_path: Path):
        path = tmp_path / "s.pt"
        first = train_supernet(space, task, replace(SETTINGS, epochs=1), path)
        content = path.read_bytes()
        again = train_supernet(space, task, replace(SETTINGS, epochs=1), path)
        assert path.read_bytes() == content
        assert again.to_json() == first.to_json()

    def test_learns(self, space, task, tmp_path: Path):
        before = train_supernet(space, task, replace(SETTINGS, epochs=1), tmp_path / "a.pt")
        after = train_supernet(space, task, replace(SETTINGS, epochs=25, lr=0.2), tmp_path / "b.pt")
        assert after.meta.figures is not None
        assert before.meta.figures is not None
        # Chance is 10 %.
        assert after.meta.figures["mean_pct"] > max(30.0, before.meta.figures["mean_pct"])
        assert after.meta.loss is not None
        assert after.meta.loss < math.log(10)

    def test_figures_are_told(self, space, task, tmp_path: Path):
        summary = train_supernet(space, task, replace(SETTINGS, epochs=1), tmp_path / "s.pt")
        told = summary.to_json()
        assert told["min_pct"] <= told["mean_pct"] <= told["max_pct"]
        assert {"smallest_network_pct", "largest_network_pct", "sd_pct", "n_networks"} < set(told)
        assert told["finished"]
        assert told["lr"] == 0.05
        assert (told["steps_done"], told["steps"]) == (3, 3)
        assert (told["space"], told["kind"], told["task"]) == ("mobile-mini", "supernet", "digits")

    def test_progress_rises_to_the_end(
        self, space, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(sgd, "PROGRESS_INTERVAL_S", 0.0)
        events: list[Progress] = []
        train_supernet(space, task, SETTINGS, tmp_path / "s.pt", progress=events.append)
        done = [e.done for e in events if e.stage == "training"]
        assert done == sorted(done)
        assert done[-1] == events[0].total == 9
        assert "epoch 1 of 3, loss" in events[0].label

    def test_time_that_runs_out_ends_a_whole_epoch_and_says_so(
        self, space, task, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        short, whole = tmp_path / "short.pt", tmp_path / "whole.pt"
        hurried = replace(SETTINGS, max_time_s=0.0)
        summary = train_supernet(space, task, hurried, short)
        assert not summary.finished
        assert (summary.meta.step, summary.meta.n_steps) == (3, 9)
        assert "stopped after 1 of 3 epochs" in caplog.text
        # Given time, it comes to what it would have come to at once.
        train_supernet(space, task, SETTINGS, short)
        train_supernet(space, task, SETTINGS, whole)
        assert_same_weights(short, whole)

    def test_divergence_names_the_step_and_keeps_the_last_checkpoint(
        self, space, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(sgd, "CHECKPOINT_INTERVAL_S", 0.0)
        wild = replace(SETTINGS, lr=1e30, warmup_epochs=0.0, max_gradient=1e30)
        path = tmp_path / "s.pt"
        with pytest.raises(
            DataError,
            match=r"step \d+ \(epoch \d of 3\).*step \d+ in .* is kept; .* another --seed or more",
        ):
            train_supernet(space, task, wild, path)
        assert not load_checkpoint(path).meta.finished

    def test_divergence_at_once(self, space, task, tmp_path: Path):
        wild = replace(SETTINGS, lr=1e30, warmup_epochs=0.0, max_gradient=1e30)
        with pytest.raises(DataError, match="no checkpoint was written yet"):
            train_supernet(space, task, wild, tmp_path / "s.pt")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"lr": 0.06}, r"lr 0\.05, not 0\.06"),
            ({"epochs": 4}, "epochs 3, not 4"),
            ({"seed": 6}, "seed 5, not 6"),
        ],
    )
    def test_other_settings_are_another_training(
        self, change, message, space, task, tmp_path: Path
    ):
        path = tmp_path / "s.pt"
        train_supernet(space, task, replace(SETTINGS, max_time_s=0.0), path)
        with pytest.raises(IncompatibleRunError, match=message):
            train_supernet(space, task, replace(SETTINGS, **change), path)

    def test_one_in_16_bits_is_not_gone_on_with_in_32(self, space, task, tmp_path: Path):
        path = tmp_path / "s.pt"
        train_supernet(space, task, replace(SETTINGS, max_time_s=0.0, precision="bf16"), path)
        with pytest.raises(IncompatibleRunError, match="precision 'bf16', not 'fp32'"):
            train_supernet(space, task, SETTINGS, path)

    def test_another_space_is_another_training(self, space, task, tmp_path: Path):
        path = tmp_path / "s.pt"
        train_supernet(space, task, replace(SETTINGS, epochs=1), path)
        settings = replace(SETTINGS, epochs=1)
        with pytest.raises(IncompatibleRunError, match="other candidates"):
            train_supernet(space.restrict({Slot(0, 0): FEW[Slot(0, 0)][:1]}), task, settings, path)
        with pytest.raises(IncompatibleRunError, match="kind 'supernet', not 'network'"):
            train_network(ARCH, task, settings, path)
        other = load_task(DIGITS, resolution_px=32, limit_images=70)
        with pytest.raises(IncompatibleRunError, match="images"):
            train_supernet(space, other, settings, path)

    def test_images_of_another_size(self, space, tmp_path: Path):
        task = load_task(DIGITS, resolution_px=16, limit_images=80)
        with pytest.raises(DataError, match="16 px; expected 32 px"):
            train_supernet(space, task, SETTINGS, tmp_path / "s.pt")

    def test_no_folder_to_write_into(self, space, task, tmp_path: Path):
        with pytest.raises(StoreError, match="cannot write the checkpoint"):
            train_supernet(space, task, replace(SETTINGS, epochs=1), tmp_path / "no" / "s.pt")
        assert not (tmp_path / "no").exists()

    def test_a_second_training_into_it_is_refused_while_one_runs(self, space, task, tmp_path: Path):
        path, settings = tmp_path / "s.pt", replace(SETTINGS, epochs=1)
        with only_writer(path), pytest.raises(StoreError, match="another training is writing"):
            train_supernet(space, task, settings, path)
        assert not path.exists()
        assert train_supernet(space, task, settings, path).finished
        # What is finished is not written again.
        with only_writer(path):
            assert train_supernet(space, task, settings, path).finished

    def test_a_gpu_that_is_not_there_is_named(
        self, space, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(DeviceUnavailableError, match="'cuda:1': torch sees 1 CUDA devices"):
            train_supernet(space, task, replace(SETTINGS, device="cuda:1"), tmp_path / "s.pt")

    def test_a_space_without_supernet(self, task, tmp_path: Path):
        with pytest.raises(SpaceError, match="has no supernet"):
            train_supernet(get_space("nasbench201"), task, SETTINGS, tmp_path / "s.pt")


class TestNetworkTraining:
    def test_accuracies_are_kept_and_resuming_is_bit_equal(
        self, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
        first = train_network(ARCH, task, SETTINGS, whole)
        with monkeypatch.context() as patch:
            killed_after(4, patch)
            with pytest.raises(Killed):
                train_network(ARCH, task, SETTINGS, broken)
        train_network(ARCH, task, SETTINGS, broken)
        assert_same_weights(whole, broken)
        assert first.meta.figures is not None
        assert set(first.meta.figures) == {"validation_pct", "test_pct"}
        assert load_checkpoint(whole).meta.arch == ARCH.to_json()

    def test_a_cell_can_be_trained_too(self, tmp_path: Path):
        arch = get_space("nasbench201").sample(np.random.default_rng(0))
        task = load_task(DIGITS, resolution_px=32, limit_images=20)
        settings = replace(SETTINGS, epochs=1, batch=4)
        assert train_network(arch, task, settings, tmp_path / "n.pt").finished


class TestFromPython:
    def test_a_network_is_trained_at_its_own_resolution(self, tmp_path: Path):
        images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
        np.savez(tmp_path / "d.npz", images=images, labels=np.arange(40) % 4)
        small = replace(ARCH, resolution_px=16)
        summary = train(out=tmp_path / "n.pt", arch=small, data=str(tmp_path / "d.npz"), epochs=1)
        assert summary.finished
        assert summary.meta.arch == small.to_json()
        assert summary.meta.space["resolution_px"] == 16

    def test_without_torch_the_missing_package_is_named(self, tmp_path: Path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.delitem(sys.modules, "hwprof.search.learning.training")
        with pytest.raises(MissingExtraError, match=r"training needs .*'hwprof\[search\]'"):
            train(out=tmp_path / "n.pt", arch=ARCH)


class TestSchedule:
    def test_rises_then_falls_to_nothing(self):
        settings = TrainSettings(epochs=10, lr=0.4, warmup_epochs=2.0)
        rates = [settings.lr_at(step, 5) for step in range(50)]
        assert rates[:10] == pytest.approx(np.arange(1, 11) * 0.04)
        assert rates[10] == pytest.approx(0.4)
        assert rates[30] == pytest.approx(0.2)
        assert rates[-1] < 0.001
        assert np.all(np.diff(rates[10:]) <= 0)

    def test_defaults_give_40_epochs_of_digits(self):
        task = load_task(DIGITS, resolution_px=8)
        settings = default_settings(task)
        assert settings.batch == 64
        assert settings.epochs == 40
        assert default_settings(task, epochs=3, seed=4).epochs == 3

    def test_few_images_make_a_smaller_batch(self):
        task = load_task(DIGITS, resolution_px=8, limit_images=30)
        assert default_settings(task).batch == len(task.train) == 18
