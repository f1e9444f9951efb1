"""Expected latency: its gradient, its mean over all networks, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from hwprof.errors import IncompatibleRunError, SpaceError
from hwprof.estimate.crossval import spearman
from hwprof.estimate.latency_model import AdditiveLatencyModel
from hwprof.results import Sample
from hwprof.search.proxyless.choices import Choices, Path
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.plans import pair_probabilities
from hwprof.space import SKIP, Architecture, DesignSpace, Slot, get_space
from tests.search.additive import COSTS, EDGES, PlantedTable, set_probabilities, toy_space

pytestmark = pytest.mark.usefixtures("one_thread")


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

    def test_the_digest_does_not_hang_on_rounding(self):
        """Another number of threads fits other last bits, and a zero of either sign."""
        space = toy_space()
        digests = {
            ExpectedLatency(PlantedTable(space, costs), space).digest
            for costs in (
                {**COSTS, SKIP: 0.0},
                {**{b: float(np.nextafter(c, 1.0)) for b, c in COSTS.items()}, SKIP: 1e-19},
                {**{b: float(np.nextafter(c, 0.0)) for b, c in COSTS.items()}, SKIP: -1e-19},
            )
        }
        assert len(digests) == 1
        dearer = {b: c + 1e-9 for b, c in COSTS.items()}
        assert ExpectedLatency(PlantedTable(space, dearer), space).digest not in digests

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
