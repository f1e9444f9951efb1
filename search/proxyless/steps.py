"""ProxylessNAS: how architecture parameters learn (Cai et al., ICLR 2019).

Three estimators of the gradient of the loss with respect to the logits α of every decision:

- ``recompute`` (what the released code defaults to): one option of each decision runs, the
  others are run again in the backward pass for their gates' gradient. Its memory is that of
  training one network; its time that of one pass through each option.
- ``two-path`` (the paper's): two options are drawn, one of them runs and the other is probed;
  the pair's logits are updated and then shifted so that the others' probabilities stay.
- ``reinforce``: rewards of sampled networks weigh the gradients of their log-probabilities.

Weights are frozen meanwhile, batch norm uses the batch's statistics and records none. The
expected latency is over the whole distribution in each, exact for the additive part of the model
(:mod:`hwprof.search.proxyless.expected_latency`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwprof.errors import PlanError
from hwprof.search.learning import parallel
from hwprof.search.learning.batches import Batch
from hwprof.search.learning.mixed_precision import (
    LEAST_SCALE,
    PRECISIONS,
    Precision,
    autocast,
    scaler,
)
from hwprof.search.proxyless.choices import Choices, Where
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.plans import full_plan, pair_plan, pair_update, run_plan
from hwprof.search.proxyless.target import Multiplier
from hwprof.search.supernets.gates import GatePlan, frozen
from hwprof.search.supernets.supernet import Supernet

Mode = Literal["recompute", "two-path", "reinforce"]
MODES: tuple[str, ...] = get_args(Mode)
DEVICES = r"cpu|cuda(:(0|[1-9][0-9]?))?"
"""Where to train, in full; torch takes neither a leading zero nor a large index."""


@dataclass(frozen=True, kw_only=True)
class ProxylessConfig:
    """Hyperparameters; the defaults are the released search script's for ImageNet.

    Two defaults are this project's: ``baseline_decay`` (the released code's 0.99 acts as a step
    size, so that its baseline is nearly the current batch's mean), and gradients of weights are
    cut at ``max_gradient``.
    """

    mode: Mode = "recompute"
    warmup_epochs: int = 40
    epochs: int = 120
    batch: int = 256
    warmup_lr: float = 0.05
    lr: float = 0.025
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    max_gradient: float = 5.0
    alpha_lr: float = 1e-3
    # Floats both: Adam refuses a mix of int and float.
    alpha_betas: tuple[float, float] = (0.0, 0.999)
    alpha_eps: float = 1e-8
    alpha_every: int = 5
    alpha_first_epoch: int = 1
    networks_per_update: int = 10
    reward_images: int = 1000
    baseline_decay: float = 0.9
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "fp32"
    compiled: bool = False
    """Of derived networks, where they are retrained."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise PlanError(f"unknown mode {self.mode!r}; expected one of {', '.join(MODES)}")
        for name in ("warmup_epochs", "epochs", "batch", "alpha_every", "networks_per_update"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not (math.isfinite(self.alpha_lr) and self.alpha_lr > 0.0):
            raise PlanError(
                f"the learning rate of the architecture parameters is {self.alpha_lr}; expected a "
                "number above 0 (--alpha-lr)"
            )
        if self.precision not in PRECISIONS:
            raise PlanError(
                f"unknown precision {self.precision!r} of training; expected one of "
                f"{', '.join(PRECISIONS)}"
            )
        if re.fullmatch(DEVICES, self.device) is None:
            raise PlanError(
                f"unknown device {self.device!r} of training; expected cpu or cuda (cuda:1 for the "
                "second GPU)"
            )
        if self.mode == "two-path" and self.alpha_betas[0] != 0.0:
            raise PlanError(
                f"alpha_betas are {self.alpha_betas}; two-path steps need a first one of 0.0: "
                "momentum would move the options that were not drawn"
            )

    def is_alpha_step(self, step: int, per_epoch: int) -> bool:
        """Say whether the 0-based weight ``step`` is followed by an architecture step."""
        return (step + 1) % self.alpha_every == 0 and step // per_epoch >= self.alpha_first_epoch

    def require_alpha_steps(self, per_epoch: int) -> None:
        """Check that the epochs, of ``per_epoch`` weight steps each, hold an architecture step.

        Raises:
            PlanError: they hold none: the network would be that of the random initial logits.
        """
        every, first = self.alpha_every, self.alpha_first_epoch
        # The first is due after so many weight steps: a multiple of ``every`` beyond the epochs
        # that have none.
        due = (first * per_epoch // every + 1) * every
        if self.epochs * per_epoch >= due:
            return
        raise PlanError(
            f"{self.epochs} epochs of {per_epoch} training steps hold no architecture step, which "
            f"is taken every {every} steps from epoch {first + 1} on: nothing would be searched; "
            f"give at least {math.ceil(due / per_epoch)} with --epochs"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        values = {**asdict(self), "alpha_betas": list(self.alpha_betas)}
        # Where it is computed, and by whose kernels, does not make it another search.
        del values["device"], values["compiled"]
        return values


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """An architecture step: its loss, what it saw of the accuracy, the expected latency before."""

    loss: float
    accuracy: float
    expected_s: float


class ArchitectureSteps:
    """Updates the logits of a supernet's decisions; holds the optimiser's state."""

    def __init__(
        self,
        supernet: Supernet,
        choices: Choices,
        latency: ExpectedLatency,
        penalty: Penalty,
        config: ProxylessConfig,
    ) -> None:
        self.choices = choices
        self._supernet = supernet
        self._latency = latency
        self._penalty = penalty
        self._config = config
        self._baseline = Baseline(decay=config.baseline_decay)
        # The loss comes to the CPU, where the logits are.
        self._scaler = scaler("cpu", config.precision)
        self.multiplier: Multiplier | None = None
        """Of a search for a target latency."""
        if penalty.kind == "target":
            self.multiplier = Multiplier(target_s=penalty.target_s, value=penalty.weight)

    @cached_property
    def optimizer(self) -> torch.optim.Adam:
        """Adam over all logits."""
        return alpha_adam(self.choices, self._config)

    def step(self, batch: Batch, rng: np.random.Generator) -> StepOutcome:
        """Take one step on held-out images; the loss is NaN where logits or gradients diverge."""
        self.optimizer.zero_grad(set_to_none=True)
        config = self._config
        batch = batch.to(config.device)
        with frozen(self._supernet), autocast(config.device, config.precision):
            outcome = _STEPS[config.mode](self, batch, rng)
        if self.multiplier is not None:
            self.multiplier.update(outcome.expected_s)
        numbers = all(bool(alpha.isfinite().all()) for alpha in self.choices.alpha.values())
        if not numbers or self._has_diverged:
            return replace(outcome, loss=math.nan)
        return outcome

    def state_dict(self) -> dict[str, Any]:
        """Return logits, optimiser and baseline."""
        return {
            "alpha": self.choices.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "baseline": self._baseline.value,
            "multiplier": None if self.multiplier is None else self.multiplier.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.choices.load_state_dict(state["alpha"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._baseline.value = state["baseline"]
        if self.multiplier is not None:
            self.multiplier.load_state_dict(state["multiplier"])
        # Searches from before there was fp16 have none, and need none.
        self._scaler.load_state_dict(state.get("scaler", {}))

    def _penalty_at(self, expected_s: float) -> Penalty:
        """Return the penalty of a step, whose weight depends on where a search for a target is."""
        if self.multiplier is None:
            return self._penalty
        return replace(self._penalty, weight=self.multiplier.weight(expected_s))

    def _recompute(self, batch: Batch, rng: np.random.Generator) -> StepOutcome:
        p = self.choices.probabilities()
        plan = full_plan(self.choices.draw(rng), p, recompute=True)
        outcome = self._backward(batch, plan, p)
        self._update()
        return outcome

    def _two_path(self, batch: Batch, rng: np.random.Generator) -> StepOutcome:
        pairs = self.choices.draw_pairs(rng)
        plan, p = pair_plan(self.choices, pairs, rng)
        outcome = self._backward(batch, plan, p)
        pair_update(self.choices, pairs, self._update)
        return outcome

    def _reinforce(self, batch: Batch, rng: np.random.Generator) -> StepOutcome:
        config = self._config
        paths = [self.choices.draw(rng) for _ in range(config.networks_per_update)]
        with torch.no_grad():
            right = [
                parallel.mean(
                    _share_right(self._supernet(batch.images, run_plan(path)), batch.labels)
                )
                for path in paths
            ]
            expected_s = float(self._latency(self.choices.probabilities()))
        latencies = self._latency.of([path.arch for path in paths])
        penalty = self._penalty_at(expected_s)
        rewards = [
            reward(accuracy, latency_s, penalty)
            for accuracy, latency_s in zip(right, latencies, strict=True)
        ]
        baseline = self._baseline.before(rewards)
        logs = [self.choices.log_probability(path) for path in paths]
        loss = reinforce_loss(logs, rewards, baseline)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return StepOutcome(
            loss=float(loss.detach()), accuracy=float(np.mean(right)), expected_s=expected_s
        )

    @property
    def _has_diverged(self) -> bool:
        """Whether gradients overflow at every scale."""
        return self._scaler.is_enabled() and self._scaler.get_scale() < LEAST_SCALE

    def _update(self) -> None:
        """Move the logits by their scaled gradients; not where one of these has overflowed."""
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def _backward(
        self, batch: Batch, plan: GatePlan, probabilities: Mapping[Where, Tensor]
    ) -> StepOutcome:
        logits = self._supernet(batch.images, plan)
        # Plain cross-entropy: labels are smoothed for weights only.
        cross_entropy = functional.cross_entropy(logits.float(), batch.labels).cpu()
        expected_s = self._latency(probabilities)
        loss = self._penalty_at(expected_s.item())(cross_entropy, expected_s)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self.choices.alpha.values())
        return StepOutcome(
            loss=parallel.mean(loss.item()),
            accuracy=parallel.mean(_share_right(logits, batch.labels)),
            expected_s=expected_s.item(),
        )


_STEPS: Mapping[str, Callable[[ArchitectureSteps, Batch, np.random.Generator], StepOutcome]] = {
    "recompute": ArchitectureSteps._recompute,
    "two-path": ArchitectureSteps._two_path,
    "reinforce": ArchitectureSteps._reinforce,
}


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.detach().argmax(dim=1) == labels).double().mean().item()


def alpha_adam(choices: Choices, config: ProxylessConfig) -> torch.optim.Adam:
    """Return the optimiser of the logits."""
    return torch.optim.Adam(
        list(choices.alpha.values()),
        lr=config.alpha_lr,
        betas=config.alpha_betas,
        eps=config.alpha_eps,
        weight_decay=0.0,
    )


@dataclass(kw_only=True)
class Baseline:
    """A running mean of rewards: b ← decay · b + (1 − decay) · mean(R)."""

    decay: float
    value: float | None = None

    def before(self, rewards: Iterable[float]) -> float:
        """Return the baseline from before these rewards (at first: their mean), and take them."""
        mean = float(np.mean(list(rewards)))
        known = mean if self.value is None else self.value
        self.value = self.decay * known + (1.0 - self.decay) * mean
        return known


def reward(accuracy: float, latency_s: float, penalty: Penalty) -> float:
    """Return accuracy · (T / latency)^λ (MnasNet's; Tan et al., CVPR 2019).

    Under ``hinge`` the factor is at most 1: below the ceiling latency is free. The other kinds
    of penalty are losses, and only their weight and reference count here.
    """
    if penalty.weight == 0.0:
        return accuracy
    if latency_s <= 0.0:
        raise PlanError(
            f"a network has a latency of {latency_s} s; a reward needs more than 0: use a table "
            "with the constant part"
        )
    ratio = penalty.target_s / latency_s
    if penalty.kind == "hinge":
        ratio = min(1.0, ratio)
    return float(accuracy * ratio**penalty.weight)


def reinforce_loss(
    log_probabilities: Sequence[Tensor], rewards: Sequence[float], baseline: float
) -> Tensor:
    """Return −mean((R − b) · log p), whose gradient estimates −∇E[R] (Williams, 1992)."""
    terms = [(r - baseline) * log for r, log in zip(rewards, log_probabilities, strict=True)]
    return -torch.stack(terms).mean()
