"""Searches for a target latency T: a latency weight that adapts, and a network near T.

The searched distribution is to have E ≤ T. The weight λ of the latency term is the multiplier of
that constraint under the method of multipliers for inequalities (Rockafellar, 1973; Nocedal and
Wright, Numerical Optimization, 2nd ed., section 17.4; the multiplier by gradient ascent is also
LightNAS's, Luo et al., DAC 2022): with c = E / T − 1 an architecture step weighs latency by
max(0, μ + ρ c), and then μ ← max(0, μ + η c). The term in ρ damps what the sum in μ would make
swing. Where latency has no weight for half of the search, it does not limit it.

An expectation near T does not make the most probable network's latency T. So where that network
is not within :data:`WITHIN` of T, the most probable one that is takes its place: a knapsack with
one option for each decision, solved exactly on a grid of latencies. That holds too where latency
did not limit the search and its most probable network is faster than T; this one is then told
beside, as a faster alternative. Who wants a ceiling, below which latency is free, takes the
``hinge`` (:mod:`hwprof.search.proxyless.penalties`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwprof.errors import PlanError
from hwprof.search.proxyless.choices import Choices, Path, Where
from hwprof.search.proxyless.expected_latency import ExpectedLatency
from hwprof.space import DesignSpace, Factor, Slot

Floats = NDArray[np.float64]

RHO = 20.0
"""Weight of latency for each unit of c."""
ETA = 0.2
"""Gain of the multiplier at each architecture step, for each unit of c."""
WIND_UP = 0.2
"""From this c on the multiplier waits: ρ c = 4 pulls harder than cross-entropy, and what it would
gather on the way to T would carry the expectation far below."""
WITHIN = 0.025
"""How far from T a derived network is predicted at most, relative to T: half of what may be
measured, the other half is for errors of the latency model."""
CELLS = 2000
"""Of the grid of latencies from 0 to T: rounding 25 decisions moves a sum by 0.6 % at most."""


@dataclass(kw_only=True)
class Multiplier:
    """The multiplier μ of the constraint E ≤ ``target_s``."""

    target_s: float
    value: float = 0.0
    n_steps: int = 0
    last_held: int = 0
    """The step, counted from 1, at which latency last had a weight; 0 for none."""

    @property
    def is_limiting(self) -> bool:
        """Whether latency had a weight within the second half of the steps so far."""
        return 2 * self.last_held > self.n_steps

    def weight(self, expected_s: float) -> float:
        """Return what an architecture step weighs latency by."""
        return max(0.0, self.value + RHO * (expected_s / self.target_s - 1.0))

    def update(self, expected_s: float) -> None:
        """Take a step after an architecture step."""
        self.n_steps += 1
        if self.weight(expected_s) > 0.0:
            self.last_held = self.n_steps
        c = expected_s / self.target_s - 1.0
        if c < WIND_UP:
            self.value = max(0.0, self.value + ETA * c)

    def state_dict(self) -> dict[str, float]:
        """Return what a resumed search goes on from."""
        return {"value": self.value, "n_steps": self.n_steps, "last_held": self.last_held}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.value = float(state["value"])
        self.n_steps, self.last_held = int(state["n_steps"]), int(state["last_held"])


def require_in_range(latency: ExpectedLatency, space: DesignSpace, target_s: float) -> None:
    """Check that the space has networks on both sides of a target, before anything is trained.

    Raises:
        PlanError: it has none; names the range.
    """
    fastest_s, slowest_s = latency_range_s(latency, space)
    if fastest_s <= target_s <= slowest_s:
        return
    advice = (
        "reduce the space less, or name a target in that range"
        if target_s < fastest_s
        else "every network is faster: search without a target (--latency-weights 0)"
    )
    raise PlanError(
        f"the target of {target_s * 1e3:.4g} ms is out of reach: by the latency model networks of "
        f"this {space.name!r} space take {fastest_s * 1e3:.4g} to {slowest_s * 1e3:.4g} ms; {advice}"
    )


def latency_range_s(latency: ExpectedLatency, space: DesignSpace) -> tuple[float, float]:
    """Return the latencies of the fastest and the slowest network; interactions are left out."""
    table = latency.table
    ends = []
    for pick in (min, max):
        total = latency.constant_s
        for unit in range(space.n_units):
            costs = [
                pick(table[Slot(unit, layer), b] for b in space.choices(Slot(unit, layer)))
                for layer in range(space.max_depth[unit])
            ]
            total += pick(sum(costs[:depth]) for depth in space.depths(unit))
        total += sum(pick(levels) for levels in latency.levels_s.values())
        ends.append(float(total))
    return ends[0], ends[1]


def derive(choices: Choices, latency: ExpectedLatency, multiplier: Multiplier | None) -> Path:
    """Return the network that a search came to: the most probable one, near its target if any.

    Near is within :data:`WITHIN`, as predicted; where no network is, the nearest one is returned.
    """
    best = choices.best()
    if multiplier is None:
        return best
    target_s = multiplier.target_s
    best_off = abs(latency.of([best.arch])[0] / target_s - 1.0)
    if best_off <= WITHIN:
        return best
    # What the model has beside its sum is much the same in all networks.
    sum_s, width = target_s - _beside_sum_s(latency, best), 2.0 * WITHIN
    found = [best, *near(choices, latency, sum_s, width)]
    # A space of few networks may have none there; beyond the argmax nothing is nearer.
    while len(found) == 1 and width < best_off:
        width *= 2.0
        found += near(choices, latency, sum_s, width)
    latencies = latency.of([path.arch for path in found])
    logs = [choices.log_probability(path).item() for path in found]
    off = [abs(s / target_s - 1.0) for s in latencies]
    inside = [i for i, value in enumerate(off) if value <= WITHIN]
    if inside:
        return found[max(inside, key=logs.__getitem__)]
    return found[min(range(len(found)), key=off.__getitem__)]


def faster_alternative(
    choices: Choices, latency: ExpectedLatency, multiplier: Multiplier | None, derived: Path
) -> Path | None:
    """Return the argmax where a search for a target passed it over for a slower network.

    None unless latency did not limit the search: accuracy alone then chose a network that is
    faster than the target, and it may well be the better one.
    """
    best = choices.best()
    if multiplier is None or multiplier.is_limiting or best.arch == derived.arch:
        return None
    return best if latency.of([best.arch])[0] < multiplier.target_s else None


def near(
    choices: Choices, latency: ExpectedLatency, target_s: float, width: float = 2.0 * WITHIN
) -> Iterator[Path]:
    """Yield the most probable network of every cell of latency within ``width`` of T, relative.

    Of the additive part of the model; the caller looks at the whole prediction.
    """
    cell_s = target_s / CELLS
    stages = _stages(choices, latency, cell_s)
    offset_s = latency.constant_s + sum(min(o.cost_s for o in s.options) for s in stages)
    last = round((target_s * (1.0 + width) - offset_s) / cell_s)
    first = max(0, round((target_s * (1.0 - width) - offset_s) / cell_s))
    if last < 0:
        return
    values, taken = np.full(last + 1, -np.inf), []
    values[0] = 0.0
    for stage in stages:
        values, picks = _best_sums(values, stage, cell_s)
        taken.append(picks)
    for cell in range(first, last + 1):
        if np.isfinite(values[cell]):
            yield _traced(choices.space, stages, taken, cell, cell_s)


def _beside_sum_s(latency: ExpectedLatency, path: Path) -> float:
    """Return what the prediction of a network has beside the constant and its entries."""
    arch = path.arch
    entries = [
        latency.table[Slot(unit, layer), block]
        for unit, blocks in enumerate(arch.units)
        for layer, block in enumerate(blocks)
    ]
    entries += [
        levels[factor.levels.index(path.level(factor))]
        for factor, levels in latency.levels_s.items()
    ]
    return latency.of([arch])[0] - latency.constant_s - sum(entries)


@dataclass(frozen=True, kw_only=True)
class _Option:
    """One way to settle a unit's layer, or the blocks of a unit up to one cost."""

    cost_s: float
    log_p: float
    picks: Mapping[Where, int]


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """Options of which a network takes exactly one."""

    options: tuple[_Option, ...]

    def cells(self, cell_s: float) -> list[int]:
        """Return each option's cost above the cheapest, in cells."""
        least = min(o.cost_s for o in self.options)
        return [round((o.cost_s - least) / cell_s) for o in self.options]


