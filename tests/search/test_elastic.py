"""The supernet of OFA-ResNet-50: widths by slices, gated like every decision.

References are the standalone network of the same weights, a second implementation of the published
definition (``ofa_reference``), all paths run with detached outputs, and enumerations.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from hwprof.errors import SpaceError
from hwprof.graph import architecture_cost
from hwprof.search.batches import Batch
from hwprof.search.choices import Choices, Path
from hwprof.search.elastic import ElasticSupernet, supernet_of
from hwprof.search.evaluation import Judge, recalibrate, runner_of
from hwprof.search.expected_latency import ExpectedLatency
from hwprof.search.gates import GatePlan, frozen
from hwprof.search.ofa_weights import OfaSupernet
from hwprof.search.penalties import Penalty
from hwprof.search.plans import full_plan
from hwprof.search.proxyless import MODES, ArchitectureSteps, Mode, ProxylessConfig
from hwprof.search.proxyless_search import search_network, warmup_settings
from hwprof.search.supernet import Supernet, norms_of, private_statistics
from hwprof.search.target import WITHIN, Multiplier, derive, latency_range_s
from hwprof.search.tasks import ImageTask
from hwprof.search.training import extreme_network, train_supernet
from hwprof.space import Architecture, DesignSpace, Factor, Slot, get_space, resnet50
from tests.search.ofa_reference import run_resnet, write_resnet

pytestmark = pytest.mark.usefixtures("small_and_quick")

THIN = ((24, 32, 40), (40, 48, 64), (48, 64, 80), (64, 80, 96))
"""Widths of the units, so that tests take seconds; everything else is as published."""
IMAGES = torch.from_numpy(
    np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
)
SEEDS = range(4)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> DesignSpace:
    monkeypatch.setattr(resnet50, "UNIT_WIDTHS", THIN)
    return replace(get_space("ofa-resnet50", 32), n_classes=10)


def shaken(space: DesignSpace, dtype: torch.dtype = torch.float32) -> Supernet:
    """A supernet whose every tensor matters: no branch at zero, statistics of its own."""
    net = supernet_of(space, seed=0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=dtype)
            parameter.add_(noise, alpha=0.1)
        for norm in norms_of([net]):
            for buffer in (norm.running_mean, norm.running_var):
                assert buffer is not None
                buffer.add_(torch.rand(buffer.shape, generator=generator, dtype=dtype))
    return net


def sample(space: DesignSpace, seed: int) -> Architecture:
    return space.sample(np.random.default_rng(seed))


def state_of(net: Supernet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same_state(net: Supernet, before: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class TestForward:
    @pytest.mark.parametrize("training", [False, True])
    def test_a_path_is_the_standalone_network_of_the_same_weights(self, thin, training: bool):
        net = shaken(thin, torch.float64).train(training)
        for seed in SEEDS:
            arch = sample(thin, seed)
            alone = net.extract(arch).double().train(training)
            with torch.no_grad():
                found, expected = (
                    net(IMAGES.double(), GatePlan.single_path(arch)),
                    alone(IMAGES.double()),
                )
            # The extracted network passes through float32.
            assert (found - expected).abs().max() < 1e-3 * expected.std()

    def test_all_widths_and_stems_are_different_functions(self, thin):
        net = shaken(thin).eval()
        arch = extreme_network(thin, largest=True)
        assert arch.widths == (2,) * 6
        narrower = [
            replace(arch, widths=tuple(1 if i == j else 2 for j in range(6))) for i in range(6)
        ]
        with torch.no_grad():
            logits = [
                net(IMAGES, GatePlan.single_path(a))
                for a in (arch, replace(arch, stem_depth=0), *narrower)
            ]
        for first, second in itertools.combinations(logits, 2):
            assert not torch.allclose(first, second, rtol=1e-3)

    def test_at_the_published_widths(self):
        whole = get_space("ofa-resnet50", 32)
        space = whole.restrict({s: whole.choices(s)[:1] for s in whole.slots}, whole.min_depth)
        net = supernet_of(replace(space, n_classes=10), seed=0).eval()
        arch = sample(net.space, 1)
        with torch.no_grad():
            found = net(IMAGES, GatePlan.single_path(arch))
            torch.testing.assert_close(found, net.extract(arch).eval()(IMAGES))

    def test_with_one_ratio_it_is_the_published_supernet(self, tmp_path: FilePath):
        """Weights made up in the published layout, run by the published definition."""
        state = write_resnet()
        torch.save({"state_dict": state}, tmp_path / "published")
        whole = get_space("ofa-resnet50", 64)
        space = whole.restrict(dict.fromkeys(whole.slots, ("bottleneck_e0.35",)))
        net = supernet_of(space, seed=0).eval()
        largest = extreme_network(space, largest=True)
        given = OfaSupernet.open(tmp_path / "published").network(largest).state_dict()
        for placed in space.pieces(largest):
            for name, tensor in net._part(placed).items():
                tensor.copy_(given[f"{placed.scope}.{name.partition('.')[2]}"])
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        for seed in (0, 1):
            arch = sample(space, seed)
            assert arch.stem_depth is not None
            assert arch.widths is not None
            ratios = [[0.35] * len(unit) for unit in arch.units]
            with torch.inference_mode():
                found = net(images, GatePlan.single_path(arch))
                expected = run_resnet(state, images, ratios, arch.stem_depth, arch.widths)
            assert expected.std() > 0.1
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def test_depths_start_as_the_same_function(self, thin):
        net = supernet_of(thin, seed=0).eval()
        deep = extreme_network(thin, largest=True)
        shallow = replace(
            deep, units=tuple(u[:d] for u, d in zip(deep.units, thin.min_depth, strict=True))
        )
        with torch.no_grad():
            a, b = (net(IMAGES, GatePlan.single_path(arch)) for arch in (deep, shallow))
        torch.testing.assert_close(a, b)


class TestWeightStep:
    def test_what_does_not_run_has_no_gradient_and_what_is_cut_a_zero_one(self, thin):
        net = shaken(thin)
        arch = replace(extreme_network(thin, largest=True), widths=(2, 2, 0, 2, 2, 2))
        net(IMAGES, GatePlan.single_path(arch)).square().sum().backward()
        for slot in thin.slots:
            for block in thin.choices(slot):
                for parameter in net._candidate(slot, block).parameters():
                    assert (parameter.grad is not None) == (arch.block(slot) == block)
        block = arch.units[0][1]
        wide = net._candidate(Slot(0, 1), block).get_parameter("bottleneck.expand.conv.weight")
        assert wide.grad is not None
        # 24 of the 40 channels.
        assert bool(wide.grad[:24].any())
        assert not bool(wide.grad[24:].any())


class TestBatchNorm:
    def test_recalibrated_it_is_the_extracted_network_and_leaves_no_trace(
        self, thin, task: ImageTask
    ):
        net = shaken(thin)
        before, judge = state_of(net), Judge.of(net, task)
        for seed in SEEDS:
            arch = sample(thin, seed)
            plan = GatePlan.single_path(arch)
            norms = norms_of(net.path(plan))
            forward = partial(runner_of(net), plan=plan)
            with private_statistics(norms), torch.inference_mode():
                recalibrate(forward, norms, judge.batches)
                found = forward(IMAGES)
                expected = judge.network(arch)(IMAGES)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert_same_state(net, before)

    def test_training_records_the_statistics_of_the_channels_that_ran(self, thin):
        net = shaken(thin).train()
        before = state_of(net)
        arch = replace(extreme_network(thin, largest=True), widths=(0, 0, 2, 2, 2, 2))
        net(IMAGES, GatePlan.single_path(arch))
        name = "entry.stem.resnet_stem.conv1.norm.running_mean"
        after = net.state_dict()[name]
        # 24 of the 32 channels of the stem's middle.
        assert not bool((after[:24] == before[name][:24]).any())
        assert torch.equal(after[24:], before[name][24:])


def gradients(
    net: Supernet, choices: Choices, path: Path, *, recompute: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return the gradients of all logits, then of the images."""
    x = IMAGES.double().requires_grad_()
    with frozen(net):
        plan = full_plan(path, choices.probabilities(), recompute=recompute)
        loss = functional.cross_entropy(net(x, plan), torch.arange(4))
        *alphas, image = torch.autograd.grad(
            loss, [*choices.alpha.values(), x], allow_unused=True, materialize_grads=True
        )
    return alphas, image


