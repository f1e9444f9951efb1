"""ProxylessNAS: its estimators against enumerations, its steps, a search with a known optimum.

References are the closed forms of the specification (pair sampling, softmax, Williams' REINFORCE)
and finite differences; nothing is compared with what the code once printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwprof.errors import IncompatibleRunError, PlanError, SpaceError
from hwprof.estimate.crossval import spearman
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.results import Sample
from hwprof.search.batches import Batch
from hwprof.search.choices import Choices, Path, Where
from hwprof.search.expected_latency import ExpectedLatency
from hwprof.search.gates import GatePlan, mixed, straight_through
from hwprof.search.penalties import Penalty
from hwprof.search.plans import pair_plan, pair_probabilities, pair_update
from hwprof.search.proxyless import (
    MODES,
    ArchitectureSteps,
    Baseline,
    Mode,
    ProxylessConfig,
    alpha_adam,
    reinforce_loss,
    reward,
)
from hwprof.space import SKIP, Architecture, DesignSpace, Slot, get_space

SKEWED = (0.70, 0.20, 0.10)
EDGES = (Slot(0, 1), Slot(0, 2), Slot(0, 3))
BLOCKS = ("mbconv_k3_e3", "mbconv_k5_e3", "mbconv_k7_e3", SKIP)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def toy_space() -> DesignSpace:
    """Three edges with four options each, skip among them; everything else is fixed."""
    whole = get_space("proxylessnas", 32)
    return whole.restrict({s: BLOCKS if s in EDGES else ("mbconv_k3_e3",) for s in whole.slots})


class PlantedTable:
    """An additive latency model with known entries."""

    def __init__(
        self, space: DesignSpace, costs: Mapping[str, float], constant_s: float = 0.01
    ) -> None:
        self.space = space
        self._constant_s = constant_s
        self._table = {
            (slot, block): costs[block]
            for slot in space.slots
            for block in space.choices(slot)
            if block in costs
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
        total: Any = self._constant_s
        for slot in self.space.slots:
            lengths = self.space.depths(slot.unit)
            given = (depths or {}).get(slot.unit, [1.0])
            reach: Any = sum(p for d, p in zip(lengths, given, strict=True) if d > slot.layer)
            for block, p in zip(self.space.choices(slot), probabilities[slot], strict=True):
                total = total + reach * p * self._table[slot, block]
        return total

    def predict_many(self, archs: Sequence[Architecture]) -> tuple[Any, Any]:
        found = [
            self._constant_s
            + sum(
                self._table[Slot(u, layer), block]
                for u, blocks in enumerate(arch.units)
                for layer, block in enumerate(blocks)
            )
            for arch in archs
        ]
        return np.array(found), np.zeros(len(found))


COSTS = {"mbconv_k3_e3": 0.001, "mbconv_k5_e3": 0.003, "mbconv_k7_e3": 0.006, SKIP: 0.0}


class TestPairs:
    @pytest.mark.parametrize("n", [2, 3, 7])
    def test_at_uniform_p_the_mean_pair_gradient_is_a_known_share_of_the_full_one(self, n: int):
        """n / (2 (n − 1)) of it: 7/12 for seven options."""
        d = torch.from_numpy(np.random.default_rng(n).standard_normal(n))
        mean = enumerated_pair_gradient(torch.full((n,), 1.0 / n, dtype=torch.float64), d)
        full = (d - d.mean()) / n
        torch.testing.assert_close(mean, n / (2 * (n - 1)) * full, rtol=1e-12, atol=1e-15)

    def test_at_skewed_p_the_enumeration_matches_the_closed_form(self):
        """Σ over pairs of P{i,j} q_i q_j (d_i − d_j), P from the two orders of drawing."""
        p = torch.tensor(SKEWED, dtype=torch.float64)
        d = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
        closed = torch.zeros(3, dtype=torch.float64)
        for i, j in permutations(range(3), 2):
            chance = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
            closed[i] += chance * p[i] * p[j] / (p[i] + p[j]) ** 2 * (d[i] - d[j])
        torch.testing.assert_close(enumerated_pair_gradient(p, d), closed, rtol=1e-12, atol=1e-15)

    def test_pairs_are_drawn_as_the_closed_form_says(self):
        space = toy_space()
        choices, n = Choices(space, seed=0), 20_000
        p = np.array([0.6, 0.2, 0.15, 0.05])
        set_probabilities(choices, p)
        rng = np.random.default_rng(0)
        counts = Counter(frozenset(choices.draw_pairs(rng)[EDGES[0]]) for _ in range(n))
        for i, j in ((0, 1), (0, 3), (2, 3)):
            chance = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
            sd = (chance * (1 - chance) / n) ** 0.5
            assert abs(counts[frozenset((i, j))] / n - chance) < 4 * sd

    def test_what_runs_of_the_pairs_is_drawn_as_the_closed_form_says(self):
        """(.70, .20, .10) becomes (.77, .17, .05), by enumeration of the specification."""
        p = np.array(SKEWED)
        active = np.zeros(3)
        for i, j in permutations(range(3), 2):
            # Ordered pairs, so every one carries its own order's probability.
            active[[i, j]] += p[i] * p[j] / (1 - p[i]) * p[[i, j]] / (p[i] + p[j])
        assert active == pytest.approx([0.77, 0.17, 0.05], abs=0.01)
        choices, rng = skewed_choices(), np.random.default_rng(3)
        counts = np.zeros(3)
        for _ in range(1_000):
            plan = pair_plan(choices, choices.draw_pairs(rng), rng)[0]
            for edge in EDGES:
                (block,) = plan.blocks[edge].run
                counts[choices.space.choices(edge).index(block)] += 1
        found = counts / counts.sum()
        sd = np.sqrt(active * (1 - active) / counts.sum())
        assert np.all(np.abs(found - active) < 4 * sd)
        # Not p itself, which is nine standard deviations away.
        assert found[0] - p[0] > 4 * sd[0]

    def test_the_gates_of_a_pair_have_the_closed_form_gradient(self):
        """∂/∂α_i of Σ d_o g_o over the pair is q_i q_j (d_i − d_j); the others have none."""
        choices, rng = skewed_choices(), np.random.default_rng(2)
        p = torch.tensor(SKEWED, dtype=torch.float64)
        d = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
        for _ in range(10):
            pairs = choices.draw_pairs(rng)
            plan = pair_plan(choices, pairs, rng)[0]
            for edge in EDGES:
                mix = plan.blocks[edge]
                order = [choices.space.choices(edge).index(block) for block in mix.options]
                assert set(order) == set(pairs[edge])
                assert mix.gate is not None
                assert mix.gate.tolist() == [1.0, 0.0]
                (grad,) = torch.autograd.grad((mix.gate * d[order]).sum(), choices.alpha[edge])
                i, j = pairs[edge]
                closed = torch.zeros(3, dtype=torch.float64)
                closed[i] = p[i] * p[j] / (p[i] + p[j]) ** 2 * (d[i] - d[j])
                closed[j] = -closed[i]
                torch.testing.assert_close(grad, closed, rtol=1e-12, atol=1e-15)

    def test_a_step_moves_the_pair_and_nothing_else(self):
        choices, config = Choices(toy_space(), seed=0), ProxylessConfig(mode="two-path")
        set_probabilities(choices, np.array([0.6, 0.2, 0.15, 0.05]))
        optimizer = alpha_adam(choices, config)
        rng = np.random.default_rng(1)
        for _ in range(20):
            before = {w: p.detach() for w, p in choices.probabilities().items()}
            pairs = choices.draw_pairs(rng)
            for where, alpha in choices.alpha.items():
                alpha.grad = torch.zeros_like(alpha)
                i, j = pairs[where]
                alpha.grad[i], alpha.grad[j] = 0.7, -0.7
            pair_update(choices, pairs, optimizer.step)
            for where, p in choices.probabilities().items():
                rest = [i for i in range(4) if i not in pairs[where]]
                torch.testing.assert_close(p[rest], before[where][rest], rtol=0, atol=1e-12)
                assert p[pairs[where][0]] < before[where][pairs[where][0]]
                assert p[pairs[where][1]] > before[where][pairs[where][1]]

    def test_momentum_would_move_the_others(self):
        choices = Choices(toy_space(), seed=0)
        optimizer = torch.optim.Adam(list(choices.alpha.values()), lr=1e-3, betas=(0.9, 0.999))
        for pair in ((0, 1), (2, 3)):
            before = choices.probabilities()[EDGES[0]].detach()
            for alpha in choices.alpha.values():
                alpha.grad = torch.zeros_like(alpha)
                alpha.grad[pair[0]], alpha.grad[pair[1]] = 1.0, -1.0
            pair_update(choices, dict.fromkeys(choices.alpha, pair), optimizer.step)
        after = choices.probabilities()[EDGES[0]].detach()
        assert (after[:2] - before[:2]).abs().max() > 1e-6
        with pytest.raises(PlanError, match="momentum"):
            ProxylessConfig(mode="two-path", alpha_betas=(0.9, 0.999))

    def test_the_shift_survives_logits_that_overflow_an_exponential(self):
        choices = Choices(toy_space(), seed=0)
        with torch.no_grad():
            for alpha in choices.alpha.values():
                alpha += 2000.0
        optimizer = alpha_adam(choices, ProxylessConfig(mode="two-path"))
        for alpha in choices.alpha.values():
            alpha.grad = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
        pair_update(choices, dict.fromkeys(choices.alpha, (0, 1)), optimizer.step)
        for p in choices.probabilities().values():
            assert torch.isfinite(p).all()
            assert p[0].item() < p[1].item()


def enumerated_pair_gradient(p: Tensor, d: Tensor) -> Tensor:
    """Return the mean over all ordered pairs and both that may run of a pair step's gradient."""
    n = len(p)
    total = torch.zeros(n, dtype=torch.float64)
    for i, j in permutations(range(n), 2):
        alpha = p.log().requires_grad_()
        q = alpha[[i, j]].softmax(dim=0)
        chance = p[i] * p[j] / (1 - p[i])
        for active in (0, 1):
            # The loss is linear in the output: d_j · g_j summed.
            loss = (straight_through(q, active) * d[[i, j]]).sum()
            (grad,) = torch.autograd.grad(loss, alpha, retain_graph=True)
            total += chance * q[active].detach() * grad
    return total


