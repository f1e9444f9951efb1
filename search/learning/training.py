"""Training: a supernet by uniform single paths, or one derived network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwprof.errors import DataError, PlanError
from hwprof.graph import network_graph, to_torch
from hwprof.graph.cost import piece_cost
from hwprof.progress import ProgressCallback
from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning.batches import TrainingBatches
from hwprof.search.learning.checkpoint import CheckpointMeta, Kind, space_to_json, task_to_json
from hwprof.search.learning.compiled import CompiledNetwork
from hwprof.search.learning.evaluation import (
    SupernetJudge,
    recalibrate,
    recalibration_batches,
    runner_of,
    top1_pct,
)
from hwprof.search.learning.sgd import Training, TrainSettings
from hwprof.search.supernets.elastic import supernet_of
from hwprof.search.supernets.gates import GatePlan, norms_of
from hwprof.search.supernets.initial import initialise
from hwprof.search.supernets.supernet import channels_last
from hwprof.space import Architecture, DesignSpace, Slot, space_of

JUDGED_NETWORKS = 16
"""Random networks whose accuracies describe a finished supernet."""

DEFAULT_STEPS = 640
DEFAULT_EPOCHS = 20
"""Without ``--epochs``: as many epochs as give so many steps, but no fewer epochs than these.

For the digits that is 40 epochs, after which random networks reach about 97 % and the smallest is
1 to 2 points behind the largest (mean over two seeds and both held-out splits: 96.0 and 97.5 %).
Trained on, all reach 98 to 99 %, and what is left of their differences is less than the
validation images can tell: one image is 0.28 points.
"""


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What training came to.

    ``meta.figures`` are accuracies in percent, once ``finished``. Of a network:
    ``validation_pct`` and ``test_pct``. Of a supernet, on the validation images: ``mean_pct``,
    ``sd_pct``, ``min_pct`` and ``max_pct`` over ``n_networks`` random networks, and
    ``smallest_network_pct`` and ``largest_network_pct``, those with the fewest and most MACs.
    """

    out: Path
    meta: CheckpointMeta

    @property
    def finished(self) -> bool:
        """Whether all epochs were trained; otherwise the same call goes on."""
        return self.meta.finished

    def to_json(self) -> dict[str, Any]:
        """Return what ``hwprof train --json`` prints: figures and settings beside the rest."""
        meta = self.meta
        return {
            "out": str(self.out),
            "kind": meta.kind,
            "space": meta.space["name"],
            "resolution_px": meta.space["resolution_px"],
            **({"arch": dict(meta.arch)} if meta.arch is not None else {}),
            "task": meta.task["name"],
            "n_classes": meta.space["n_classes"],
            "finished": meta.finished,
            "steps_done": meta.step,
            "steps": meta.n_steps,
            "seconds": round(meta.seconds, 1),
            "loss": meta.loss,
            **(meta.figures or {}),
            **meta.settings,
        }


