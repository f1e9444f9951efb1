"""What TE-NAS asks of supernets of NAS-Bench-201: κ and R, on images of a task.

Sources and differences: :mod:`hwprof.search.strategies.te_nas`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning.batches import normalised
from hwprof.search.scoring.zero_cost import linear_regions, ntk_condition
from hwprof.search.supernets.cell_supernet import CellSupernet, MixedCell, Planned, even_plan
from hwprof.search.supernets.initial import initialise
from hwprof.space import DesignSpace

PATCH_PX = 3


@dataclass(frozen=True, kw_only=True)
class TeNasConfig:
    """What the indicators are taken on.

    Attributes:
        channels: of the supernet's first stage for κ (the public code: 3); R has one channel.
        n_images: of a mini-batch for κ (the paper: 32, its code: 72).
        n_patches: of 3×3 pixels of one random colour, for R.
        repeats: over which shares are averaged.
        seed: fixes weights, images and patches.
    """

    channels: int = 8
    n_images: int = 16
    n_patches: int = 3000
    repeats: int = 3
    seed: int = 0


class Indicators(NamedTuple):
    """κ and R of a supernet."""

    condition: float
    regions: int


Indicate = Callable[[DesignSpace, Sequence[DesignSpace], Sequence[int]], Sequence[Indicators]]
"""Gives the indicators of parts of a space, on one draw of everything that is random.

Arguments: the space, what is left of it in each part, and the integers that seed the draw.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Untrained:
    """Indicators of supernets of NAS-Bench-201 on a task's training images; labels go unused."""

    task: ImageTask
    config: TeNasConfig

    def __call__(
        self, space: DesignSpace, parts: Sequence[DesignSpace], seeds: Sequence[int]
    ) -> list[Indicators]:
        """Return κ and R of each part of ``space``, drawn from ``seeds``."""
        rng = np.random.default_rng(tuple(seeds))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        wide = CellSupernet(space, channels=self.config.channels)
        thin = MixedCell(space, channels=1, size_px=PATCH_PX)
        for module in (wide, thin):
            initialise(module, generator)
        # Each image once: of two that are equal Θ is singular.
        chosen = rng.permutation(len(self.task.train))[: self.config.n_images]
        images = normalised(self.task.train.images[chosen], self.task)
        cut = patches(self.task, self.config.n_patches, rng)
        plans = [even_plan(part) for part in parts]
        return [
            Indicators(
                condition=ntk_condition(Planned(wide, plan), images),
                regions=linear_regions(Planned(thin, plan), cut),
            )
            for plan in plans
        ]


def patches(task: ImageTask, n: int, rng: np.random.Generator) -> Tensor:
    """Return ``n`` random 3×3 patches of training images, each in one colour: [n, 1, 3, 3]."""
    images = task.train.images
    which = rng.integers(len(images), size=n)
    rows, columns = rng.integers(task.resolution_px - PATCH_PX + 1, size=(2, n))
    colour = rng.integers(3, size=n)
    offset = np.arange(PATCH_PX)
    cut = images[
        which[:, None, None],
        (rows[:, None] + offset)[:, :, None],
        (columns[:, None] + offset)[:, None, :],
        colour[:, None, None],
    ]
    mean, deviation = (moment[colour][:, None, None] for moment in (task.mean, task.std))
    values: NDArray[np.float32] = (cut - mean) / deviation
    return torch.from_numpy(values)[:, None]