def _stages(choices: Choices, latency: ExpectedLatency, cell_s: float) -> list[_Stage]:
    """Return a stage for every layer that is always there, for the rest of each unit, each factor."""
    space, stages = choices.space, list[_Stage]()
    for unit in range(space.n_units):
        least = space.min_depth[unit]
        layers = [_layer(choices, latency, Slot(unit, n)) for n in range(space.max_depth[unit])]
        stages += [_Stage(options=layer) for layer in layers[:least]]
        if unit in choices.alpha:
            stages.append(_rest(choices, unit, layers[least:], cell_s))
    return [*stages, *(_levels(choices, latency, factor) for factor in space.factors)]


def _levels(choices: Choices, latency: ExpectedLatency, factor: Factor) -> _Stage:
    logs = choices.alpha[factor].detach().log_softmax(dim=0).tolist()
    costs = latency.levels_s[factor]
    return _Stage(
        options=tuple(
            _Option(cost_s=cost_s, log_p=log_p, picks={factor: number})
            for number, (cost_s, log_p) in enumerate(zip(costs, logs, strict=True))
        )
    )


def _layer(choices: Choices, latency: ExpectedLatency, slot: Slot) -> tuple[_Option, ...]:
    blocks, alpha = choices.space.choices(slot), choices.alpha.get(slot)
    if alpha is None:
        # One block is left here: nothing to pick, and a path holds decisions only.
        return (_Option(cost_s=latency.table[slot, blocks[0]], log_p=0.0, picks={}),)
    logs = alpha.detach().log_softmax(dim=0).tolist()
    return tuple(
        _Option(cost_s=latency.table[slot, block], log_p=log_p, picks={slot: number})
        for number, (block, log_p) in enumerate(zip(blocks, logs, strict=True))
    )