class TestGates:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_recompute_equals_all_paths_detached_and_leaves_the_weights(self, thin, seed: int):
        net, choices = shaken(thin, torch.float64), Choices(thin, seed=0)
        before = state_of(net)
        path = choices.draw(np.random.default_rng(seed))
        (found, image), (expected, plain) = (
            gradients(net, choices, path, recompute=r) for r in (True, False)
        )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(image, plain, rtol=1e-8, atol=1e-11)
        by_where = dict(zip(choices.alpha, found, strict=True))
        for factor in thin.factors:
            assert bool((by_where[factor].abs() > 1e-12).any()), factor.name
        assert_same_state(net, before)

    def test_the_gate_of_a_width_has_the_closed_form(self, thin):
        """d_w = ⟨∂L/∂y, pad(o_w(x))⟩ at the last unit, taken apart by hand."""
        net, choices = shaken(thin, torch.float64), Choices(thin, seed=0)
        assert isinstance(net, ElasticSupernet)
        path = choices.draw(np.random.default_rng(2))
        plan = GatePlan.single_path(path.arch)
        factor = thin.factors[-1]
        with frozen(net):
            x = net._enter(plan, IMAGES.double())
            for unit in range(3):
                x = net._unit(plan, unit, x)
            outputs = []
            for level in factor.levels:
                y = net._layers(plan, 3, partial(net._narrow_block, level), x)
                outputs.append(functional.pad(y, (0, 0, 0, 0, 0, THIN[3][2] - y.shape[1])))
            y = outputs[path.picks[factor]].detach().requires_grad_()
            loss = functional.cross_entropy(net._leave(y), torch.arange(4))
            (grad,) = torch.autograd.grad(loss, y)
        d = torch.stack([(grad * o).sum() for o in outputs])
        p = choices.alpha[factor].detach().softmax(0)
        closed = p * (d - (p * d).sum())
        alphas, _ = gradients(net, choices, path, recompute=True)
        found = dict(zip(choices.alpha, alphas, strict=True))[factor]
        torch.testing.assert_close(found, closed, rtol=1e-8, atol=1e-11)

    def test_factors_are_decisions(self, thin):
        choices = Choices(thin, seed=0)
        assert [w.name for w in choices.options if isinstance(w, Factor)] == [
            "stem_depth",
            *resnet50.WIDTH_NAMES,
        ]
        path = choices.draw(np.random.default_rng(0))
        thin.validate(path.arch)
        assert thin.factor_levels(path.arch) == tuple(path.level(f) for f in thin.factors)


