"""Gates: closed forms of the gradients, probes that leave no trace, memory of one path.

References are derivations (the gradient of a linear loss, softmax calculus) and enumerations,
as listed in the specification of ProxylessNAS (Cai et al., ICLR 2019, section 3.2).
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hwprof.search.proxyless.choices import Choices, Path
from hwprof.search.proxyless.plans import full_plan, pair_plan, run_plan
from hwprof.search.supernets.elastic import supernet_of
from hwprof.search.supernets.gates import (
    GatePlan,
    Mix,
    frozen,
    mixed,
    straight_through,
)
from hwprof.search.supernets.supernet import Supernet
from hwprof.space import SKIP, DesignSpace, Slot, get_space
from tests.search.saved_bytes import saved_bytes

FIRST = Slot(0, 1)
ALL = tuple(range(4))
IMAGES = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3, 32, 32)))
LABELS = torch.arange(4)

pytestmark = pytest.mark.usefixtures("one_thread")


def softmax_gate_grad(d: Tensor, p: Tensor) -> Tensor:
    """∂L/∂α_i = p_i (d_i − Σ_k p_k d_k), the closed form for gates that are a softmax."""
    return p * (d - (p * d).sum())


def skipping_space() -> DesignSpace:
    """Three layers of the ProxylessNAS space with three options each, skip among them."""
    whole = get_space("proxylessnas", 32)
    free = {Slot(0, 1), Slot(0, 2), Slot(1, 1)}
    some = ("mbconv_k3_e3", "mbconv_k5_e3", SKIP)
    return whole.restrict({s: some if s in free else ("mbconv_k3_e3",) for s in whole.slots})


def growing_space() -> DesignSpace:
    """Units of one to three layers, as in the once-for-all spaces: depth is a decision."""
    whole = get_space("mobile-mini")
    return whole.restrict(dict.fromkeys(whole.slots, ("mbconv_k3_e3", "mbconv_k5_e3")), (3, 2, 1))


def double_supernet(space: DesignSpace) -> Supernet:
    """A supernet in float64 in which every branch matters: none starts at zero."""
    net = Supernet(space, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=0.1)
    return net


class Edge:
    """One decision with four linear options on vectors, in float64."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.maps = torch.from_numpy(rng.standard_normal((4, 5, 5)))
        self.x = torch.from_numpy(rng.standard_normal((2, 5)))
        self.alpha = torch.tensor([0.3, -0.2, 0.9, 0.0], dtype=torch.float64, requires_grad=True)
        self.c = torch.from_numpy(rng.standard_normal((2, 5)))

    def apply(self, option: int, x: Tensor) -> Tensor:
        return x @ self.maps[option]

    def gradient(self, active: int, *, recompute: bool) -> Tensor:
        order = [active, *(i for i in ALL if i != active)]
        gate = straight_through(self.alpha.softmax(0)[order], 0)
        mix = Mix(run=(active,), probe=tuple(order[1:]), gate=gate, recompute=recompute)
        loss = (self.c * mixed(self.x, mix, self.apply)).sum()
        (found,) = torch.autograd.grad(loss, self.alpha)
        return found


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("active", ALL)
def test_on_a_linear_loss_every_sample_gives_the_exact_gradient(active: int, recompute: bool):
    """E[L] = Σ p_j ⟨c, o_j(x)⟩ is then exact, so its gradient needs no sampling at all."""
    edge = Edge()
    expectation = sum(
        p * (edge.c * edge.apply(j, edge.x)).sum() for j, p in enumerate(edge.alpha.softmax(0))
    )
    assert isinstance(expectation, Tensor)
    (exact,) = torch.autograd.grad(expectation, edge.alpha)
    torch.testing.assert_close(
        edge.gradient(active, recompute=recompute), exact, rtol=1e-12, atol=1e-12
    )


def test_the_closed_form_of_a_softmax_gate():
    edge = Edge()
    d = torch.stack([(edge.c * edge.apply(j, edge.x)).sum() for j in ALL])
    closed = softmax_gate_grad(d, edge.alpha.detach().softmax(0))
    torch.testing.assert_close(edge.gradient(2, recompute=True), closed, rtol=1e-10, atol=1e-10)


