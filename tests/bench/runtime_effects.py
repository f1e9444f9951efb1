"""How far runtimes agree on what blocks cost, from isolated latencies: pure functions.

An *effect* is a block's latency less the mean of its slot's blocks, as a share of that mean, so
that neither a runtime's speed nor a slot's size matters. A *verdict* is ``cheap`` or ``dear`` where
the 95 % interval excludes zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from statistics import fmean
from typing import Any

import numpy as np

from hwprof.estimate.crossval import spearman
from hwprof.interval import Interval
from hwprof.reports.contexts import centred
from hwprof.reports.views import IsolatedBlock
from hwprof.space import Slot

MBCONV = re.compile(r"mbconv_k(\d+)_e(\d+)")
N_BOOTSTRAP = 2000

Levels = Mapping[str, Mapping[tuple[Slot, str], Interval]]
"""Isolated latency (s) by device, slot and block; the same slots and blocks for all devices."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two runtimes on one space."""

    space: str
    a: str
    b: str
    n_effects: int
    spearman: float
    spearman_lo: float
    spearman_hi: float
    n_pairs_decided: int
    """Pairs of blocks of one slot whose order both runtimes tell."""
    n_pairs_flipped: int
    n_verdicts_decided: int
    """(kernel, expansion) whose mean effect over the slots differs from zero on both."""
    verdicts_flipped: tuple[str, ...]


def effects(levels: Mapping[tuple[Slot, str], Interval]) -> dict[tuple[Slot, str], Interval]:
    """Return every block's effect at its slot, as a share of the slot's mean."""
    slots: dict[Slot, dict[str, Interval]] = {}
    for (slot, block), level in levels.items():
        slots.setdefault(slot, {})[block] = level
    out = {}
    for slot, times in slots.items():
        if len(times) > 1:
            mean_s = fmean(time.value for time in times.values())
            blocks = {
                block: IsolatedBlock(slot=slot, block=block, isolated_hot_s=time)
                for block, time in times.items()
            }
            for block, effect in centred(blocks).items():
                out[slot, block] = Interval(*(v / mean_s for v in effect))
    return out


def overall(found: Mapping[tuple[Slot, str], Interval]) -> dict[str, Interval]:
    """Return the mean effect over the slots of every (kernel, expansion), with its interval.

    The interval is that of the measurement: the slots are all there are, not a sample.
    """
    by_block: dict[str, list[Interval]] = {}
    for (_, block), effect in found.items():
        if MBCONV.fullmatch(block):
            by_block.setdefault(block, []).append(effect)
    out = {}
    for block, members in sorted(by_block.items()):
        value = fmean(m.value for m in members)
        half = math.hypot(*(m.half_width for m in members)) / len(members)
        out[block] = Interval(value, value - half, value + half)
    return out


def verdict(effect: Interval) -> str:
    """Return ``cheap``, ``dear`` or ``open``."""
    if not effect.excludes_zero:
        return "open"
    return "cheap" if effect.value < 0 else "dear"


def pair_orders(levels: Mapping[tuple[Slot, str], Interval]) -> dict[tuple[Slot, str, str], int]:
    """Return the sign of the difference of every two blocks of a slot, 0 where it is open."""
    signs = {}
    for (slot, a), (other, b) in combinations(levels, 2):
        if slot == other:
            first, second = levels[slot, a], levels[slot, b]
            difference = first.value - second.value
            decided = abs(difference) > math.hypot(first.half_width, second.half_width)
            signs[slot, a, b] = int(np.sign(difference)) if decided else 0
    return signs


def agreements(space: str, levels: Levels) -> Iterator[Agreement]:
    """Yield how far every two runtimes agree."""
    found = {device: effects(rows) for device, rows in levels.items()}
    means = {device: overall(rows) for device, rows in found.items()}
    orders = {device: pair_orders(rows) for device, rows in levels.items()}
    for a, b in combinations(levels, 2):
        keys = list(found[a])
        low, high = _spearman_interval(keys, found[a], found[b])
        both = [k for k in orders[a] if orders[a][k] and orders[b][k]]
        decided = [
            block
            for block in means[a]
            if "open" not in (verdict(means[a][block]), verdict(means[b][block]))
        ]
        yield Agreement(
            space=space,
            a=a,
            b=b,
            n_effects=len(keys),
            spearman=_spearman(keys, found[a], found[b]),
            spearman_lo=low,
            spearman_hi=high,
            n_pairs_decided=len(both),
            n_pairs_flipped=sum(orders[a][k] != orders[b][k] for k in both),
            n_verdicts_decided=len(decided),
            verdicts_flipped=tuple(
                block for block in decided if verdict(means[a][block]) != verdict(means[b][block])
            ),
        )


def _spearman(
    keys: Sequence[tuple[Slot, str]],
    a: Mapping[tuple[Slot, str], Interval],
    b: Mapping[tuple[Slot, str], Interval],
) -> float:
    return spearman(np.array([a[k].value for k in keys]), np.array([b[k].value for k in keys]))


def _spearman_interval(
    keys: Sequence[tuple[Slot, str]],
    a: Mapping[tuple[Slot, str], Interval],
    b: Mapping[tuple[Slot, str], Interval],
) -> tuple[float, float]:
    """Return a 95 % interval by resampling whole slots: blocks of one slot hang together."""
    by_slot: dict[Slot, list[tuple[Slot, str]]] = {}
    for key in keys:
        by_slot.setdefault(key[0], []).append(key)
    slots = list(by_slot.values())
    rng = np.random.default_rng(0)
    draws = [
        _spearman(
            [key for i in rng.integers(len(slots), size=len(slots)) for key in slots[i]], a, b
        )
        for _ in range(N_BOOTSTRAP)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def flipped_pairs(space: str, levels: Levels) -> Iterator[dict[str, Any]]:
    """Yield the pairs of blocks whose order two runtimes tell differently."""
    orders = {device: pair_orders(rows) for device, rows in levels.items()}
    for a, b in combinations(levels, 2):
        for (slot, first, second), sign in orders[a].items():
            if sign * orders[b][slot, first, second] < 0:
                ratio = {
                    d: levels[d][slot, first].value / levels[d][slot, second].value for d in (a, b)
                }
                yield {
                    "space": space,
                    "unit": slot.unit,
                    "layer": slot.layer,
                    "block": first,
                    "other": second,
                    "a": a,
                    "b": b,
                    "ratio_on_a": ratio[a],
                    "ratio_on_b": ratio[b],
                }


def price_steps(levels: Levels) -> dict[str, dict[str, float]]:
    """Return by device what a larger kernel or expansion costs: geometric mean over the slots."""
    out: dict[str, dict[str, float]] = {}
    for device, rows in levels.items():
        logs: dict[str, list[float]] = {}
        for (slot, block), (other_slot, other) in permutations(rows, 2):
            if slot != other_slot or not (MBCONV.fullmatch(block) and MBCONV.fullmatch(other)):
                continue
            (k1, e1), (k2, e2) = (map(int, MBCONV.findall(b)[0]) for b in (block, other))
            step = ""
            if e1 == e2 and k1 < k2:
                step = f"k{k2} / k{k1}"
            elif k1 == k2 and e1 < e2:
                step = f"e{e2} / e{e1}"
            if step:
                log_ratio = math.log(rows[slot, other].value / rows[slot, block].value)
                logs.setdefault(step, []).append(log_ratio)
        out[device] = {step: math.exp(fmean(values)) for step, values in sorted(logs.items())}
    return out
