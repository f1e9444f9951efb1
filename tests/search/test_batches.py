"""Batches: an epoch shows every image once, and is the same when gone on with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning import parallel
from hwprof.search.learning.batches import TrainingBatches, normalised, plain_batches


class TestBatches:
    def test_an_epoch_shows_every_image_once(self, task: ImageTask):
        batches = TrainingBatches(task=task, size=8, seed=0)
        labels = torch.cat([b.labels for b in batches.epoch(0)])
        assert batches.per_epoch == 6
        assert np.array_equal(np.bincount(labels, minlength=10), np.bincount(task.train.labels))

    def test_going_on_inside_an_epoch_gives_the_same_batches(self, task: ImageTask):
        batches = TrainingBatches(task=task, size=8, seed=0)
        for late, full in zip(batches.epoch(3, first=4), list(batches.epoch(3))[4:], strict=True):
            assert torch.equal(late.images, full.images)
            assert torch.equal(late.labels, full.labels)

    def test_held_out_images_are_shared_evenly_by_any_number_of_processes(
        self, task: ImageTask, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(parallel, "world_size", lambda: 3)
        monkeypatch.setattr(parallel, "rank", lambda: 1)
        batches = TrainingBatches(task=task, size=8, seed=0)
        assert len(task.validation) == 16
        assert [len(batches.held_out(0, size).labels) for size in (10, 12, 1000)] == [3, 4, 5]

    def test_epochs_and_seeds_differ(self, task: ImageTask):
        def first(seed: int, epoch: int) -> torch.Tensor:
            return next(TrainingBatches(task=task, size=8, seed=seed).epoch(epoch)).images

        assert not torch.equal(first(0, 0), first(0, 1))
        assert not torch.equal(first(0, 0), first(1, 0))

    def test_normalised_is_standard_and_channels_last(self, task: ImageTask):
        images = normalised(task.train.images, task)
        assert images.mean().item() == pytest.approx(0.0, abs=1e-4)
        assert images.std().item() == pytest.approx(1.0, abs=1e-3)
        assert images.is_contiguous(memory_format=torch.channels_last)

    def test_plain_batches_are_in_order_and_complete(
        self, task: ImageTask, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("hwprof.search.learning.batches.PLAIN_PIXELS", 20 * 32 * 32)
        batches = list(plain_batches(task, task.train))
        assert [len(b.labels) for b in batches] == [16, 16, 16]
        assert torch.equal(
            torch.cat([b.images for b in batches]), normalised(task.train.images, task)
        )
