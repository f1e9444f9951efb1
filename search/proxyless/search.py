"""A ProxylessNAS search: weights and architecture parameters in turn, then the derived network.

Warm-up trains the supernet by uniform paths (:func:`hwprof.search.learning.training.train_supernet`); it
does not depend on latency, so one serves every search of a sweep. Then weights are trained on
paths drawn from the architecture parameters, which learn on validation images every few steps.
Everything is kept in checkpoints that ``supernet:CHECKPOINT`` and ``hwprof export`` read too.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hwprof.errors import IncompatibleRunError
from hwprof.progress import ProgressCallback
from hwprof.search.data.image_files import Split
from hwprof.search.data.tasks import ImageTask
from hwprof.search.events import ChoicesUpdated
from hwprof.search.learning.batches import TrainingBatches
from hwprof.search.learning.checkpoint import (
    BUILT,
    CheckpointMeta,
    load_checkpoint,
    require_same_parts,
    space_to_json,
    task_to_json,
)
from hwprof.search.learning.evaluation import SupernetJudge
from hwprof.search.learning.sgd import Training, TrainSettings
from hwprof.search.proxyless.choices import Choices
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.plans import run_plan
from hwprof.search.proxyless.steps import ArchitectureSteps, ProxylessConfig, StepOutcome
from hwprof.search.proxyless.target import derive, faster_alternative
from hwprof.search.supernets.elastic import supernet_of
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import Architecture, DesignSpace

log = logging.getLogger(__name__)

COURSE_IMAGES = 1000
"""Validation images on which the most probable network is followed; all judge the last one."""
FIGURES = (("validation_pct", "test_pct"), ("faster_validation_pct", "faster_test_pct"))
"""A checkpoint's accuracies: of the derived network, and of a faster alternative."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A network that a search came to, with top-1 in percent.

    Accuracies are with the weights of that search's supernet, batch norm recalibrated. The
    validation images also taught the architecture parameters; the test images nothing.
    """

    arch: Architecture
    validation_pct: float
    test_pct: float


@dataclass(frozen=True, kw_only=True)
class Derived(Judged):
    """What a search came to, and how it went."""

    name: str
    checkpoint: Path
    course: tuple[ChoicesUpdated, ...]
    seconds: float
    is_limiting: bool = False
    """Of a search for a target: whether latency held it back to the end."""
    faster: Judged | None = None
    """Of a search for a target that latency did not hold back: the most probable network, where it
    is faster than the target."""


def warmup_settings(config: ProxylessConfig, task: ImageTask) -> TrainSettings:
    """Return how the supernet is warmed up: a cosine from ``warmup_lr`` to 0."""
    return _settings(config, task, epochs=config.warmup_epochs, lr=config.warmup_lr)


def retrain_settings(
    config: ProxylessConfig, task: ImageTask, *, epochs: int = 300
) -> TrainSettings:
    """Return the paper's recipe for a derived network: lr 0.05, cosine to 0, decay 4e-5."""
    return replace(_settings(config, task, epochs=epochs, lr=0.05), compiled=config.compiled)


def search_name(config: ProxylessConfig, penalty: Penalty) -> str:
    """Name one search of a sweep; serves as a file name."""
    if penalty.kind == "target":
        return f"{config.mode}-target-t{penalty.target_s * 1e3:.4g}ms"
    return f"{config.mode}-{penalty.kind}-w{penalty.weight:g}-t{penalty.target_s * 1e3:.4g}ms"


def batches_of(config: ProxylessConfig, task: ImageTask) -> TrainingBatches:
    """Return the training images of warm-up and search, step by step."""
    return TrainingBatches(task=task, size=min(config.batch, len(task.train)), seed=config.seed)


