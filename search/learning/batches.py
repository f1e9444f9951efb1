"""From images in memory to batches: shuffled, augmented, normalised, channels last.

Everything random in a training step is a function of (seed, step), so training goes on after an
interruption exactly as it would have gone without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwprof.search.data.augmentation import augmented
from hwprof.search.data.image_files import Split
from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning import parallel

PLAIN_PIXELS = 256 * 32 * 32
"""Pixels of a batch that is only run forward: 256 images of 32 px, fewer of larger ones."""

_ORDER, _AUGMENT, _PATH, _HELD_OUT, _CHOICES = range(5)
"""Independent random streams of a training run."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``images`` float32 [N, 3, side, side] in channels-last memory, ``labels`` int64 [N]."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch in the memory of ``device``."""
        return Batch(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBatches:
    """The training images of a task, step by step; a last incomplete batch is left out."""

    task: ImageTask
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.task.train) // self.size)

    def path_rng(self, step: int) -> np.random.Generator:
        """Return the generator that draws the path of ``step``."""
        return np.random.default_rng((self.seed, _PATH, step))

    def choices_rng(self, step: int) -> np.random.Generator:
        """Return the generator of the architecture step that follows ``step``."""
        return np.random.default_rng((self.seed, _CHOICES, step))

    def held_out(self, step: int, size: int) -> Batch:
        """Return at most ``size`` validation images, drawn for ``step`` and not augmented."""
        split = self.task.validation
        rng = np.random.default_rng((self.seed, _HELD_OUT, step))
        size = min(size, len(split))
        # Every process takes as many.
        size -= size % parallel.world_size()
        chosen = parallel.share(rng.permutation(len(split))[:size])
        return Batch(
            images=normalised(split.images[chosen], self.task),
            labels=torch.from_numpy(split.labels[chosen]),
        )

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from its step ``first`` on."""
        order = np.random.default_rng((self.seed, _ORDER, epoch)).permutation(len(self.task.train))
        for index in range(first, self.per_epoch):
            chosen = parallel.share(order[index * self.size : (index + 1) * self.size])
            stream = [self.seed, _AUGMENT, epoch * self.per_epoch + index]
            if parallel.rank():
                stream.append(parallel.rank())
            images = augmented(
                self.task.train.images[chosen],
                np.random.default_rng(stream),
                photographs=self.task.has_colour,
            )
            yield Batch(
                images=normalised(images, self.task),
                labels=torch.from_numpy(self.task.train.labels[chosen]),
            )


def plain_batches(task: ImageTask, split: Split) -> Iterator[Batch]:
    """Yield the images of a split in their order, not augmented, in batches of like sizes."""
    most = max(1, PLAIN_PIXELS // task.resolution_px**2)
    count = -(-len(split) // most)
    bounds = [len(split) * i // count for i in range(count + 1)]
    for start, end in pairwise(bounds):
        yield Batch(
            images=normalised(split.images[start:end], task),
            labels=torch.from_numpy(split.labels[start:end]),
        )


def normalised(images: NDArray[np.uint8], task: ImageTask) -> Tensor:
    """Return images [N, side, side, 3] as a tensor with the training images' mean 0 and std 1."""
    # A view: memory that is [N, H, W, C] is what channels-last means.
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    mean, std = (torch.from_numpy(m).reshape(1, 3, 1, 1) for m in (task.mean, task.std))
    return (pixels - mean) / std
