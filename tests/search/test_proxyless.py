"""ProxylessNAS: its estimators against enumerations, its steps, a search with a known optimum.

References are the closed forms of the specification (pair sampling, softmax, Williams' REINFORCE)
and finite differences; nothing is compared with what the code once printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwprof.errors import PlanError, SpaceError
from hwprof.search.learning.batches import Batch
from hwprof.search.proxyless.choices import Choices, Path, Where
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.steps import (
    MODES,
    ArchitectureSteps,
    Baseline,
    Mode,
    ProxylessConfig,
    reinforce_loss,
    reward,
)
from hwprof.search.supernets.gates import GatePlan, mixed
from hwprof.space import SKIP, Architecture, DesignSpace, Slot, get_space
from tests.search.additive import BLOCKS, COSTS, EDGES, PlantedTable, set_probabilities, toy_space

pytestmark = pytest.mark.usefixtures("one_thread")


class TestReinforce:
    def test_the_enumerated_mean_is_the_true_gradient(self):
        """Σ_a p(a) (R(a) − b) ∇log p(a) = ∇ Σ_a p(a) R(a), for any baseline."""
        space = toy_space()
        choices = Choices(space, seed=1)
        set_probabilities(choices, np.array([0.4, 0.3, 0.2, 0.1]))
        rng = np.random.default_rng(0)
        paths = [
            Path(space=space, picks=dict(zip(EDGES, picks, strict=True)))
            for picks in product(range(4), repeat=3)
        ]
        rewards = rng.random(len(paths)).tolist()
        logs = [choices.log_probability(path) for path in paths]
        chances = [log.exp() for log in logs]
        alphas = list(choices.alpha.values())
        objective = torch.stack([c * r for c, r in zip(chances, rewards, strict=True)]).sum()
        exact = torch.autograd.grad(objective, alphas, retain_graph=True)
        for baseline in (0.0, 0.7):
            mean = [torch.zeros_like(a) for a in alphas]
            for chance, log, r in zip(chances, logs, rewards, strict=True):
                loss = reinforce_loss([log], [r], baseline)
                for total, g in zip(
                    mean, torch.autograd.grad(loss, alphas, retain_graph=True), strict=True
                ):
                    total -= chance.detach() * g
            for a, b in zip(mean, exact, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)

    def test_layers_that_are_not_there_have_no_part(self):
        space = get_space("mobile-mini")
        choices = Choices(space, seed=0)
        shallow = Path(space=space, picks=dict.fromkeys(choices.alpha, 0))
        assert [len(u) for u in shallow.arch.units] == [1, 1, 1]
        choices.log_probability(shallow).backward()
        for where, alpha in choices.alpha.items():
            absent = isinstance(where, Slot) and where.layer > 0
            assert (alpha.grad is None or not bool(alpha.grad.any())) == absent, where

    def test_baseline_forgets_slowly(self):
        baseline = Baseline(decay=0.9)
        assert baseline.before([1.0, 3.0]) == 2.0
        assert baseline.before([0.0]) == pytest.approx(2.0)
        assert baseline.value == pytest.approx(0.9 * 2.0)

    def test_reward(self):
        penalty = Penalty(weight=0.5, target_s=0.01)
        assert reward(0.7, 0.02, penalty) == pytest.approx(0.7 / 2**0.5)
        assert reward(0.7, 0.005, penalty) == pytest.approx(0.7 * 2**0.5)
        assert reward(0.7, 0.02, Penalty(weight=0.0, target_s=0.01)) == 0.7
        with pytest.raises(PlanError, match=r"latency of 0\.0 s"):
            reward(0.7, 0.0, penalty)

    def test_under_a_ceiling_latency_is_free(self):
        ceiling = Penalty(kind="hinge", weight=0.5, target_s=0.01)
        assert reward(0.7, 0.005, ceiling) == 0.7
        assert reward(0.7, 0.02, ceiling) == pytest.approx(0.7 / 2**0.5)


class ToySupernet(nn.Module):
    """Three residual linear maps per edge, and skip; the labels are those of a planted path."""

    def __init__(self, space: DesignSpace) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.space = space
        self.maps = nn.ParameterDict(
            {
                f"{s.layer}_{b}": torch.randn(8, 8, generator=generator)
                for s in EDGES
                for b in BLOCKS
            }
        )

    def forward(self, x: Tensor, plan: GatePlan) -> Tensor:
        for slot in EDGES:
            if slot in plan.blocks:
                x = mixed(x, plan.blocks[slot], partial(self.candidate, slot))
        return x

    def candidate(self, slot: Slot, block: str, x: Tensor) -> Tensor:
        return x if block == SKIP else x + (x @ self.maps[f"{slot.layer}_{block}"]).tanh() * 2.0


OPTIMUM: Mapping[Where, int] = {EDGES[0]: 1, EDGES[1]: 3, EDGES[2]: 2}


def toy_search(mode: Mode, seed: int, *, weight: float, steps: int = 120) -> Choices:
    """Search the toy with frozen weights; the planted optimum skips the second edge."""
    space = toy_space()
    net = ToySupernet(space)
    choices = Choices(space, seed=seed)
    latency = ExpectedLatency(PlantedTable(space, COSTS), space)
    config = ProxylessConfig(mode=mode, alpha_lr=0.06)
    steps_of = ArchitectureSteps(
        net,  # type: ignore[arg-type]
        choices,
        latency,
        Penalty(weight=weight, target_s=0.02),
        config,
    )
    best = Path(space=space, picks=OPTIMUM)
    plan = GatePlan.single_path(best.arch)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        x = torch.from_numpy(rng.standard_normal((32, 8)).astype(np.float32)) * 2.0
        with torch.no_grad():
            labels = net(x, plan).argmax(dim=1)
        steps_of.step(Batch(images=x, labels=labels), rng)
    return choices


class TestToySearch:
    @pytest.mark.parametrize("mode", MODES)
    def test_finds_a_planted_optimum_that_skips(self, mode: Mode):
        """At least 16 of 20 seeds, the bar of the specification."""
        found = [toy_search(mode, seed, weight=0.0).best().picks for seed in range(20)]
        assert sum(picks == OPTIMUM for picks in found) >= 16

    @pytest.mark.parametrize("mode", MODES)
    def test_a_larger_latency_weight_does_not_give_slower_networks(self, mode: Mode):
        space = toy_space()
        latency = ExpectedLatency(PlantedTable(space, COSTS), space)
        means = []
        for weight in (0.0, 1.0, 20.0):
            archs = [toy_search(mode, seed, weight=weight).best().arch for seed in range(3)]
            means.append(np.mean(latency.of(archs)))
        assert means == sorted(means, reverse=True)
        assert means[-1] < means[0]


def test_export_is_the_argmax_and_deterministic():
    choices = Choices(get_space("mobile-mini"), seed=0)
    again = Choices(get_space("mobile-mini"), seed=0)
    best = choices.best()
    assert best.arch == again.best().arch == choices.best().arch
    for where, alpha in choices.alpha.items():
        assert alpha[best.picks[where]].item() == alpha.max().item()
    assert Architecture.from_json(best.arch.to_json()) == best.arch


def test_the_schedule_of_architecture_steps():
    """Every fifth iteration, none in epoch 0."""
    config = ProxylessConfig()
    found = [step for step in range(40) if config.is_alpha_step(step, per_epoch=20)]
    assert found == [24, 29, 34, 39]


@pytest.mark.parametrize(
    ("per_epoch", "every", "first"), [(4, 5, 1), (1, 5, 1), (3, 2, 1), (4, 4, 2), (20, 5, 0)]
)
def test_epochs_without_an_architecture_step_are_refused(per_epoch: int, every: int, first: int):
    """The least number that is told is the least that the schedule gives a step in."""

    def config(epochs: int) -> ProxylessConfig:
        return ProxylessConfig(epochs=epochs, alpha_every=every, alpha_first_epoch=first)

    least = next(
        epochs
        for epochs in range(1, 100)
        if any(config(epochs).is_alpha_step(s, per_epoch) for s in range(epochs * per_epoch))
    )
    config(least).require_alpha_steps(per_epoch)
    for epochs in range(1, least):
        with pytest.raises(PlanError, match=f"at least {least} with --epochs"):
            config(epochs).require_alpha_steps(per_epoch)


def test_defaults_are_the_published_ones():
    """The table of hyperparameters of mit-han-lab/proxylessnas, `search/`."""
    config = ProxylessConfig()
    assert (config.warmup_epochs, config.epochs, config.batch) == (40, 120, 256)
    assert (config.warmup_lr, config.lr, config.weight_decay) == (0.05, 0.025, 4e-5)
    assert (config.alpha_lr, config.alpha_betas, config.alpha_eps) == (1e-3, (0.0, 0.999), 1e-8)
    assert all(isinstance(beta, float) for beta in config.alpha_betas)
    assert (config.alpha_every, config.alpha_first_epoch, config.label_smoothing) == (5, 1, 0.1)
    assert (config.networks_per_update, config.reward_images) == (10, 1000)


def test_a_space_of_one_network_is_refused():
    space = get_space("mobile-mini")
    one = space.restrict(dict.fromkeys(space.slots, ("mbconv_k3_e3",)), (1, 1, 1))
    with pytest.raises(SpaceError, match="nothing to search"):
        Choices(one, seed=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "gumbel"},
        {"epochs": 0},
        {"alpha_every": 0},
        {"alpha_lr": 0.0},
        {"alpha_lr": float("nan")},
        {"alpha_lr": float("inf")},
        {"device": "cuda:first"},
        {"device": "cuda:01"},
        {"device": "cpu:0"},
    ],
)
def test_settings_without_meaning_are_refused(bad: dict[str, Any]):
    with pytest.raises(PlanError):
        ProxylessConfig(**bad)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_to_train_on(device: str):
    assert ProxylessConfig(device=device).device == device