def search_network(
    space: DesignSpace,
    task: ImageTask,
    latency: ExpectedLatency,
    penalty: Penalty,
    config: ProxylessConfig,
    *,
    warmup: Path,
    out: Path,
    progress: ProgressCallback | None = None,
) -> Derived:
    """Search for one network; called again it goes on, or returns what it came to.

    Args:
        space: a layer-wise space or a reduction of one.
        task: images of its resolution.
        latency: of the device.
        penalty: how latency enters the loss.
        config: hyperparameters.
        warmup: the checkpoint of a supernet of this space that search starts from.
        out: the checkpoint of the search.
        progress: told the step, the running loss and accuracy, and the time left.

    Raises:
        PlanError: the epochs hold no architecture step.
        IncompatibleRunError: ``warmup`` is of another space or of other images, or ``out`` of
            another search.
        StoreError: another training is writing ``out``, or it cannot be written.
        DataError: a loss is no number; the last checkpoint is kept.
    """
    batches = batches_of(config, task)
    config.require_alpha_steps(batches.per_epoch)
    fitted = replace(space, n_classes=task.n_classes)
    supernet = supernet_of(fitted, seed=config.seed)
    digest = _load_warmup(supernet, warmup, task)
    choices = Choices(fitted, seed=config.seed)
    settings = _settings(config, task, epochs=config.epochs, lr=config.lr)
    judge = SupernetJudge.of(supernet, task)
    steps = ArchitectureSteps(supernet, choices, latency, penalty, config)
    companion = _Search(
        name=search_name(config, penalty),
        steps=steps,
        latency=latency,
        batches=batches,
        config=config,
        judge=judge,
    )

    def logits(images: Tensor, rng: np.random.Generator) -> Tensor:
        return supernet.forward(images, run_plan(choices.draw(rng)))

    def networks() -> list[Architecture]:
        """Return the derived network, and a faster alternative where there is one."""
        derived = derive(choices, latency, steps.multiplier)
        faster = faster_alternative(choices, latency, steps.multiplier, derived)
        return [path.arch for path in (derived, faster) if path is not None]

    def figures() -> dict[str, float]:
        found: dict[str, float] = {}
        for kind, arch in zip(FIGURES, networks(), strict=False):
            top1_pct = judge.top1_pct(arch, [task.validation, task.test])
            found |= dict(zip(kind, top1_pct, strict=True))
        return found

    meta = CheckpointMeta(
        kind="supernet",
        space=space_to_json(fitted),
        task=task_to_json(task),
        settings={
            **settings.shaping(),
            "search": config.to_json(),
            "penalty": asdict(penalty),
            "latency": latency.digest,
            "warmup": digest,
        },
        n_steps=settings.epochs * batches.per_epoch,
    )
    training = Training(
        meta=meta,
        module=supernet,
        logits=logits,
        judge=figures,
        batches=batches,
        settings=settings,
        out=out,
        companion=companion,
    )
    done = training.run(progress)
    assert done.figures is not None
    judged = [
        Judged(arch=arch, validation_pct=done.figures[kind[0]], test_pct=done.figures[kind[1]])
        for kind, arch in zip(FIGURES, networks(), strict=False)
    ]
    return Derived(
        name=companion.name,
        arch=judged[0].arch,
        validation_pct=judged[0].validation_pct,
        test_pct=judged[0].test_pct,
        checkpoint=out,
        course=tuple(companion.course),
        seconds=done.seconds,
        is_limiting=steps.multiplier is not None and steps.multiplier.is_limiting,
        faster=judged[1] if len(judged) > 1 else None,
    )


