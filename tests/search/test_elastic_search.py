"""ProxylessNAS over the widths of OFA-ResNet-50: expected latency, targets, a whole search."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning.batches import Batch
from hwprof.search.learning.training import train_supernet
from hwprof.search.proxyless.choices import Choices, Path
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.search import search_network, warmup_settings
from hwprof.search.proxyless.steps import MODES, ArchitectureSteps, Mode, ProxylessConfig
from hwprof.search.proxyless.target import WITHIN, Multiplier, derive, latency_range_s
from hwprof.space import Architecture, DesignSpace, Slot
from tests.search.additive import AdditiveTable
from tests.search.thin import IMAGES, assert_same_state, shaken, state_of

pytestmark = pytest.mark.usefixtures("small_and_quick")


class PlantedLevels(AdditiveTable):
    """An additive latency model with random entries, of blocks and of factors."""

    def __init__(self, space: DesignSpace) -> None:
        rng = np.random.default_rng(1)
        table_s = {
            (slot, block): float(rng.uniform(1e-4, 1e-3))
            for slot in space.slots
            for block in space.choices(slot)
        }
        super().__init__(space, table_s, constant_s=4e-3)
        self.levels = {
            factor.name: rng.uniform(0.0, 2e-3, len(factor.levels)) for factor in space.factors
        }

    def expected_s(
        self,
        probabilities: Mapping[Slot, Any],
        *,
        depths: Mapping[int, Any] | None = None,
        factors: Mapping[str, Any] | None = None,
    ) -> Any:
        total = super().expected_s(probabilities, depths=depths)
        for name, values in self.levels.items():
            shares = (factors or {}).get(name, [1.0 / len(values)] * len(values))
            total = total + sum(p * v for p, v in zip(shares, values.tolist(), strict=True))
        return total

    def predict_many(self, archs: Sequence[Architecture]) -> tuple[Any, Any]:
        found, half = super().predict_many(archs)
        for i, arch in enumerate(archs):
            levels = zip(self.space.factors, self.space.factor_levels(arch), strict=True)
            found[i] += sum(self.levels[f.name][f.levels.index(level)] for f, level in levels)
        return found, half


def of_factors_only(space: DesignSpace) -> DesignSpace:
    """The space with nothing left to decide but its factors: 1458 networks."""
    return space.restrict({s: space.choices(s)[:1] for s in space.slots}, space.min_depth)


class TestLatency:
    def test_the_expectation_of_a_certain_network_is_its_latency(self, thin):
        choices = Choices(thin, seed=0)
        latency = ExpectedLatency(PlantedLevels(thin), thin)
        path = choices.draw(np.random.default_rng(3))
        certain = {
            where: functional.one_hot(torch.tensor(pick), len(choices.options[where])).double()
            for where, pick in path.picks.items()
        }
        assert latency(certain).item() == pytest.approx(latency.of([path.arch])[0], rel=1e-12)

    def test_levels_are_told_against_their_mean(self, thin):
        model = PlantedLevels(thin)
        found = ExpectedLatency(model, thin).levels_s
        for factor in thin.factors:
            planted = model.levels[factor.name]
            assert found[factor] == pytest.approx(planted - planted.mean(), abs=1e-12)

    def test_a_gradient_reaches_the_factors(self, thin):
        model, choices = PlantedLevels(thin), Choices(thin, seed=0)
        ExpectedLatency(model, thin)(choices.probabilities()).backward()
        for factor in thin.factors:
            p = choices.alpha[factor].detach().softmax(0)
            costs = torch.from_numpy(model.levels[factor.name])
            torch.testing.assert_close(
                choices.alpha[factor].grad, p * (costs - (p * costs).sum()), rtol=1e-9, atol=1e-15
            )

    def test_range_and_derived_network_are_those_of_an_enumeration(self, thin):
        space = of_factors_only(thin)
        latency, choices = ExpectedLatency(PlantedLevels(space), space), Choices(space, seed=0)
        rng = np.random.default_rng(5)
        with torch.no_grad():
            for alpha in choices.alpha.values():
                alpha.copy_(torch.from_numpy(rng.normal(0.0, 1.5, len(alpha))))
        picks = itertools.product(*(range(len(f.levels)) for f in space.factors))
        paths = [Path(space=space, picks=dict(zip(space.factors, p, strict=True))) for p in picks]
        found = np.array(latency.of([path.arch for path in paths]))
        assert len(paths) == 1458
        assert latency_range_s(latency, space) == pytest.approx((found.min(), found.max()))
        logs = np.array([choices.log_probability(path).item() for path in paths])
        for share in (0.2, 0.5, 0.8):
            target_s = float(np.quantile(found, share))
            derived = derive(choices, latency, Multiplier(target_s=target_s))
            assert abs(latency.of([derived.arch])[0] / target_s - 1.0) <= WITHIN
            # Rounding to cells moves the sum of seven decisions by 0.35 % of the target at most.
            surely = np.abs(found / target_s - 1.0) <= WITHIN - 0.004
            assert choices.log_probability(derived).item() >= logs[surely].max() - 1e-9


class TestSearch:
    @pytest.mark.parametrize("mode", MODES)
    def test_an_architecture_step_moves_every_width(self, thin, mode: Mode):
        net, choices = shaken(thin), Choices(thin, seed=0)
        before = state_of(net)
        config = ProxylessConfig(mode=mode, networks_per_update=2, alpha_lr=0.1)
        latency = ExpectedLatency(PlantedLevels(thin), thin)
        start = {f: choices.alpha[f].detach().clone() for f in thin.factors}
        steps = ArchitectureSteps(net, choices, latency, Penalty(weight=0.5, target_s=0.01), config)
        rng = np.random.default_rng(0)
        batch = Batch(images=IMAGES, labels=torch.arange(4))
        for _ in range(2):
            outcome = steps.step(batch, rng)
        assert np.isfinite(outcome.loss)
        # A reward's sign depends on luck, and two equal rewards say nothing.
        if mode != "reinforce":
            for factor in thin.factors:
                assert not torch.equal(choices.alpha[factor].detach(), start[factor])
        assert_same_state(net, before)

    def test_a_whole_search_repeats_to_the_bit(self, thin, task: ImageTask, tmp_path: FilePath):
        space = thin.restrict({s: thin.choices(s)[:2] for s in thin.slots}, thin.min_depth)
        config = ProxylessConfig(warmup_epochs=1, epochs=2, batch=12, alpha_lr=0.05, alpha_every=2)
        latency = ExpectedLatency(PlantedLevels(space), space)
        warm = tmp_path / "warm.pt"
        figures = train_supernet(space, task, warmup_settings(config, task), warm).meta.figures
        assert figures is not None
        assert {"smallest_network_pct", "largest_network_pct"} <= set(figures)
        first, second = (
            search_network(
                space,
                task,
                latency,
                Penalty(weight=0.1, target_s=0.01),
                config,
                warmup=warm,
                out=tmp_path / f"{name}.pt",
            )
            for name in ("a", "b")
        )
        space.validate(first.arch)
        assert first.arch == second.arch
        assert first.course == second.course
        assert "width_u3" in first.course[-1].entropy_nat