def test_soft_gates_of_all_options_are_darts():
    edge = Edge()
    mix = Mix(run=ALL, gate=edge.alpha.softmax(0))
    expected = sum(p * edge.apply(j, edge.x) for j, p in enumerate(edge.alpha.softmax(0)))
    torch.testing.assert_close(mixed(edge.x, mix, edge.apply), expected)


def test_gates_are_exactly_one_hot_in_value():
    p = torch.tensor([0.1, 0.7, 0.2], requires_grad=True)
    assert straight_through(p, 1).tolist() == [0.0, 1.0, 0.0]


def alpha_and_input_gradients(
    net: Supernet, choices: Choices, path: Path, *, recompute: bool
) -> tuple[list[Tensor], Tensor]:
    x = IMAGES.clone().requires_grad_()
    with frozen(net):
        plan = full_plan(path, choices.probabilities(), recompute=recompute)
        loss = functional.cross_entropy(net(x, plan)[:, :4], LABELS)
        *alphas, image = torch.autograd.grad(
            loss, [*choices.alpha.values(), x], allow_unused=True, materialize_grads=True
        )
    return alphas, image


@pytest.mark.parametrize("make", [skipping_space, growing_space])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_recompute_equals_all_paths_detached(make, seed: int):
    space = make()
    net, choices = double_supernet(space), Choices(space, seed=0)
    path = choices.draw(np.random.default_rng(seed))
    (found, image), (expected, plain) = (
        alpha_and_input_gradients(net, choices, path, recompute=r) for r in (True, False)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert any(bool(a.abs().max() > 0) for a in found)
    torch.testing.assert_close(image, plain, rtol=1e-9, atol=1e-12)


def test_the_plan_gives_the_closed_form_on_a_supernet():
    """d_j = ⟨∂L/∂y, o_j(x)⟩ taken apart by hand, at one layer of a real supernet."""
    space = skipping_space()
    net, choices = double_supernet(space), Choices(space, seed=0)
    path = choices.draw(np.random.default_rng(0))
    seen: dict[str, Tensor] = {}
    with frozen(net):
        plain = GatePlan(
            blocks={s: Mix(run=(path.block(s),)) for s in space.slots},
        )
        x = IMAGES
        for part in net.entry.values():
            x = part(x)
        x = net._block(Slot(0, 0), "mbconv_k3_e3", x)
        outputs = [net._block(FIRST, block, x) for block in space.choices(FIRST)]
        y = outputs[path.picks[FIRST]].detach().requires_grad_()
        rest = y
        for slot in space.slots[2:]:
            rest = net._block(slot, path.block(slot), rest)
        logits = net.head(rest)
        loss = functional.cross_entropy(logits[:, :4], LABELS)
        (grad,) = torch.autograd.grad(loss, y)
        torch.testing.assert_close(net(IMAGES, plain), logits)
    d = torch.stack([(grad * o).sum() for o in outputs])
    closed = softmax_gate_grad(d, choices.alpha[FIRST].detach().softmax(0))
    alphas, _ = alpha_and_input_gradients(net, choices, path, recompute=True)
    seen = dict(zip(choices.alpha, alphas, strict=True))  # type: ignore[arg-type]
    torch.testing.assert_close(seen[FIRST], closed, rtol=1e-9, atol=1e-12)  # type: ignore[index]


@pytest.mark.parametrize("recompute", [True, False])
def test_where_skip_runs_its_gate_has_a_gradient_and_the_others_too(recompute: bool):
    space = skipping_space()
    net, choices = double_supernet(space), Choices(space, seed=0)
    skipped = Path(
        space=space,
        picks={w: space.choices(w).index(SKIP) for w in choices.alpha},  # type: ignore[arg-type]
    )
    assert set(skipped.arch.units[0][1:3]) == {SKIP}
    alphas, _ = alpha_and_input_gradients(net, choices, skipped, recompute=recompute)
    for grad in alphas:
        assert bool((grad.abs() > 1e-12).all())
        # Softmax calculus: the logits' gradients of a decision cancel.
        assert abs(float(grad.sum())) < 1e-12


def test_gates_of_whole_blocks_equal_shortcut_plus_gated_branches():
    """The paper's form: block = x + Σ g_j b_j(x), nothing for Zero; here o_j = x + b_j(x)."""
    edge = Edge()
    gates = [straight_through(edge.alpha.softmax(0), 1) for _ in range(2)]

    def whole(option: int, x: Tensor) -> Tensor:
        return x if option == 3 else x + edge.apply(option, x)

    def branch(option: int, x: Tensor) -> Tensor:
        return torch.zeros_like(x) if option == 3 else edge.apply(option, x)

    losses = [
        (edge.c * mixed(edge.x, Mix(run=ALL, gate=gates[0]), whole).tanh()).sum(),
        (edge.c * (edge.x + mixed(edge.x, Mix(run=ALL, gate=gates[1]), branch)).tanh()).sum(),
    ]
    a, b = (torch.autograd.grad(loss, edge.alpha)[0] for loss in losses)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("make", [skipping_space, growing_space])
def test_an_architecture_step_leaves_weights_and_statistics_bit_identical(make, recompute: bool):
    space = make()
    net, choices = double_supernet(space), Choices(space, seed=0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    path = choices.draw(np.random.default_rng(0))
    alpha_and_input_gradients(net, choices, path, recompute=recompute)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert [m.training for m in net.modules()] == modes


def test_a_probed_candidate_gets_no_weight_gradient():
    space = skipping_space()
    net, choices = double_supernet(space), Choices(space, seed=0)
    path = choices.draw(np.random.default_rng(0))
    plan = full_plan(path, choices.probabilities(), recompute=False)
    functional.cross_entropy(net(IMAGES, plan)[:, :4], LABELS).backward()
    for slot in space.slots:
        for block in space.choices(slot):
            if block != SKIP:
                ran = path.block(slot) == block
                for p in net._candidate(slot, block).parameters():
                    assert (p.grad is not None) == ran, (slot, block)


def test_the_path_of_a_plan_has_its_probes_and_that_of_a_network_only_what_runs():
    space = growing_space()
    net, choices = double_supernet(space), Choices(space, seed=0)
    plan = full_plan(choices.best(), choices.probabilities(), recompute=True)
    probed = list(net.path(plan))
    single = list(net.path(GatePlan.single_path(choices.best().arch)))
    assert {id(m) for m in single} < {id(m) for m in probed}


@pytest.mark.parametrize(
    ("name", "least_of_all"), [("proxylessnas", 4.0), ("ofa-mbv3-w1.0", 4.0), ("ofa-resnet50", 3.0)]
)
def test_memory_of_an_architecture_step_is_that_of_one_path(name: str, least_of_all: float):
    """Bounds of the specification: recompute 1.1, pair 1.3, softmax over all at least 4.

    A layer of OFA-ResNet-50 has three options only.
    """
    space = get_space(name, 64)
    net, choices = supernet_of(space, seed=0), Choices(space, seed=0)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    p = choices.probabilities()
    rng = np.random.default_rng(0)
    paths = [choices.draw(rng) for _ in range(5)]
    pairs = [choices.draw_pairs(rng) for _ in range(5)]
    blocks = {
        s: Mix(run=space.choices(s), gate=p[s]) if s in p else Mix(run=space.choices(s))
        for s in space.slots
    }

    def saved(plan: GatePlan) -> int:
        return saved_bytes(net, lambda: net(images, plan).sum())

    weight = mean(saved(run_plan(path)) for path in paths)
    with frozen(net):
        assert mean(saved(full_plan(path, p, recompute=True)) for path in paths) <= 1.1 * weight
        assert mean(saved(pair_plan(choices, pair, rng)[0]) for pair in pairs) <= 1.3 * weight
        assert saved(replace(run_plan(paths[0]), blocks=blocks)) >= least_of_all * weight


def test_the_supernet_of_the_paper_has_its_size():
    """21 edges, 6 with 6 options and 15 with 7; 141 logits; 16,034,168 supernet weights."""
    space = get_space("proxylessnas")
    net, choices = Supernet(space, seed=0), Choices(space, seed=0)
    sizes = [len(a) for a in choices.alpha.values()]
    assert len(sizes) == 21
    assert (sizes.count(6), sizes.count(7), sum(sizes)) == (6, 15, 141)
    assert sum(p.numel() for p in net.parameters()) == 16_034_168
    assert space.size().n_encodings == 6**6 * 7**15
