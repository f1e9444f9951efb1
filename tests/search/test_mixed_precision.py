"""Mixed precision: scaled losses, steps left out, scales in checkpoints.

A CPU need not compute in fp16, so passes are in bfloat16 here; what is scaled, and when a step is
left out, does not depend on that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hwprof.errors import DataError, DeviceUnavailableError, PlanError
from hwprof.search.learning import mixed_precision, parallel, sgd
from hwprof.search.learning.batches import Batch
from hwprof.search.learning.checkpoint import load_checkpoint
from hwprof.search.learning.mixed_precision import require_precision, scaler
from hwprof.search.learning.sgd import TrainSettings
from hwprof.search.learning.training import train_network, train_supernet
from hwprof.search.proxyless.choices import Choices
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.steps import ArchitectureSteps, ProxylessConfig
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import Architecture
from tests.search.kills import Killed, assert_same_weights, killed_after
from tests.search.test_target import Planted

pytestmark = pytest.mark.usefixtures("small_and_quick")

FP16 = TrainSettings(epochs=2, batch=16, lr=0.05, warmup_epochs=1.0, seed=5, precision="fp16")
ARCH = Architecture(
    space="mobile-mini",
    resolution_px=32,
    units=(("mbconv_k3_e3",), ("mbconv_k5_e3",), ("mbconv_k3_e3",)),
)
FIRST_SCALE = 2.0**16
"""What torch's scaler begins with."""


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed_precision, "DTYPES", dict.fromkeys(("bf16", "fp16"), torch.bfloat16))


def overflowing(steps: set[int], patch: pytest.MonkeyPatch) -> None:
    """Let scaled gradients overflow in these steps: one of them becomes infinite."""
    ordinary = parallel.average_gradients
    count = iter(range(10_000))

    def average(parameters) -> None:
        found = [p for p in parameters if p.grad is not None]
        if next(count) in steps:
            found[0].grad[0] = float("inf")
        ordinary(found)

    patch.setattr(parallel, "average_gradients", average)


def weights_after_each_step(patch: pytest.MonkeyPatch) -> list[tuple[Tensor, float]]:
    """Return, once training has run, a copy of a weight after every step, and the scale."""
    seen: list[tuple[Tensor, float]] = []
    ordinary: Callable[..., None] = sgd.Training._step

    def step(self, batch):
        ordinary(self, batch)
        weight = next(self.module.parameters())
        seen.append((weight.detach().clone(), self._scaler.get_scale()))

    patch.setattr(sgd.Training, "_step", step)
    return seen