def set_probabilities(choices: Choices, p: np.ndarray) -> None:
    with torch.no_grad():
        for alpha in choices.alpha.values():
            alpha.copy_(torch.from_numpy(np.log(p)))


def skewed_choices() -> Choices:
    """Three options on every edge, with the probabilities of the specification's example."""
    three = ("mbconv_k3_e3", "mbconv_k5_e3", SKIP)
    choices = Choices(toy_space().restrict(dict.fromkeys(EDGES, three)), seed=0)
    set_probabilities(choices, np.array(SKEWED))
    return choices


class Interacting(PlantedTable):
    """The same table, and a term that is no sum over layers."""

    def predict_many(self, archs: Sequence[Architecture]) -> tuple[Any, Any]:
        latencies, half = super().predict_many(archs)
        return latencies + [1e-3 * arch.units[0].count(SKIP) ** 2 for arch in archs], half


class TestExpectedLatency:
    def test_gradient_equals_finite_differences(self):
        for space in (toy_space(), get_space("mobile-mini")):
            costs = {
                b: 0.001 * (i + 1) for i, b in enumerate(sorted({*all_blocks(space)} - {SKIP}))
            }
            expected = ExpectedLatency(PlantedTable(space, {**costs, SKIP: 0.0}), space)
            choices = Choices(space, seed=3)
            with torch.no_grad():
                for alpha in choices.alpha.values():
                    alpha *= 500.0
            expected(choices.probabilities()).backward()
            step = 1e-6
            for alpha in choices.alpha.values():
                assert alpha.grad is not None
                for i in range(len(alpha)):
                    values = []
                    for sign in (1.0, -1.0):
                        with torch.no_grad():
                            alpha[i] += sign * step
                            values.append(float(expected(choices.probabilities())))
                            alpha[i] -= sign * step
                    slope = (values[0] - values[1]) / (2 * step)
                    assert float(alpha.grad[i]) == pytest.approx(slope, rel=1e-5, abs=1e-11)

    def test_is_the_mean_over_all_networks(self):
        """Enumerated: 4³ networks, each with the probability of its options."""
        space = toy_space()
        model = PlantedTable(space, COSTS)
        expected, choices = ExpectedLatency(model, space), Choices(space, seed=1)
        set_probabilities(choices, np.array([0.4, 0.3, 0.2, 0.1]))
        p = {w: v.detach().numpy() for w, v in choices.probabilities().items()}
        mean = 0.0
        for picks in product(range(4), repeat=3):
            path = Path(space=space, picks=dict(zip(EDGES, picks, strict=True)))
            chance = np.prod([p[w][i] for w, i in path.picks.items()])
            mean += float(chance) * expected.of([path.arch])[0]
        assert expected(choices.probabilities()).item() == pytest.approx(mean, rel=1e-12)

    def test_does_not_depend_on_what_was_sampled(self):
        space = toy_space()
        expected, choices = (
            ExpectedLatency(PlantedTable(space, COSTS), space),
            Choices(space, seed=1),
        )
        set_probabilities(choices, np.array([0.4, 0.3, 0.2, 0.1]))
        whole = expected(choices.probabilities()).item()
        rng = np.random.default_rng(0)
        for _ in range(5):
            shown = {
                w: pair_probabilities(choices.alpha[w], pair)
                for w, pair in choices.draw_pairs(rng).items()
            }
            assert expected(shown).item() == pytest.approx(whole, rel=1e-12)

    def test_speaks_for_a_reduced_space(self):
        whole = get_space("mobile-mini")
        costs = {b: 0.001 * i for i, b in enumerate(sorted({*all_blocks(whole)}))}
        model = PlantedTable(whole, costs)
        small = whole.restrict({s: whole.choices(s)[:2] for s in whole.slots}, (2, 3, 1))
        expected, choices = ExpectedLatency(model, small), Choices(small, seed=0)
        rng = np.random.default_rng(0)
        mean = np.mean(expected.of([choices.draw(rng).arch for _ in range(4000)]))
        assert expected(choices.probabilities()).item() == pytest.approx(mean, rel=0.02)

    def test_the_digest_tells_apart_what_the_table_does_not(self):
        space = toy_space()
        models = (
            PlantedTable(space, COSTS),
            PlantedTable(space, COSTS, constant_s=0.011),
            Interacting(space, COSTS),
        )
        assert models[0].table() == models[1].table() == models[2].table()
        digests = [ExpectedLatency(model, space).digest for model in models]
        assert len(set(digests)) == 3
        assert ExpectedLatency(PlantedTable(space, COSTS), space).digest == digests[0]

    def test_a_block_without_latency_is_named(self):
        space = toy_space()
        lacking = {b: c for b, c in COSTS.items() if b != "mbconv_k7_e3"}
        with pytest.raises(SpaceError, match="mbconv_k7_e3 in unit 0 layer 1"):
            ExpectedLatency(PlantedTable(space, lacking), space)

    def test_another_resolution_is_refused(self):
        space = toy_space()
        with pytest.raises(IncompatibleRunError, match=r"at 32 px, the search is in .* at 64 px"):
            ExpectedLatency(PlantedTable(space, COSTS), space.at_resolution(64))


