"""A search for a target latency: against enumeration and closed forms."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from hwprof.errors import PlanError
from hwprof.results import TargetOutcome
from hwprof.search.proxyless.choices import Choices, Path, Where
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.search.proxyless.front import Sweep
from hwprof.search.proxyless.penalties import Penalty
from hwprof.search.proxyless.target import (
    CELLS,
    RHO,
    WITHIN,
    Multiplier,
    derive,
    faster_alternative,
    latency_range_s,
    near,
    require_in_range,
)
from hwprof.space import DesignSpace, Slot, get_space
from tests.search.additive import AdditiveTable

WHOLE = get_space("mobile-mini")

pytestmark = pytest.mark.usefixtures("one_thread")


class Planted(AdditiveTable):
    """An additive latency model with random entries, some of them negative."""

    def __init__(self, space: DesignSpace, *, extra_s: float = 0.0) -> None:
        rng = np.random.default_rng(1)
        table = {
            (slot, block): float(rng.uniform(-2e-4 if slot.layer < 1 else 1e-4, 1e-3))
            for slot in space.slots
            for block in space.choices(slot)
        }
        super().__init__(space, table, constant_s=4e-3, beside_s=extra_s)


class Paired(Planted):
    """Blocks of equal place in the lists of two layers cost 2 ms together, others save as much."""

    first, second = Slot(0, 0), Slot(1, 0)

    def expected_s(self, probabilities: Mapping[Slot, Any], **more: Any) -> Any:
        (a, b), (c, d) = probabilities[self.first], probabilities[self.second]
        return super().expected_s(probabilities, **more) + 2e-3 * (a - b) * (c - d)


def small_space() -> DesignSpace:
    """Two blocks at every slot, depths as they are: few enough networks to list."""
    return WHOLE.restrict({s: WHOLE.choices(s)[:2] for s in WHOLE.slots})


def spread(space: DesignSpace, seed: int) -> Choices:
    """Logits far apart, so that networks differ in probability."""
    choices, rng = Choices(space, seed=seed), np.random.default_rng(seed)
    with torch.no_grad():
        for alpha in choices.alpha.values():
            alpha.copy_(torch.from_numpy(rng.normal(0.0, 1.5, len(alpha))))
    return choices


def all_paths(choices: Choices) -> list[Path]:
    """Every network, once: decisions about layers that are not there stay at their first."""
    wheres = list(choices.options)
    found: dict[str, Path] = {}
    for picks in itertools.product(*(range(len(choices.options[w])) for w in wheres)):
        path = Path(space=choices.space, picks=dict(zip(wheres, picks, strict=True)))
        found.setdefault(path.arch.arch_id, path)
    return list(found.values())


class TestRange:
    def test_is_that_of_all_networks(self) -> None:
        space = small_space()
        latency = ExpectedLatency(Planted(space), space)
        found = latency.of([p.arch for p in all_paths(Choices(space, seed=0))])
        assert latency_range_s(latency, space) == pytest.approx((min(found), max(found)))

    def test_of_a_space_that_is_reduced_in_depth(self) -> None:
        """The table is of the whole space."""
        alive = {s: WHOLE.choices(s)[1:3] for s in WHOLE.slots}
        space = WHOLE.restrict(alive, max_depth=(2, 2, 1))
        latency = ExpectedLatency(Planted(WHOLE), space)
        found = latency.of([p.arch for p in all_paths(Choices(space, seed=0))])
        assert latency_range_s(latency, space) == pytest.approx((min(found), max(found)))

    def test_pairs_of_blocks_are_left_out(self) -> None:
        """They may well be large in one network; over all they cancel."""
        space = small_space()
        plain = latency_range_s(ExpectedLatency(Planted(space), space), space)
        paired = latency_range_s(ExpectedLatency(Paired(space), space), space)
        assert paired == pytest.approx(plain)

    def test_a_target_outside_is_refused_with_the_range(self) -> None:
        space = small_space()
        latency = ExpectedLatency(Planted(space), space)
        fastest_s, slowest_s = latency_range_s(latency, space)
        told = f"take {fastest_s * 1e3:.4g} to {slowest_s * 1e3:.4g} ms"
        with pytest.raises(PlanError, match=f"{told}; reduce the space less"):
            require_in_range(latency, space, fastest_s * 0.9)
        with pytest.raises(PlanError, match=f"{told}; every network is faster"):
            require_in_range(latency, space, slowest_s * 1.1)
        require_in_range(latency, space, 0.5 * (fastest_s + slowest_s))


class TestDerivation:
    @pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_is_the_most_probable_network_near_the_target(self, share: float, seed: int) -> None:
        """Against a list of all networks."""
        space = small_space()
        latency = ExpectedLatency(Planted(space), space)
        choices = spread(space, seed)
        low, high = latency_range_s(latency, space)
        target_s = low + share * (high - low)
        paths = all_paths(choices)
        latencies = latency.of([p.arch for p in paths])
        logs = [choices.log_probability(p).item() for p in paths]
        inside = [i for i, s in enumerate(latencies) if abs(s / target_s - 1.0) <= WITHIN]
        assert inside
        multiplier = Multiplier(target_s=target_s, n_steps=9, last_held=9)
        found = derive(choices, latency, multiplier)
        assert abs(latency.of([found.arch])[0] / target_s - 1.0) <= WITHIN
        best = choices.best()
        if abs(latency.of([best.arch])[0] / target_s - 1.0) <= WITHIN:
            assert found.arch == best.arch
        # The grid's cells decide networks apart by rounding only at the window's two ends.
        sure = [i for i in inside if abs(latencies[i] / target_s - 1.0) < WITHIN - 20 / CELLS]
        assert choices.log_probability(found).item() >= max(logs[i] for i in sure) - 1e-9

    def test_every_cell_has_its_most_probable_network(self) -> None:
        space = small_space()
        latency = ExpectedLatency(Planted(space), space)
        choices = spread(space, 3)
        low, high = latency_range_s(latency, space)
        target_s = 0.5 * (low + high)
        found = list(near(choices, latency, target_s))
        latencies = np.array(latency.of([p.arch for p in found]))
        assert (np.abs(latencies / target_s - 1.0) <= 2 * WITHIN + 20 / CELLS).all()
        top = max(
            (
                p
                for p in all_paths(choices)
                if abs(latency.of([p.arch])[0] / target_s - 1.0) <= 2 * WITHIN - 20 / CELLS
            ),
            key=lambda p: choices.log_probability(p).item(),
        )
        assert top.arch in {p.arch for p in found}

    def test_what_latency_does_not_limit_comes_to_the_target_too(self) -> None:
        """And the argmax, which is faster, is told beside; where latency limits it, it is not."""
        space = small_space()
        latency = ExpectedLatency(Planted(space), space)
        choices = spread(space, 0)
        best = choices.best()
        target_s = latency.of([best.arch])[0] * 1.2
        free = Multiplier(target_s=target_s, n_steps=100, last_held=50)
        held = Multiplier(target_s=target_s, n_steps=100, last_held=51)
        slower = derive(choices, latency, free)
        assert abs(latency.of([slower.arch])[0] / target_s - 1.0) <= WITHIN
        assert derive(choices, latency, held).arch == slower.arch
        faster = faster_alternative(choices, latency, free, slower)
        assert faster is not None
        assert faster.arch == best.arch
        assert faster_alternative(choices, latency, held, slower) is None
        assert faster_alternative(choices, latency, None, best) is None

    def test_an_argmax_that_is_near_or_slower_is_no_faster_alternative(self) -> None:
        space = small_space()
        latency = ExpectedLatency(Planted(space), space)
        choices = spread(space, 0)
        best_s = latency.of([choices.best().arch])[0]
        for share in (1.0 + WITHIN / 2.0, 1.0, 0.9):
            free = Multiplier(target_s=share * best_s)
            found = derive(choices, latency, free)
            assert faster_alternative(choices, latency, free, found) is None

    def test_where_none_is_near_it_is_the_nearest(self) -> None:
        """Three networks of 2, 3 and 6 ms; the search prefers the slowest."""
        left = {s: WHOLE.choices(s)[: 3 if s == Slot(0, 0) else 1] for s in WHOLE.slots}
        space = WHOLE.restrict({s: b for s, b in left.items() if s.layer == 0}, (1, 1, 1))
        costs = dict(zip(space.choices(Slot(0, 0)), (0.0, 1e-3, 4e-3), strict=True))
        table = {
            (s, b): costs[b] if s == Slot(0, 0) else 0.0
            for s in space.slots
            for b in space.choices(s)
        }
        latency = ExpectedLatency(AdditiveTable(space, table, constant_s=2e-3), space)
        choices = Choices(space, seed=0)
        with torch.no_grad():
            choices.alpha[Slot(0, 0)].copy_(torch.tensor([1.0, 0.0, 2.0]))
        for target_s, nearest_s in ((2.2e-3, 2e-3), (3.4e-3, 3e-3), (4.4e-3, 3e-3), (5e-3, 6e-3)):
            multiplier = Multiplier(target_s=target_s, n_steps=9, last_held=9)
            found = derive(choices, latency, multiplier)
            assert latency.of([found.arch])[0] == pytest.approx(nearest_s)

    @pytest.mark.parametrize("extra_s", [1e-4, 1e-3])
    def test_terms_that_the_sum_lacks_are_looked_at_too(self, extra_s: float) -> None:
        """Up to a tenth on top of every network: the window is that of the whole prediction."""
        space = small_space()
        latency = ExpectedLatency(Planted(space, extra_s=extra_s), space)
        choices = spread(space, 1)
        low, high = latency_range_s(latency, space)
        target_s = low + 0.75 * (high - low)
        found = derive(choices, latency, Multiplier(target_s=target_s, n_steps=9, last_held=9))
        assert abs(latency.of([found.arch])[0] / target_s - 1.0) <= WITHIN

    def test_a_layer_with_one_block_left_decides_nothing(self) -> None:
        """As a reduced space has them: the paths hold what was decided, and no more."""
        single = WHOLE.slots[0]
        left = {s: WHOLE.choices(s)[: 1 if s == single else 2] for s in WHOLE.slots}
        space = WHOLE.restrict(left)
        latency = ExpectedLatency(Planted(WHOLE), space)
        choices = spread(space, 2)
        low, high = latency_range_s(latency, space)
        found = list(near(choices, latency, 0.5 * (low + high)))
        assert found
        for path in found:
            space.validate(path.arch)
            assert path.arch.block(single) == left[single][0]
            assert choices.log_probability(path).item() < 0.0

    def test_without_a_target_it_is_the_argmax(self) -> None:
        space = small_space()
        choices = spread(space, 2)
        latency = ExpectedLatency(Planted(space), space)
        assert derive(choices, latency, None).arch == choices.best().arch


class TestMultiplier:
    def test_comes_to_the_closed_form(self) -> None:
        """Two options with losses u < v and latencies a > b, both linear in p.

        At the optimum with E = T the derivative of p u + (1 − p) v + λ E / T is zero, so
        λ = T (v − u) / (a − b), and p = (T − b) / (a − b).
        """
        u, v, a, b, target = 1.0, 1.5, 4e-3, 2e-3, 2.5e-3
        alpha = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([alpha], lr=0.05, betas=(0.0, 0.999))
        multiplier = Multiplier(target_s=target)
        weights = []
        for _ in range(400):
            optimizer.zero_grad()
            p = alpha.softmax(0)
            expected = p[0] * a + p[1] * b
            weights.append(multiplier.weight(expected.item()))
            loss = p[0] * u + p[1] * v + weights[-1] * (expected / target - 1.0)
            loss.backward()
            optimizer.step()
            multiplier.update(expected.item())
        assert expected.item() == pytest.approx(target, rel=0.01)
        assert alpha.softmax(0)[0].item() == pytest.approx((target - b) / (a - b), abs=0.03)
        assert np.mean(weights[-100:]) == pytest.approx(target * (v - u) / (a - b), rel=0.05)

    def test_gathers_nothing_on_a_long_way_and_is_never_negative(self) -> None:
        multiplier = Multiplier(target_s=1.0)
        for _ in range(1000):
            multiplier.update(2.0)
        assert multiplier.value == 0.0
        assert multiplier.weight(2.0) == RHO
        multiplier.update(0.5)
        assert multiplier.value == 0.0
        assert multiplier.weight(0.5) == 0.0
        held = [multiplier.is_limiting]
        for _ in range(1001):
            multiplier.update(0.5)
        assert [*held, multiplier.is_limiting] == [True, False]
        again = Multiplier(target_s=1.0)
        again.load_state_dict(multiplier.state_dict())
        assert again == multiplier

    @pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
    def test_a_search_of_many_decisions_comes_to_its_target(self, share: float) -> None:
        """Slower blocks lower the loss, in the whole of mobile-mini; no supernet is needed."""
        latency = ExpectedLatency(Planted(WHOLE), WHOLE)
        low, high = latency_range_s(latency, WHOLE)
        target_s = low + share * (high - low)
        choices = Choices(WHOLE, seed=0)
        optimizer = torch.optim.Adam(choices.alpha.values(), lr=0.05, betas=(0.0, 0.999))
        gains = loss_of(choices, latency)
        multiplier = Multiplier(target_s=target_s)
        for _ in range(150):
            optimizer.zero_grad()
            p = choices.probabilities()
            expected = latency(p)
            task = sum((p[w] * gains[w]).sum() for w in p)
            weight = multiplier.weight(expected.item())
            (task + weight * (expected / target_s - 1.0)).backward()
            optimizer.step()
            multiplier.update(expected.item())
        assert latency(choices.probabilities()).item() == pytest.approx(target_s, rel=0.05)
        found = derive(choices, latency, multiplier)
        assert latency.of([found.arch])[0] == pytest.approx(target_s, rel=WITHIN)


def loss_of(choices: Choices, latency: ExpectedLatency) -> dict[Where, torch.Tensor]:
    """A loss that falls as a block or a unit gets slower, with its own taste for each option."""
    rng, found = np.random.default_rng(2), {}
    for where, options in choices.options.items():
        cost = np.array(
            [latency.table[where, str(b)] * 1e3 for b in options]
            if isinstance(where, Slot)
            else [float(d) for d in options]
        )
        found[where] = torch.from_numpy(-0.2 * cost + rng.normal(0.0, 0.05, len(cost)))
    return found


class TestSweep:
    def test_one_search_for_each_target_without_a_weight(self) -> None:
        sweep = Sweep(kind="target", targets_s=(0.002, 0.003))
        assert sweep.penalties(0.1) == (
            Penalty(kind="target", weight=0.0, target_s=0.002),
            Penalty(kind="target", weight=0.0, target_s=0.003),
        )

    @pytest.mark.parametrize(
        ("sweep", "message"),
        [
            (Sweep(kind="target", targets_s=(0.1,), weights=(0.1,)), "adapts its latency weight"),
            (Sweep(kind="target"), "--target-ms"),
            (Sweep(kind="target", targets_s=(0.1, 0.1)), "named twice"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, sweep: Sweep, message: str) -> None:
        with pytest.raises(PlanError, match=message):
            sweep.penalties(0.1)


@pytest.mark.parametrize(
    ("measured_s", "verdict"),
    [(None, "hit"), (2.09e-3, "hit"), (2.11e-3, "slower"), (1.89e-3, "faster")],
)
def test_the_verdict_is_of_what_was_measured(measured_s: float | None, verdict: str) -> None:
    outcome = TargetOutcome(
        name="t",
        arch=WHOLE.sample(np.random.default_rng(0)),
        target_s=2e-3,
        expected_s=2e-3,
        argmax_s=2.3e-3,
        predicted_s=2.01e-3,
        is_limiting=True,
        measured_s=measured_s,
    )
    assert outcome.verdict == verdict
    assert TargetOutcome.from_row(json.loads(json.dumps(outcome.to_row()))) == outcome