@pytest.mark.usefixtures("in_bf16")
class TestWeights:
    def test_scaling_by_a_power_of_two_changes_no_bit(self, task, tmp_path: Path):
        """bfloat16 has the exponents of float32: scaled passes are scaled exactly."""
        train_network(ARCH, task, FP16, tmp_path / "scaled.pt")
        train_network(ARCH, task, replace(FP16, precision="bf16"), tmp_path / "plain.pt")
        assert_same_weights(tmp_path / "scaled.pt", tmp_path / "plain.pt")

    def test_a_step_whose_gradient_overflows_is_left_out_and_halves_the_scale(
        self, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        overflowing({1}, monkeypatch)
        seen = weights_after_each_step(monkeypatch)
        summary = train_network(ARCH, task, FP16, tmp_path / "n.pt")
        assert summary.finished
        scales = [scale for _, scale in seen]
        assert scales == [FIRST_SCALE] + [FIRST_SCALE / 2] * (len(seen) - 1)
        moved = [not torch.equal(a, b) for (a, _), (b, _) in pairwise(seen)]
        assert moved == [False] + [True] * (len(seen) - 2)

    def test_killed_and_gone_on_with_it_ends_bit_equal_with_the_same_scale(
        self, space, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The scale was halved before the kill: a fresh one would differ."""
        whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
        for out, kill in ((whole, None), (broken, 3)):
            with monkeypatch.context() as patch:
                overflowing({1}, patch)
                if kill is None:
                    train_supernet(space, task, FP16, out)
                    continue
                killed_after(kill, patch)
                with pytest.raises(Killed):
                    train_supernet(space, task, FP16, out)
        found = load_checkpoint(broken)
        assert found.meta.step == 3
        assert found.scaler is not None
        assert found.scaler["scale"] == FIRST_SCALE / 2
        assert found.scaler["_growth_tracker"] == 1
        train_supernet(space, task, FP16, broken)
        assert_same_weights(whole, broken)
        assert load_checkpoint(whole).scaler == load_checkpoint(broken).scaler

    def test_a_gradient_that_overflows_at_every_scale_ends_training(
        self, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        overflowing(set(range(10_000)), monkeypatch)
        seen = weights_after_each_step(monkeypatch)
        # The scale goes from 2^16 to 2^0 in 16 steps; the next one is refused.
        with pytest.raises(DataError, match="a gradient that is no number at step 16 "):
            train_network(ARCH, task, replace(FP16, epochs=30), tmp_path / "n.pt")
        assert [scale for _, scale in seen] == [FIRST_SCALE / 2**i for i in range(1, 17)]

    def test_other_precisions_have_no_scale(self, task, tmp_path: Path):
        train_network(ARCH, task, replace(FP16, precision="bf16"), tmp_path / "n.pt")
        assert load_checkpoint(tmp_path / "n.pt").scaler is None
        assert not scaler("cpu", "fp32").is_enabled()


@pytest.mark.usefixtures("in_bf16")
class TestArchitecture:
    def steps(self, space, precision: str) -> ArchitectureSteps:
        config = ProxylessConfig(mode="two-path", precision=precision, alpha_lr=0.1)  # type: ignore[arg-type]
        return ArchitectureSteps(
            Supernet(space, seed=0),
            Choices(space, seed=0),
            ExpectedLatency(Planted(space), space),
            Penalty(weight=0.5, target_s=0.01),
            config,
        )

    def batch(self) -> Batch:
        images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
        return Batch(images=torch.from_numpy(images), labels=torch.arange(4))

    def logits(self, steps: ArchitectureSteps) -> dict[str, Tensor]:
        return steps.choices.state_dict()

    def test_a_scaled_step_is_the_plain_one(self, space):
        scaled, plain = self.steps(space, "fp16"), self.steps(space, "bf16")
        for steps in (scaled, plain):
            steps.step(self.batch(), np.random.default_rng(1))
        for name, alpha in self.logits(scaled).items():
            torch.testing.assert_close(alpha, self.logits(plain)[name], rtol=1e-9, atol=1e-12)

    def test_an_overflow_leaves_the_logits_and_the_scale_goes_into_the_state(
        self, space, monkeypatch: pytest.MonkeyPatch
    ):
        steps = self.steps(space, "fp16")
        before = self.logits(steps)
        with monkeypatch.context() as patch:
            overflowing({0}, patch)
            outcome = steps.step(self.batch(), np.random.default_rng(1))
        assert np.isfinite(outcome.loss)
        for name, alpha in self.logits(steps).items():
            torch.testing.assert_close(alpha, before[name], rtol=1e-12, atol=1e-15)
        other = self.steps(space, "fp16")
        other.load_state_dict(steps.state_dict())
        assert other.state_dict()["scaler"]["scale"] == FIRST_SCALE / 2
        for each in (steps, other):
            each.step(self.batch(), np.random.default_rng(2))
        for name, alpha in self.logits(steps).items():
            assert torch.equal(alpha, self.logits(other)[name])

    def test_an_overflow_at_every_scale_is_told(self, space, monkeypatch: pytest.MonkeyPatch):
        steps = self.steps(space, "fp16")
        overflowing(set(range(100)), monkeypatch)
        losses = [steps.step(self.batch(), np.random.default_rng(i)).loss for i in range(17)]
        assert np.isfinite(losses[:16]).all()
        assert np.isnan(losses[16])


def computes_fp16() -> bool:
    try:
        require_precision("cpu", "fp16")
    except DeviceUnavailableError:
        return False
    return True


class TestRefusals:
    def test_layers_that_torch_does_not_have_in_fp16_are_named(
        self, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def refuse(device: str, precision: str) -> None:
            raise RuntimeError("\"conv\" not implemented\nfor 'Half'")

        monkeypatch.setattr(mixed_precision, "_try_layers", refuse)
        with pytest.raises(
            DeviceUnavailableError, match=r"fp16 on 'cpu'.*not implemented for.*bf16"
        ):
            train_network(ARCH, task, FP16, tmp_path / "n.pt")
        assert not (tmp_path / "n.pt").exists()
        require_precision("cpu", "bf16")

    def test_this_cpu_trains_in_fp16_or_is_refused(self, task, tmp_path: Path):
        """Whichever it is, it is never another precision."""
        out = tmp_path / "n.pt"
        if not computes_fp16():
            with pytest.raises(DeviceUnavailableError, match="torch says"):
                train_network(ARCH, task, FP16, out)
            assert not out.exists()
            return
        train_network(ARCH, task, FP16, out)
        kept = load_checkpoint(out)
        assert kept.meta.settings["precision"] == "fp16"
        assert kept.scaler is not None
        assert {t.dtype for t in kept.weights.values() if t.is_floating_point()} == {torch.float32}
        train_network(ARCH, task, replace(FP16, precision="bf16"), tmp_path / "bf16.pt")
        assert kept.meta.loss != load_checkpoint(tmp_path / "bf16.pt").meta.loss

    def test_an_unknown_precision(self):
        with pytest.raises(PlanError, match="'fp8' of training; expected one of fp32, bf16, fp16"):
            ProxylessConfig(precision="fp8")  # type: ignore[arg-type]