def all_blocks(space: DesignSpace) -> Iterator[str]:
    for slot in space.slots:
        yield from space.choices(slot)


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


def test_the_table_is_right_in_total_and_block_by_block():
    """Good totals do not prove the ranking that gradients use: both are held to planted costs."""
    space = get_space("mobile-mini")
    planted_s = {b: (1.0 + 0.4 * i) * 1e-4 for i, b in enumerate(space.choices(Slot(0, 0)))}
    truth = PlantedTable(space, planted_s, constant_s=4e-4)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(300)]
    noisy = truth.predict_many(archs)[0] * (1.0 + 0.01 * rng.standard_normal(len(archs)))
    model = AdditiveLatencyModel.fit(
        space,
        [Sample(arch=a, latency_s=float(v)) for a, v in zip(archs, noisy, strict=True)],
    )
    expected = ExpectedLatency(model, space)
    fresh = [space.sample(rng) for _ in range(100)]
    totals = np.array(expected.of(fresh)) / truth.predict_many(fresh)[0] - 1.0
    assert np.sqrt(np.mean(totals**2)) < 0.01
    table, known = model.table(), truth.table()
    for slot in space.slots:
        blocks = space.choices(slot)
        # Where a layer is always there only contrasts within the slot mean something.
        found = np.array([table[slot, b] for b in blocks])
        costs = np.array([known[slot, b] for b in blocks])
        errors = (found - found.mean()) - (costs - costs.mean())
        assert np.abs(errors).max() < 0.25 * np.ptp(costs)
        assert spearman(found, costs) > 0.9
