"""ImageNet accuracies of the networks that a published once-for-all supernet holds.

Nearly as the released code judges them: 2,000 training images renew the statistics of batch norm,
images are scaled until the middle 87.5 % are what is wanted, and normalised by ImageNet's published
moments. Two things differ: the 2,000 images are the same for every network and not augmented (the
released code crops, mirrors and colours them at random), so that a network has one accuracy; and
scaling is bicubic, as everywhere in this package (there bilinear).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from hwprof.errors import DataError
from hwprof.search.data.image_files import Split
from hwprof.search.data.tasks import ImageTask, load_task
from hwprof.search.learning.batches import Batch, normalised
from hwprof.search.learning.evaluation import recalibrate, top1_pct
from hwprof.search.supernets.gates import norms_of
from hwprof.search.supernets.ofa_weights import OfaSupernet
from hwprof.space import Architecture

RECALIBRATION_IMAGES, RECALIBRATION_BATCH = 2_000, 100
MIDDLE = 0.875
"""Share of the side that is cut out of an image: 224 of 256 px."""
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""On the scale 0 to 255: torchvision's (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225)."""
LIMIT_IMAGES = 10_000
"""Images read of each split, classes in proportion, as they are kept in memory: 2 GB of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OfaAccuracy:
    """Top-1 of a published supernet's networks, each with batch norm recalibrated for it.

    There is no score on test images: those that ImageNet gives labels for are its validation
    images, and the others were trained on.
    """

    name: str
    digest: str
    supernet: OfaSupernet
    data: str
    _tasks: dict[int, ImageTask] = field(default_factory=dict, repr=False)
    """By resolution; the last one asked for is kept."""

    @classmethod
    def open(cls, path: Path, *, data: str | None) -> OfaAccuracy:
        """Read a published file.

        Raises:
            DataError: it cannot be used, or ``data`` is missing.
        """
        supernet = OfaSupernet.open(path)
        if data is None:
            raise DataError(
                f"{str(path)!r} is a published once-for-all supernet, which brings no images; name "
                "the folder of ImageNet (with train and val inside) with --data"
            )
        file_digest = hashlib.sha256(path.read_bytes())
        return cls(
            name=f"supernet:{path.name}",
            # The same weights on other images are another source.
            digest=hashlib.sha256(file_digest.digest() + data.encode()).hexdigest()[:16],
            supernet=supernet,
            data=data,
        )

    def score(self, archs: Sequence[Architecture]) -> list[float | None]:
        """Return validation top-1 in percent.

        Raises:
            DataError: the images cannot be used.
            IncompatibleRunError: an architecture is of another space.
        """
        return [self._top1_pct(arch) for arch in archs]

    def network(self, arch: Architecture) -> nn.Module:
        """Return ``arch`` as a module of its own, recalibrated, in evaluation mode."""
        network = self.supernet.network(arch)
        task = self._task(arch.resolution_px)
        recalibrate(network, norms_of([network]), _recalibration_batches(task))
        return network

    def _top1_pct(self, arch: Architecture) -> float:
        task = self._task(arch.resolution_px)
        return top1_pct(self.network(arch), task, task.validation)

    def _task(self, resolution_px: int) -> ImageTask:
        if resolution_px not in self._tasks:
            self._tasks.clear()
            self._tasks[resolution_px] = imagenet_task(
                self.data, resolution_px, self.supernet.space.n_classes
            )
        return self._tasks[resolution_px]


def imagenet_task(source: str, resolution_px: int, n_classes: int = 1000) -> ImageTask:
    """Load images as networks trained on ImageNet expect them.

    Raises:
        DataError: they cannot be used, or their classes are not as many.
    """
    whole = math.ceil(resolution_px / MIDDLE)
    task = load_task(source, resolution_px=whole, limit_images=LIMIT_IMAGES)
    if task.n_classes != n_classes:
        raise DataError(
            f"{source!r} has {task.n_classes} classes; the supernet tells {n_classes} apart: name "
            "the folder of ImageNet, one folder for each class"
        )
    edge = (whole - resolution_px) // 2
    middle = slice(edge, edge + resolution_px)

    def cut(split: Split) -> Split:
        return replace(split, images=split.images[:, middle, middle])

    return replace(
        task,
        train=cut(task.train),
        validation=cut(task.validation),
        test=cut(task.test),
        moments=(IMAGENET_MEAN, IMAGENET_STD),
    )


def _recalibration_batches(task: ImageTask) -> Iterator[Batch]:
    """Yield the same training images every time, not augmented, classes in proportion."""
    split = task.train.sample(RECALIBRATION_IMAGES, seed=0)
    for start in range(0, len(split), RECALIBRATION_BATCH):
        part = slice(start, start + RECALIBRATION_BATCH)
        yield Batch(
            images=normalised(split.images[part], task),
            labels=torch.from_numpy(split.labels[part]),
        )