class _Search:
    """Architecture steps between weight steps, and the course they take."""

    def __init__(
        self,
        *,
        name: str,
        steps: ArchitectureSteps,
        latency: ExpectedLatency,
        batches: TrainingBatches,
        config: ProxylessConfig,
        judge: SupernetJudge,
    ) -> None:
        self.name = name
        self.course: list[ChoicesUpdated] = []
        self._steps = steps
        self._latency = latency
        self._batches = batches
        self._config = config
        self._judge = judge
        self._few = course_images(judge.task.validation, seed=config.seed)
        self._seen: list[tuple[float, float]] = []

    def after_step(self, step: int) -> float | None:
        """Take an architecture step where one is due; keep the course at an epoch's end."""
        per_epoch, config = self._batches.per_epoch, self._config
        loss = None
        if config.is_alpha_step(step, per_epoch):
            size = config.reward_images if config.mode == "reinforce" else self._batches.size
            outcome: StepOutcome = self._steps.step(
                self._batches.held_out(step, size), self._batches.choices_rng(step)
            )
            self._seen.append((outcome.loss, outcome.accuracy))
            loss = outcome.loss
        if (step + 1) % per_epoch == 0 and (loss is None or math.isfinite(loss)):
            self.course.append(self._stand(step, (step + 1) // per_epoch))
            self._seen = []
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the architecture parameters and the course so far."""
        return {
            **self._steps.state_dict(),
            "seen": list(self._seen),
            "course": [event.to_json() for event in self.course],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._steps.load_state_dict(state)
        self._seen = [(loss, accuracy) for loss, accuracy in state["seen"]]
        self.course = [ChoicesUpdated.from_json(event) for event in state["course"]]

    def _stand(self, step: int, epoch: int) -> ChoicesUpdated:
        choices = self._steps.choices
        best = choices.best().arch
        loss, accuracy = np.mean(self._seen, axis=0).tolist() if self._seen else (None, None)
        return ChoicesUpdated(
            search=self.name,
            epoch=epoch,
            step=step + 1,
            loss=loss,
            accuracy_pct=None if accuracy is None else 100.0 * accuracy,
            entropy_nat=choices.entropy_nat(),
            expected_s=self._latency(choices.probabilities()).item(),
            argmax=best,
            argmax_s=self._latency.of([best])[0],
            argmax_accuracy_pct=self._judge.top1_pct(best, [self._few])[0],
            multiplier=None if self._steps.multiplier is None else self._steps.multiplier.value,
        )


def course_images(validation: Split, *, seed: int) -> Split:
    """Return at most :data:`COURSE_IMAGES` of the images, the classes in proportion."""
    if len(validation) <= COURSE_IMAGES:
        return validation
    # Not the first ones: a folder of class folders comes sorted by class.
    return validation.sample(COURSE_IMAGES, seed)


def _settings(config: ProxylessConfig, task: ImageTask, *, epochs: int, lr: float) -> TrainSettings:
    return TrainSettings(
        epochs=epochs,
        batch=batches_of(config, task).size,
        lr=lr,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        warmup_epochs=0.0,
        max_gradient=config.max_gradient,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
    )


def _load_warmup(supernet: Supernet, path: Path, task: ImageTask) -> str:
    """Load a supernet's weights; return a digest of the file."""
    found = load_checkpoint(path)
    meta = found.meta
    wanted = space_to_json(supernet.space)
    if meta.kind != "supernet":
        raise IncompatibleRunError(
            f"{str(path)!r} holds one trained network; a search starts from a supernet, as "
            "`hwprof train --space` writes it"
        )
    for name, value in wanted.items():
        if name != BUILT and meta.space[name] != value:
            told = f"{name} {meta.space[name]!r}, not {value!r}"
            if isinstance(value, dict):
                told = f"other {name}"
            raise IncompatibleRunError(
                f"the supernet in {str(path)!r} has {told}; train one of the space that is searched"
            )
    if meta.task["digest"] != task.digest:
        raise IncompatibleRunError(
            f"the supernet in {str(path)!r} was trained on other images or another split of them: "
            "its training images may be test images here; give the same --data and "
            "--limit-images, or leave --supernet out"
        )
    if not meta.finished:
        log.warning(
            "%s is not fully trained (step %d of %d): the search starts from weights that are "
            "worse than they could be; the command that began it goes on with it",
            path.name,
            meta.step,
            meta.n_steps,
        )
    require_same_parts(meta.space, wanted)
    supernet.load_state_dict(found.weights)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
