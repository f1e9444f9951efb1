"""The supernet: one path at a time, own batch norm statistics, networks that can be taken out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional

from hwprof.errors import SpaceError
from hwprof.graph import architecture_cost, network_graph, to_onnx, to_torch, weights_from_torch
from hwprof.search.data.tasks import DIGITS, ImageTask, load_task
from hwprof.search.learning.evaluation import (
    SupernetJudge,
    recalibrate,
    recalibration_batches,
    top1_pct,
)
from hwprof.search.learning.training import extreme_network
from hwprof.search.supernets.gates import GatePlan, Mix, norms_of
from hwprof.search.supernets.supernet import Supernet, private_statistics
from hwprof.space import SKIP, Architecture, DesignSpace, Slot, get_space
from hwprof.space.mbconv import MBConvSpace

FEW = {
    Slot(unit, layer): ("mbconv_k3_e3", "mbconv_k5_e6") for unit in range(3) for layer in range(2)
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task() -> ImageTask:
    return load_task(DIGITS, resolution_px=32, limit_images=120)


@pytest.fixture(scope="module")
def space() -> DesignSpace:
    return get_space("mobile-mini").restrict(FEW, (2, 2, 2))


@pytest.fixture
def supernet(space: DesignSpace) -> Supernet:
    """A supernet whose every parameter matters: no branch is at zero."""
    net = Supernet(space, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return net


def network(*units: tuple[str, ...]) -> Architecture:
    return Architecture(space="mobile-mini", resolution_px=32, units=units)


SMALL, LARGE = ("mbconv_k3_e3",), ("mbconv_k5_e6",)
MIXED = network(SMALL + LARGE, LARGE, SMALL + SMALL)
IMAGES = torch.from_numpy(
    np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
)


def state_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same_state(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def step(net: Supernet, arch: Architecture) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    loss = functional.cross_entropy(net(IMAGES, GatePlan.single_path(arch)), torch.arange(4))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


class TestOnePath:
    def test_a_step_leaves_idle_candidates_bit_identical_and_without_gradient(
        self, supernet: Supernet
    ):
        before = state_of(supernet)
        step(supernet, MIXED)
        ran = {"candidates.u0_l0.mbconv_k3_e3", "candidates.u0_l1.mbconv_k5_e6"}
        ran |= {"candidates.u1_l0.mbconv_k5_e6"}
        ran |= {"candidates.u2_l0.mbconv_k3_e3", "candidates.u2_l1.mbconv_k3_e3"}
        shared = ("entry.", "head.")
        for name, parameter in supernet.named_parameters():
            active = name.startswith(shared) or name.rsplit(".mbconv.")[0] in ran
            assert (parameter.grad is not None) == active, name
            # Weight decay alone would have moved them.
            assert torch.equal(parameter, before[name]) != active, name
        for name, buffer in supernet.named_buffers():
            if not name.startswith(shared) and name.rsplit(".mbconv.")[0] not in ran:
                assert torch.equal(buffer, before[name]), name

    def test_runs_as_often_as_the_network_costs(self, supernet: Supernet, space: DesignSpace):
        used = sum(
            p.numel()
            for module in supernet.path(GatePlan.single_path(MIXED))
            for p in module.parameters()
        )
        assert used == architecture_cost(space, MIXED).params

    def test_holds_every_candidate_once(self, supernet: Supernet, space: DesignSpace):
        own = sum(p.numel() for p in supernet.candidates.parameters())
        fixed = sum(p.numel() for p in supernet.parameters()) - own
        smallest, largest = (extreme_network(space, largest=large) for large in (False, True))
        deep_small = network(*[SMALL * 2] * 3)
        costs = [architecture_cost(space, a).params - fixed for a in (deep_small, largest)]
        # Two candidates a slot: everything small plus everything large is everything.
        assert own == sum(costs)
        assert architecture_cost(space, smallest).params < architecture_cost(space, MIXED).params

    def test_a_candidate_that_is_not_there_is_named(self, supernet: Supernet):
        plan = GatePlan(blocks={Slot(1, 0): Mix(run=("mbconv_k7_e6",))})
        with pytest.raises(SpaceError, match="no 'mbconv_k7_e6' in unit 1 layer 0"):
            supernet(IMAGES, plan)

    def test_a_slot_that_is_not_there_is_named(self, supernet: Supernet):
        too_deep = network(SMALL * 3, SMALL, SMALL)
        with pytest.raises(SpaceError, match="no layer 2 in unit 0"):
            supernet(IMAGES, GatePlan.single_path(too_deep))

    def test_skip_hands_the_input_on(self):
        space = get_space("proxylessnas", 32)
        assert isinstance(space, MBConvSpace)
        keep = {s: ("mbconv_k3_e3", *([SKIP] if s.layer else [])) for s in space.slots}
        net = Supernet(replace(space.restrict(keep), n_classes=4), seed=0).eval()
        short = Architecture(
            space="proxylessnas",
            resolution_px=32,
            units=tuple(("mbconv_k3_e3",) + (SKIP,) * (d - 1) for d in space.max_depth),
        )
        named = set(GatePlan.single_path(short).blocks)
        assert named == {Slot(unit, 0) for unit in range(6)}
        with torch.no_grad():
            extracted = net.extract(short).eval()
            torch.testing.assert_close(net(IMAGES, GatePlan.single_path(short)), extracted(IMAGES))

    def test_a_space_of_cells_has_no_supernet(self):
        with pytest.raises(SpaceError, match="'nasbench201' has no supernet"):
            Supernet(get_space("nasbench201"), seed=0)

    @pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-proxylessnas-w1.3"])
    def test_takes_the_other_mobile_spaces(self, name: str):
        space = get_space(name, 32)
        space = space.restrict({s: space.choices(s)[:1] for s in space.slots}, space.min_depth)
        net = Supernet(space, seed=0).eval()
        arch = space.sample(np.random.default_rng(0))
        with torch.no_grad():
            torch.testing.assert_close(
                net(IMAGES, GatePlan.single_path(arch)), net.extract(arch).eval()(IMAGES)
            )


class TestStart:
    def test_the_seed_decides_the_weights(self, space: DesignSpace):
        first, same, other = (Supernet(space, seed=s) for s in (0, 0, 1))
        assert_same_state(same, state_of(first))
        assert not torch.equal(
            first.head.state_dict()["head.classifier.weight"],
            other.head.state_dict()["head.classifier.weight"],
        )

    def test_all_depths_start_as_the_same_function(self, space: DesignSpace):
        net = Supernet(space, seed=0).eval()
        deep, shallow = network(*[SMALL * 2] * 3), network(*[SMALL] * 3)
        with torch.no_grad():
            outputs = [net(IMAGES, GatePlan.single_path(a)) for a in (deep, shallow)]
        assert torch.equal(outputs[0], outputs[1])

    def test_smaller_candidates_start_as_parts_of_the_largest(self, space: DesignSpace):
        net = Supernet(space, seed=0)
        small, large = (
            net.candidates.get_submodule(f"u1_l0.{b[0]}").state_dict() for b in (SMALL, LARGE)
        )
        name = "mbconv.depthwise.conv.weight"
        channels = small[name].shape[0]
        part = large[name][:channels, :, 1:4, 1:4]
        ratio = part / small[name]
        # One factor keeps the variance that He's rule asks for.
        torch.testing.assert_close(ratio, torch.full_like(ratio, ratio.mean().item()))

    def test_weights_have_he_variance(self, space: DesignSpace):
        net = Supernet(space, seed=0)
        for name, weight in net.named_parameters():
            if weight.ndim == 4:
                expected = 2.0 / weight[0].numel()
                assert weight.square().mean().item() == pytest.approx(expected, rel=0.25), name


class TestExtract:
    def test_extracted_network_computes_the_same(self, supernet: Supernet):
        supernet.eval()
        with torch.no_grad():
            expected = supernet(IMAGES, GatePlan.single_path(MIXED))
            torch.testing.assert_close(supernet.extract(MIXED).eval()(IMAGES), expected)

    def test_it_is_a_copy(self, supernet: Supernet):
        before = state_of(supernet)
        module = supernet.extract(MIXED)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        assert_same_state(supernet, before)

    def test_recalibrated_it_exports_to_onnx_with_the_same_outputs(
        self, supernet: Supernet, space: DesignSpace, task: ImageTask
    ):
        judge = SupernetJudge.of(supernet, task)
        module = judge.network(MIXED)
        graph = network_graph(space, MIXED)
        content = to_onnx(graph, weights=weights_from_torch(graph, module), batch=4)
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {graph.inputs[0].name: IMAGES.numpy()})
        with torch.no_grad():
            expected = module(IMAGES).numpy()
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


class TestRecalibration:
    def test_judging_leaves_the_supernet_bit_identical(self, supernet: Supernet, task: ImageTask):
        before = state_of(supernet)
        modes = [m.training for m in supernet.modules()]
        first = SupernetJudge.of(supernet, task).top1_pct(MIXED, [task.validation])
        assert_same_state(supernet, before)
        assert [m.training for m in supernet.modules()] == modes
        assert all(n.momentum == 0.1 for n in norms_of([supernet]))
        assert SupernetJudge.of(supernet, task).top1_pct(MIXED, [task.validation]) == first

    def test_equals_the_extracted_network_recalibrated(self, supernet: Supernet, task: ImageTask):
        judge = SupernetJudge.of(supernet, task)
        module = judge.network(MIXED)
        splits = [task.validation, task.test]
        assert judge.top1_pct(MIXED, splits) == [top1_pct(module, task, s) for s in splits]

    def test_statistics_are_the_mean_over_batches(self, space: DesignSpace, task: ImageTask):
        (batch,) = recalibration_batches(task)
        net = Supernet(space, seed=0)
        module = net.extract(MIXED)
        stem = module.get_submodule("stem.conv")
        halves = [
            replace(batch, images=batch.images[i::2], labels=batch.labels[i::2]) for i in (0, 1)
        ]
        recalibrate(module, norms_of([module]), halves)
        with torch.no_grad():
            maps = [stem.conv(h.images) for h in halves]  # type: ignore[operator]
        mean = torch.stack([m.mean(dim=(0, 2, 3)) for m in maps]).mean(dim=0)
        variance = torch.stack([m.var(dim=(0, 2, 3)) for m in maps]).mean(dim=0)
        norm = stem.norm
        assert isinstance(norm, torch.nn.BatchNorm2d)
        torch.testing.assert_close(norm.running_mean, mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(norm.running_var, variance, atol=1e-5, rtol=1e-4)

    def test_matters(self, supernet: Supernet, task: ImageTask):
        """What it is for: with another network's statistics the outputs are others."""
        judge = SupernetJudge.of(supernet, task)
        right = judge.network(MIXED)
        wrong = supernet.extract(MIXED).eval()
        with torch.no_grad():
            assert not torch.allclose(right(IMAGES), wrong(IMAGES), rtol=0.1)

    def test_an_error_inside_restores_the_statistics_too(self, supernet: Supernet):
        before = state_of(supernet)
        bad_images = IMAGES[:, :2]
        with pytest.raises(RuntimeError), private_statistics(norms_of([supernet])):
            supernet(IMAGES, GatePlan.single_path(MIXED)) + supernet(
                bad_images, GatePlan(blocks={})
            )
        assert_same_state(supernet, before)


def test_extreme_networks_bound_the_costs(space: DesignSpace):
    rng = np.random.default_rng(0)
    low, high = (
        architecture_cost(space, extreme_network(space, largest=large)).macs
        for large in (False, True)
    )
    found = [architecture_cost(space, space.sample(rng)).macs for _ in range(50)]
    assert low <= min(found)
    assert max(found) <= high
    assert extreme_network(space, largest=True).units == (LARGE * 2,) * 3


def test_channels_last_and_plain_memory_agree(supernet: Supernet):
    supernet.eval()
    plan = GatePlan.single_path(MIXED)
    with torch.no_grad():
        plain = to_torch(network_graph(supernet.space, MIXED)).eval()
        plain.load_state_dict(supernet.extract(MIXED).state_dict())
        images = IMAGES.to(memory_format=torch.channels_last)
        torch.testing.assert_close(supernet(images, plan), plain(IMAGES), atol=1e-4, rtol=1e-4)
