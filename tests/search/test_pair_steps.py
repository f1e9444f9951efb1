"""The two-path step against enumerations and the closed forms of pair sampling."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from hwprof.errors import PlanError
from hwprof.search.proxyless.choices import Choices
from hwprof.search.proxyless.plans import pair_plan, pair_update
from hwprof.search.proxyless.steps import ProxylessConfig, alpha_adam
from hwprof.search.supernets.gates import straight_through
from tests.search.additive import EDGES, SKEWED, set_probabilities, skewed_choices, toy_space

pytestmark = pytest.mark.usefixtures("one_thread")


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