def _rest(
    choices: Choices, unit: int, layers: Sequence[tuple[_Option, ...]], cell_s: float
) -> _Stage:
    """Return every depth of a unit with every choice of the layers that it adds.

    Of choices that cost the same, by the grid's measure, the most probable one is kept.
    """
    reached = [_Option(cost_s=0.0, log_p=0.0, picks={})]
    options: list[_Option] = []
    logs = choices.alpha[unit].detach().log_softmax(dim=0).tolist()
    depths = choices.space.depths(unit)
    for depth in range(depths[0], depths[-1] + 1):
        if depth > depths[0]:
            reached = _thinned(reached, layers[depth - depths[0] - 1], cell_s)
        if depth in depths:
            number = depths.index(depth)
            options += [
                _Option(
                    cost_s=o.cost_s, log_p=o.log_p + logs[number], picks={**o.picks, unit: number}
                )
                for o in reached
            ]
    return _Stage(options=tuple(options))


def _thinned(before: Sequence[_Option], layer: Sequence[_Option], cell_s: float) -> list[_Option]:
    best: dict[int, _Option] = {}
    for one in before:
        for other in layer:
            option = _Option(
                cost_s=one.cost_s + other.cost_s,
                log_p=one.log_p + other.log_p,
                picks={**one.picks, **other.picks},
            )
            cell = round(option.cost_s / cell_s)
            if cell not in best or option.log_p > best[cell].log_p:
                best[cell] = option
    return list(best.values())


def _best_sums(values: Floats, stage: _Stage, cell_s: float) -> tuple[Floats, NDArray[np.int64]]:
    """Add a stage: return the largest log-probability of every cell, and which option gave it."""
    n = len(values)
    sums, picks = np.full(n, -np.inf), np.full(n, -1)
    for number, (option, cells) in enumerate(zip(stage.options, stage.cells(cell_s), strict=True)):
        if cells >= n:
            continue
        candidate = np.full(n, -np.inf)
        candidate[cells:] = values[: n - cells] + option.log_p
        better = candidate > sums
        sums[better], picks[better] = candidate[better], number
    return sums, picks


def _traced(
    space: DesignSpace,
    stages: Sequence[_Stage],
    taken: Sequence[NDArray[np.int64]],
    cell: int,
    cell_s: float,
) -> Path:
    picks: dict[Where, int] = {}
    for stage, numbers in zip(reversed(stages), reversed(taken), strict=True):
        number = int(numbers[cell])
        picks.update(stage.options[number].picks)
        cell -= stage.cells(cell_s)[number]
    return Path(space=space, picks=picks)
