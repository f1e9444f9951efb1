"""The training loop: stochastic gradient descent that survives being killed."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

from hwprof.errors import DataError, DeviceUnavailableError
from hwprof.progress import Pace, Progress, ProgressCallback
from hwprof.search.learning import parallel
from hwprof.search.learning.batches import Batch, TrainingBatches
from hwprof.search.learning.checkpoint import (
    CheckpointMeta,
    load_checkpoint,
    only_writer,
    require_same,
    save_checkpoint,
)
from hwprof.search.learning.mixed_precision import (
    LEAST_SCALE,
    Precision,
    autocast,
    require_precision,
    scaler,
)

log = logging.getLogger(__name__)

CHECKPOINT_INTERVAL_S = 10.0
PROGRESS_INTERVAL_S = 0.5
MOMENTUM = 0.9
SHOWN_MEMORY = 0.98
"""Weight of the past, at every step, in the running loss and accuracy that are shown."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train: SGD with Nesterov momentum 0.9, learning rate rising, then a cosine to 0.

    ``weight_decay`` spares norms and biases. Gradients longer than ``max_gradient`` are cut to
    that length. ``max_time_s`` ends training at the first whole epoch after that long; it,
    ``device`` and ``compiled`` (a plain network by ``torch.compile``) may change when training goes
    on. ``precision`` bf16 and fp16 compute the forward pass in 16 bits where torch's autocast says
    so (:mod:`hwprof.search.learning.mixed_precision`).
    """

    epochs: int
    batch: int = 64
    lr: float = 0.1
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    warmup_epochs: float = 2.0
    max_gradient: float = 5.0
    max_time_s: float | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    compiled: bool = False

    def shaping(self) -> dict[str, Any]:
        """Return the settings that shape the weights."""
        values = asdict(self)
        for name in ("max_time_s", "device", "compiled"):
            del values[name]
        # As before there was a choice, so that checkpoints from then go on.
        if self.precision == "fp32":
            del values["precision"]
        return values

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return autocast(self.device, self.precision)

    def lr_at(self, step: int, per_epoch: int) -> float:
        """Return the learning rate of ``step`` (0-based) with ``per_epoch`` steps an epoch."""
        rising, total = self.warmup_epochs * per_epoch, self.epochs * per_epoch
        if step < rising:
            return self.lr * (step + 1) / math.ceil(rising)
        return 0.5 * self.lr * (1.0 + math.cos(math.pi * (step - rising) / (total - rising)))


class Companion(Protocol):
    """What goes along with the training of weights, and into its checkpoints."""

    def after_step(self, step: int) -> float | None:
        """Do what is due after the 0-based weight step; return the loss of it, if any."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on: tensors and plain data."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        ...