class PlantedLevels:
    """An additive latency model with random entries, of blocks and of factors."""

    def __init__(self, space: DesignSpace) -> None:
        rng = np.random.default_rng(1)
        self.space = space
        self._table = {
            (slot, block): float(rng.uniform(1e-4, 1e-3))
            for slot in space.slots
            for block in space.choices(slot)
        }
        self.levels = {
            factor.name: rng.uniform(0.0, 2e-3, len(factor.levels)) for factor in space.factors
        }

    def table(self) -> dict[tuple[Slot, str], float]:
        return dict(self._table)

    def expected_s(
        self,
        probabilities: Mapping[Slot, Any],
        *,
        depths: Mapping[int, Any] | None = None,
        factors: Mapping[str, Any] | None = None,
    ) -> Any:
        total: Any = torch.tensor(4e-3, dtype=torch.float64)
        for slot in self.space.slots:
            given = (depths or {})[slot.unit]
            lengths = self.space.depths(slot.unit)
            reach: Any = sum(p for d, p in zip(lengths, given, strict=True) if d > slot.layer)
            for block, p in zip(self.space.choices(slot), probabilities[slot], strict=True):
                total = total + reach * p * self._table[slot, block]
        for name, values in self.levels.items():
            shares = (factors or {}).get(name, [1.0 / len(values)] * len(values))
            total = total + sum(p * v for p, v in zip(shares, values.tolist(), strict=True))
        return total

    def predict_many(self, archs: Sequence[Architecture]) -> tuple[Any, Any]:
        found = []
        for arch in archs:
            levels = zip(self.space.factors, self.space.factor_levels(arch), strict=True)
            found.append(
                4e-3
                + sum(
                    self._table[Slot(u, layer), block]
                    for u, blocks in enumerate(arch.units)
                    for layer, block in enumerate(blocks)
                )
                + sum(self.levels[f.name][f.levels.index(level)] for f, level in levels)
            )
        return np.array(found), np.zeros(len(found))


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


def test_extreme_networks_bound_the_costs(thin):
    low, high = (
        architecture_cost(thin, extreme_network(thin, largest=large)).macs
        for large in (False, True)
    )
    found = [architecture_cost(thin, sample(thin, seed)).macs for seed in range(50)]
    assert low <= min(found)
    assert max(found) <= high


class TestRefusals:
    def test_a_plan_without_widths(self, thin):
        net = supernet_of(thin, seed=0)
        with pytest.raises(SpaceError, match="says nothing of stem_depth; expected one of"):
            net(IMAGES, GatePlan(blocks={}))

    def test_a_block_that_a_reduction_dropped_is_named(self, thin):
        space = thin.restrict({Slot(0, 0): ("bottleneck_e0.2",)})
        largest = extreme_network(thin, largest=True)
        first = ("bottleneck_e0.35", *largest.units[0][1:])
        arch = replace(largest, units=(first, *largest.units[1:]))
        with pytest.raises(SpaceError, match=r"no 'bottleneck_e0\.35' in unit 0 layer 0"):
            supernet_of(space, seed=0)(IMAGES, GatePlan.single_path(arch))

    def test_a_space_of_cells(self):
        with pytest.raises(SpaceError, match="'nasbench201' has no supernet"):
            supernet_of(get_space("nasbench201"), seed=0)
