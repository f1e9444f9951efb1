"""Judging networks: top-1 of a module, and of any path of a supernet with its own batch norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hwprof.search.data.image_files import Split
from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning.batches import Batch, plain_batches
from hwprof.search.supernets.gates import GatePlan, norms_of
from hwprof.search.supernets.supernet import Supernet, private_statistics
from hwprof.space import Architecture

RECALIBRATION_IMAGES = 256
"""Training images over which the statistics of batch norm are averaged."""


def top1_pct(forward: Callable[[Tensor], Tensor], task: ImageTask, split: Split) -> float:
    """Return the share of ``split`` that ``forward`` classifies correctly, in percent.

    ``forward`` maps images to logits; put its module into evaluation mode first. It takes images
    from the CPU's memory (:func:`runner_of`).
    """
    correct = 0
    with torch.inference_mode():
        for batch in plain_batches(task, split):
            correct += int((forward(batch.images).argmax(dim=1).cpu() == batch.labels).sum())
    return 100.0 * correct / len(split)


def runner_of(module: nn.Module) -> Callable[..., Tensor]:
    """Return a module as a function of images in the CPU's memory, wherever its weights lie."""

    def run(images: Tensor, **more: GatePlan) -> Tensor:
        logits: Tensor = module(images.to(next(module.parameters()).device), **more)
        return logits

    return run


def recalibration_batches(task: ImageTask) -> tuple[Batch, ...]:
    """Return the same few training batches every time, not augmented, classes in proportion."""
    return tuple(plain_batches(task, task.train.sample(RECALIBRATION_IMAGES, seed=0)))


def recalibrate(
    forward: Callable[[Tensor], Tensor], norms: Sequence[nn.BatchNorm2d], batches: Iterable[Batch]
) -> None:
    """Set running statistics to the average over ``batches``; leaves evaluation mode on."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.inference_mode():
        for batch in batches:
            forward(batch.images)
    for norm in norms:
        norm.eval()


@dataclass(frozen=True, kw_only=True, eq=False)
class SupernetJudge:
    """Gives accuracies of a supernet's networks, batch norm recalibrated for each.

    The same network gets the same accuracy every time, and the supernet stays as it is.
    """

    supernet: Supernet
    task: ImageTask
    batches: Sequence[Batch]
    """Training images for recalibration."""

    @classmethod
    def of(cls, supernet: Supernet, task: ImageTask) -> SupernetJudge:
        """Return the judge of ``supernet`` on ``task``."""
        return cls(supernet=supernet, task=task, batches=recalibration_batches(task))

    def top1_pct(self, arch: Architecture, splits: Sequence[Split]) -> list[float]:
        """Return the accuracy of ``arch`` on each of ``splits``, in percent."""
        plan = GatePlan.single_path(arch)
        norms = norms_of(self.supernet.path(plan))
        forward = partial(runner_of(self.supernet), plan=plan)
        with private_statistics(norms):
            recalibrate(forward, norms, self.batches)
            return [top1_pct(forward, self.task, split) for split in splits]

    def network(self, arch: Architecture) -> nn.Module:
        """Return ``arch`` as a module of its own, recalibrated, in evaluation mode."""
        module = self.supernet.extract(arch).eval()
        recalibrate(runner_of(module), norms_of([module]), self.batches)
        return module