def default_settings(
    task: ImageTask,
    *,
    epochs: int | None = None,
    max_time_s: float | None = None,
    seed: int = 0,
    compiled: bool = False,
) -> TrainSettings:
    """Return settings that suit the task: about 640 steps of 64 images, or 20 epochs if more."""
    batch = min(64, len(task.train))
    per_epoch = max(1, len(task.train) // batch)
    if epochs is None:
        epochs = max(DEFAULT_EPOCHS, math.ceil(DEFAULT_STEPS / per_epoch))
    return TrainSettings(
        epochs=epochs, batch=batch, max_time_s=max_time_s, seed=seed, compiled=compiled
    )


def train_supernet(
    space: DesignSpace,
    task: ImageTask,
    settings: TrainSettings,
    out: Path,
    *,
    progress: ProgressCallback | None = None,
) -> TrainSummary:
    """Train all networks of ``space`` at once: every step runs one path, drawn uniformly.

    The checkpoint at ``out`` is written every ten seconds, and before Ctrl-C or SIGTERM ends
    training: what is killed otherwise loses ten seconds at most. Called again, an interrupted
    training goes on from it, and comes to the same weights; a finished one is returned.

    Args:
        space: a layer-wise space or a reduction of one; its head is made for the task's classes.
        task: images of the space's resolution.
        settings: how to train.
        out: the checkpoint.
        progress: told the step, the running loss and accuracy, and the time left.

    Raises:
        SpaceError: the space is not layer-wise.
        PlanError: it is to be compiled.
        IncompatibleRunError: ``out`` is of another training.
        DataError: the loss is no longer a number.
    """
    if settings.compiled:
        raise PlanError(
            "a supernet cannot be compiled: every step runs another path, for which torch would "
            "compile anew; leave --compile out, or train one network with --arch"
        )
    fitted = replace(space, n_classes=task.n_classes)
    supernet = supernet_of(fitted, seed=settings.seed)

    def logits(images: Tensor, rng: np.random.Generator) -> Tensor:
        return supernet.forward(images, GatePlan.single_path(fitted.sample(rng)))

    return _train(
        _Trainee(
            kind="supernet",
            space=fitted,
            module=supernet,
            logits=logits,
            judge=lambda: supernet_figures(SupernetJudge.of(supernet, task), settings.seed),
        ),
        task,
        settings,
        out,
        progress=progress,
    )


def train_network(
    arch: Architecture,
    task: ImageTask,
    settings: TrainSettings,
    out: Path,
    *,
    progress: ProgressCallback | None = None,
) -> TrainSummary:
    """Train one network from scratch; arguments and errors as in :func:`train_supernet`.

    Raises:
        CompileError: it is to be compiled, and torch refuses it.
    """
    space = replace(space_of(arch), n_classes=task.n_classes)
    network = channels_last(to_torch(network_graph(space, arch)))
    initialise(network, torch.Generator().manual_seed(settings.seed))

    run: Callable[[Tensor], Tensor] = CompiledNetwork(network) if settings.compiled else network

    def judge() -> dict[str, float]:
        forward = runner_of(network)
        recalibrate(forward, norms_of([network]), recalibration_batches(task))
        splits = {"validation_pct": task.validation, "test_pct": task.test}
        return {name: top1_pct(forward, task, split) for name, split in splits.items()}

    return _train(
        _Trainee(
            kind="network",
            space=space,
            arch=arch,
            module=network,
            logits=lambda images, rng: run(images),
            judge=judge,
        ),
        task,
        settings,
        out,
        progress=progress,
    )


def extreme_network(space: DesignSpace, *, largest: bool) -> Architecture:
    """Return the network of a layer-wise space with the most or the fewest MACs.

    Every unit is as deep, or as shallow, as it may be, and every layer the block with the most
    or the fewest MACs (of equals the first). Factors stand at their last, or first, level.
    """
    levels = [factor.levels[-1 if largest else 0] for factor in space.factors]
    # The factor before the widths is the stem's depth.
    widths = tuple(levels[1:]) or None
    depths = space.max_depth if largest else space.min_depth
    pick = max if largest else min

    def macs(slot: Slot, block: str) -> int:
        pieces = space.block_pieces(slot, block, widths)
        return sum(piece_cost(piece).macs * n for piece, n in pieces)

    units = []
    for unit, depth in enumerate(depths):
        slots = [Slot(unit, layer) for layer in range(depth)]
        units.append(tuple(pick(space.choices(s), key=partial(macs, s)) for s in slots))
    return space.assemble(units, levels)


def supernet_figures(judge: SupernetJudge, seed: int) -> dict[str, float]:
    """Return how accurate a supernet's networks are on the validation images, in percent."""
    space, rng = judge.supernet.space, np.random.default_rng(seed)

    def validation_pct(arch: Architecture) -> float:
        return judge.top1_pct(arch, [judge.task.validation])[0]

    found = [validation_pct(space.sample(rng)) for _ in range(JUDGED_NETWORKS)]
    return {
        "n_networks": JUDGED_NETWORKS,
        "mean_pct": statistics.fmean(found),
        "sd_pct": statistics.stdev(found),
        "min_pct": min(found),
        "max_pct": max(found),
        "smallest_network_pct": validation_pct(extreme_network(space, largest=False)),
        "largest_network_pct": validation_pct(extreme_network(space, largest=True)),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trainee:
    """What is trained: its module, how a step runs it, how the result is judged."""

    kind: Kind
    space: DesignSpace
    module: nn.Module
    logits: Callable[[Tensor, np.random.Generator], Tensor]
    judge: Callable[[], Mapping[str, float]]
    arch: Architecture | None = None


def _train(
    trainee: _Trainee,
    task: ImageTask,
    settings: TrainSettings,
    out: Path,
    *,
    progress: ProgressCallback | None,
) -> TrainSummary:
    if task.resolution_px != trainee.space.resolution_px:
        raise DataError(
            f"the images have {task.resolution_px} px; expected {trainee.space.resolution_px} px, "
            f"the resolution of {trainee.space.name!r}: load them with that"
        )
    batches = TrainingBatches(task=task, size=settings.batch, seed=settings.seed)
    meta = CheckpointMeta(
        kind=trainee.kind,
        space=space_to_json(trainee.space),
        arch=trainee.arch.to_json() if trainee.arch is not None else None,
        task=task_to_json(task),
        settings=settings.shaping(),
        n_steps=settings.epochs * batches.per_epoch,
    )
    training = Training(
        meta=meta,
        module=trainee.module,
        logits=trainee.logits,
        judge=trainee.judge,
        batches=batches,
        settings=settings,
        out=out,
    )
    return TrainSummary(out=out, meta=training.run(progress))