@dataclass(kw_only=True, eq=False)
class Training:
    """One training, new or gone on with.

    ``logits`` maps images and the step's generator to the logits to fit; ``judge`` gives the
    finished module's accuracies. Steps depend on nothing but weights, optimiser and step number,
    so an interrupted training comes to the same weights, bit by bit, on the same CPU threads.
    """

    meta: CheckpointMeta
    module: nn.Module
    logits: Callable[[Tensor, np.random.Generator], Tensor]
    judge: Callable[[], Mapping[str, float]]
    batches: TrainingBatches
    settings: TrainSettings
    out: Path
    companion: Companion | None = None
    _optimizer: torch.optim.Optimizer = field(init=False)
    _scaler: GradScaler = field(init=False)
    _accuracy: float | None = field(init=False, default=None)
    _saved_step: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        device = torch.device(self.settings.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceUnavailableError(
                f"cannot train on {self.settings.device!r}: torch sees no CUDA device here; train "
                "on the CPU"
            )
        # torch's stubs say that an index is there; without one it is the current device.
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise DeviceUnavailableError(
                f"cannot train on {self.settings.device!r}: torch sees "
                f"{torch.cuda.device_count()} CUDA devices here, counted from cuda:0; name one of "
                "them"
            )
        require_precision(self.settings.device, self.settings.precision)
        self._scaler = scaler(self.settings.device, self.settings.precision)
        self.module.to(device)
        parameters = list(self.module.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.SGD(
            groups,
            lr=self.settings.lr,
            momentum=MOMENTUM,
            weight_decay=self.settings.weight_decay,
            nesterov=True,
        )

    def run(self, progress: ProgressCallback | None) -> CheckpointMeta:
        """Train to the end, or to the end of the epoch in which time runs out.

        Raises:
            IncompatibleRunError: the checkpoint there is of another training.
            DataError: the loss is no longer a number; the last checkpoint is kept.
            StoreError: the checkpoint cannot be written, or another training is writing it.
        """
        # What is finished needs no lock: it may lie where nobody may write.
        if not self._take_up():
            with only_writer(self.out):
                # Another training may have gone on between the look and the lock.
                if not self._take_up():
                    with signals_held() as held:
                        self._train(progress, held)
        return self.meta

    def _take_up(self) -> bool:
        """Go on from the checkpoint that is there, if any; return whether it is finished."""
        if parallel.decided_by_first(self.out.exists()):
            self._restore()
        # The first writes the file only after all have looked.
        parallel.wait()
        return parallel.decided_by_first(self.meta.finished)

    def _train(self, progress: ProgressCallback | None, held: list[int]) -> None:
        self.module.train()
        clock = _Clock(before_s=self.meta.seconds)
        pace = Pace(total=self.meta.n_steps, done_before=self.meta.step)
        per_epoch = self.batches.per_epoch
        first_epoch, first_step = divmod(self.meta.step, per_epoch)
        for epoch in range(first_epoch, self.settings.epochs):
            for batch in self.batches.epoch(epoch, first=first_step):
                self._step(batch)
                if clock.due("progress", PROGRESS_INTERVAL_S) and progress is not None:
                    progress(self._progress(pace))
                # Whichever process has got the signal, all end at the same step.
                interrupted = parallel.mean(float(bool(held))) > 0.0
                if interrupted or clock.due("checkpoint", CHECKPOINT_INTERVAL_S):
                    self._save(clock)
                if interrupted:
                    # torchrun ends the first, which writes, as soon as another has left.
                    parallel.wait()
                    log.warning(
                        "interrupted: the checkpoint of step %d in %r is written; the same "
                        "command goes on with it",
                        self.meta.step,
                        str(self.out),
                    )
                    raise KeyboardInterrupt
            first_step = 0
            parallel.average_statistics(self.module)
            if self._out_of_time(clock, epoch):
                self._save(clock)
                return
        if progress is not None:
            progress(self._progress(pace))
        self.meta = replace(self.meta, figures=dict(self.judge()))
        self._save(clock)
        parallel.wait()

    def _step(self, batch: Batch) -> None:
        step = self.meta.step
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.lr_at(step, self.batches.per_epoch)
        batch = batch.to(self.settings.device)
        with self.settings.autocast():
            logits = self.logits(batch.images, self.batches.path_rng(step))
        loss = functional.cross_entropy(
            logits.float(), batch.labels, label_smoothing=self.settings.label_smoothing
        )
        # None, not zero: the optimiser then leaves what did not run as it is.
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self.module.parameters())
        self._scaler.unscale_(self._optimizer)
        length = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.max_gradient)
        value = parallel.mean(loss.item())
        if not (math.isfinite(value) and self._is_usable(length.item())):
            raise DataError(
                self._diverged(
                    f"the loss is {value:.3g} with a gradient that is no",
                    "another --seed or more images",
                )
            )
        # Leaves the step out where a scaled gradient has overflowed.
        self._scaler.step(self._optimizer)
        self._scaler.update()
        correct = (logits.detach().argmax(dim=1) == batch.labels).float().mean().item()
        self._accuracy = _running(self._accuracy, correct)
        self.meta = replace(self.meta, step=step + 1, loss=_running(self.meta.loss, value))
        beside = self.companion.after_step(step) if self.companion is not None else None
        if beside is not None and not math.isfinite(beside):
            raise DataError(
                self._diverged(
                    f"the loss of the architecture step is {beside:.3g}, no", "a lower --alpha-lr"
                )
            )

    def _is_usable(self, length: float) -> bool:
        """Say whether training may go on after a gradient of this length."""
        if math.isfinite(length):
            return True
        return self._scaler.is_enabled() and self._scaler.get_scale() > LEAST_SCALE

    def _restore(self) -> None:
        found = load_checkpoint(self.out)
        require_same(self.out, found.meta, self.meta)
        self.module.load_state_dict(found.weights)
        if found.optimizer is not None:
            self._optimizer.load_state_dict(dict(found.optimizer))
        if found.scaler is not None:
            self._scaler.load_state_dict(dict(found.scaler))
        if self.companion is not None and found.companion is not None:
            self.companion.load_state_dict(found.companion)
        self.meta = found.meta
        self._saved_step = found.meta.step

    def _save(self, clock: _Clock) -> None:
        if parallel.rank():
            return
        self.meta = replace(self.meta, seconds=clock.total_s())
        optimizer = None if self.meta.finished else self._optimizer
        scales = self._scaler.state_dict() if self._scaler.is_enabled() else None
        beside = self.companion.state_dict() if self.companion is not None else None
        save_checkpoint(self.out, self.meta, self.module, optimizer, beside, scaler=scales)
        self._saved_step = self.meta.step

    def _out_of_time(self, clock: _Clock, epoch: int) -> bool:
        limit_s = self.settings.max_time_s
        if limit_s is None or epoch + 1 == self.settings.epochs:
            return False
        if not parallel.decided_by_first(clock.spent_s() >= limit_s):
            return False
        log.warning(
            "training stopped after %d of %d epochs because its %.0f s were spent; the same "
            "command goes on with it",
            epoch + 1,
            self.settings.epochs,
            limit_s,
        )
        return True

    def _progress(self, pace: Pace) -> Progress:
        meta = self.meta
        epoch = min(meta.step // self.batches.per_epoch + 1, self.settings.epochs)
        return Progress(
            stage="training",
            done=meta.step,
            total=meta.n_steps,
            label=f"epoch {epoch} of {self.settings.epochs}, loss {meta.loss or 0.0:.3f}, "
            f"{100.0 * (self._accuracy or 0.0):.1f} % right",
            eta_s=pace.eta_s(meta.step),
        )

    def _diverged(self, what: str, remedy: str) -> str:
        kept = "no checkpoint was written yet"
        if self._saved_step is not None:
            kept = f"the checkpoint of step {self._saved_step} in {str(self.out)!r} is kept"
        epoch = self.meta.step // self.batches.per_epoch + 1
        return (
            f"{what} number at step {self.meta.step} "
            f"(epoch {epoch} of {self.settings.epochs}); {kept}; train anew, into another --out, "
            f"with {remedy}"
        )


@contextmanager
def signals_held() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM, and deliver the first at the end: a step is not to be torn.

    A second one acts at once. Signals that are ignored stay so; outside of the main thread, which
    alone may do this, nothing is held.
    """
    held: list[int] = []
    before: dict[int, Any] = {}

    def hold(number: int, frame: object) -> None:
        held.append(number)
        give_back()

    def give_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, hold)
    try:
        yield held
    finally:
        give_back()
        for received in held:
            signal.raise_signal(received)


@dataclass(kw_only=True)
class _Clock:
    """Says when something is due again, and how long training took, earlier calls included."""

    before_s: float
    started_s: float = field(default_factory=time.monotonic)
    _last_s: dict[str, float] = field(default_factory=dict)

    def spent_s(self) -> float:
        return time.monotonic() - self.started_s

    def total_s(self) -> float:
        return self.before_s + self.spent_s()

    def due(self, name: str, interval_s: float) -> bool:
        now_s = time.monotonic()
        if now_s - self._last_s.setdefault(name, self.started_s) < interval_s:
            return False
        self._last_s[name] = now_s
        return True


def _running(before: float | None, value: float) -> float:
    """Return the running mean that forgets slowly."""
    return value if before is None else SHOWN_MEMORY * before + (1.0 - SHOWN_MEMORY) * value
