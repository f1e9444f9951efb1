"""The supernet of OFA-ResNet-50: widths by slices, gated like every decision.

References are the standalone network of the same weights, a second implementation of the published
definition (``ofa_reference``), all paths run with detached outputs, and enumerations.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
from torch.nn import functional

from hwprof.errors import SpaceError
from hwprof.graph import architecture_cost
from hwprof.search.data.tasks import ImageTask
from hwprof.search.learning.evaluation import SupernetJudge, recalibrate, runner_of
from hwprof.search.learning.training import extreme_network
from hwprof.search.proxyless.choices import Choices, Path
from hwprof.search.proxyless.plans import full_plan
from hwprof.search.supernets.elastic import ElasticSupernet, supernet_of
from hwprof.search.supernets.gates import GatePlan, frozen, norms_of
from hwprof.search.supernets.ofa_weights import OfaSupernet
from hwprof.search.supernets.supernet import Supernet, private_statistics
from hwprof.space import Architecture, DesignSpace, Factor, Slot, get_space, resnet50
from tests.search.ofa_reference import run_resnet, write_resnet
from tests.search.thin import IMAGES, THIN, assert_same_state, shaken, state_of

pytestmark = pytest.mark.usefixtures("small_and_quick")

SEEDS = range(4)


def sample(space: DesignSpace, seed: int) -> Architecture:
    return space.sample(np.random.default_rng(seed))


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
        before, judge = state_of(net), SupernetJudge.of(net, task)
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
        with pytest.raises(SpaceError, match="says nothing of stem_depth; expected 0 or 2"):
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
