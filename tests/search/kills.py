"""Training that is killed, and whether two came to the same; a small ProxylessNAS search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.search.learning import sgd
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.steps import ProxylessConfig
from hwprof.space import Architecture

CONFIG = ProxylessConfig(
    warmup_epochs=1, epochs=4, batch=12, alpha_lr=0.05, networks_per_update=3, alpha_every=2, seed=3
)
PENALTY = Penalty(weight=0.1, target_s=0.002)


class Killed(BaseException):
    """Stands for the process being ended in the middle of a step."""


def killed_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """End training in the step after ``steps``; every step is checkpointed."""
    patch.setattr(sgd, "CHECKPOINT_INTERVAL_S", 0.0)
    ordinary, count = sgd.Training._step, iter(range(steps))

    def step(self, batch):
        if next(count, None) is None:
            raise Killed
        ordinary(self, batch)

    patch.setattr(sgd.Training, "_step", step)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).weights)


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_same(a: Path, b: Path) -> None:
    """Of a search: the weights, and what accompanies them."""
    assert_same_weights(a, b)
    first, second = load_checkpoint(a), load_checkpoint(b)
    assert first.companion is not None
    assert second.companion is not None
    for name, alpha in first.companion["alpha"].items():
        assert torch.equal(alpha, second.companion["alpha"][name]), name
    assert first.companion["course"] == second.companion["course"]
    assert first.companion["baseline"] == second.companion["baseline"]


def predictions(model: AdditiveLatencyModel):
    def predicted(archs: Sequence[Architecture]) -> list[tuple[float, float]]:
        latency, half = model.predict_many(archs)
        return list(zip(latency.tolist(), half.tolist(), strict=True))

    return predicted
