"""The rules that propose cuts. Which proposals are accepted is the reducer's decision.

R1 to R4 are those of hwprof's block-profiling method, whose constants were chosen so that they
give the reductions that Mills et al. (CIKM 2021) made by hand; R5 and R6 are for cases that the
paper does not have: slots of a small noisy space, and devices without any accuracy.
Bounds are one-sided 95 %, from the full covariance of the effects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from hwprof.estimate.claims import FAMILY_ERROR, holm
from hwprof.estimate.design_matrix import Term
from hwprof.estimate.least_squares import upper_p
from hwprof.interval import Interval
from hwprof.search.reducing.evidence import Evidence
from hwprof.space import SKIP, Slot
from hwprof.space.reduction import Drop
from hwprof.units import format_points_spread, format_seconds, format_spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COSTLY = 0.20
"""R1, R3, R6: share of the mean latency that a block used everywhere must cost more than
another. The paper's seven hand-made reductions are met for 0.19 to 0.23."""
FLAT = 0.02
"""R2: share of the mean latency below which no difference counts. R5 takes the same share of a
layer: FLAT · mean / expected number of layers."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A cut that a rule asks for.

    ``removes`` names blocks per slot; ``instead`` the blocks of which one must be left there
    when the cut is made, since the rule's comparison is with them. ``cap`` is (unit, maximum
    depth). ``saving_s`` is what the cut's own comparison says it saves.
    """

    drop: Drop
    saving_s: float
    removes: Mapping[Slot, str] = field(default_factory=dict)
    instead: frozenset[str] = frozenset()
    cap: tuple[int, int] | None = None


def costly(evidence: Evidence) -> list[Proposal]:
    """R1: blocks that cost far more than another everywhere and do not earn it.

    Drop b if for some b' LCB(W^L_b − W^L_b') > 0.20 · E[L] and UCB(ΔW^A − λ ΔW^L) < 0, λ being
    the worst rate at which depth buys accuracy: the time would be better spent on any layer.
    """
    rate, limit = evidence.rate, COSTLY * evidence.mean_latency_s
    found = []
    for block in evidence.blocks:
        rivals: dict[str, Floats] = {}
        for other, weights in _rivals(evidence, block):
            slower = evidence.bounded(evidence.latency, weights).lower > limit
            if slower and evidence.net(weights, rate).upper < 0.0:
                rivals[other] = weights
        if rivals:
            best = max(rivals, key=lambda o: evidence.latency.contrast(rivals[o])[0])
            found.append(_everywhere(evidence, "R1 costly", block, best, rivals, _earns(evidence)))
    return found


def flat_device(evidence: Evidence) -> list[Proposal]:
    """R2: where no block is slower than another, drop the least accurate, a third at most.

    Flat means that no pair of W^L differs by over 2 % of E[L] with confidence, and that every
    pair's interval excludes R1's 20 %: silence of the data is not flatness. Only blocks with
    UCB(W^A) < 0 go.
    """
    accuracy = evidence.accuracy
    if accuracy is None:
        return []
    for block in evidence.blocks:
        for _, weights in _rivals(evidence, block):
            slower = evidence.bounded(evidence.latency, weights)
            if slower.lower > FLAT * evidence.mean_latency_s:
                return []
            if slower.upper > COSTLY * evidence.mean_latency_s:
                return []
    places = {b: evidence.design.index[Term(kind="network", block=b)] for b in evidence.blocks}
    worst = sorted(places, key=lambda b: (accuracy.values[places[b]], b))
    return [
        _below_average(evidence, "R2 flat device", block)
        for block in worst[: len(worst) // 3]
        if evidence.bounded(accuracy, _unit_vector(evidence, places[block])).upper < 0.0
    ]


def depth_caps(evidence: Evidence, costly_blocks: list[Proposal]) -> list[Proposal]:
    """R3: last layers that buy less accuracy for their time than last layers do on average.

    Only where R1's drops save under 20 % of E[L]: cap u one lower if UCB(a_u − r · l_u) < 0,
    r = Σa / Σl over units, a and l the effects of each unit's deepest layer.
    """
    accuracy = evidence.accuracy
    units = {
        u: w
        for u, w in evidence.last_layers.items()
        if evidence.space.max_depth[u] > evidence.space.min_depth[u]
    }
    if accuracy is None:
        return []
    if _mean_saving(evidence, costly_blocks) >= COSTLY * evidence.mean_latency_s:
        return []
    points = sum(accuracy.contrast(w)[0] for w in units.values())
    seconds = sum(evidence.latency.contrast(w)[0] for w in units.values())
    if seconds <= 0.0:
        return []
    rate = max(points / seconds, 0.0)
    return [
        _cap(evidence, unit, weights, rate)
        for unit, weights in units.items()
        if evidence.latency.contrast(weights)[0] > 0.0 and evidence.net(weights, rate).upper < 0.0
    ]


def inaccurate(evidence: Evidence) -> list[Proposal]:
    """R4, for the most accurate network whatever it costs: drop every b with UCB(W^A) < 0."""
    accuracy = evidence.accuracy
    if accuracy is None:
        return []
    return [
        _below_average(evidence, "R4 inaccurate", str(term.block))
        for term, place in evidence.design.index.items()
        if term.kind == "network"
        and evidence.bounded(accuracy, _unit_vector(evidence, place)).upper < 0.0
    ]


def dominated_in_slot(evidence: Evidence) -> list[Proposal]:
    """R5: blocks that are slower than another in their own slot and not shown to be worth it.

    Drop b at (u, l) if some b' there is faster by more than a flat layer's worth, certain over
    all slots together (Holm on one-sided tests), while LCB(Δβ^A − λ Δβ^L) ≤ 0: that its
    accuracy is worth its time at depth's worst rate is not shown. R1 asks for proof that a
    block is *not* worth its time, since it removes it everywhere and without a budget. Where
    accuracies are noisy a single slot can never prove that, so R5 asks only for proof of the
    time and leaves the risk to accuracy to the budget, which bounds what all cuts together may
    lose. Without a budget there is no R5. Every pair is tested, worth its time or not: what a
    block is worth holds its latency's noise, by which no family of tests may be chosen.
    """
    margin = FLAT * evidence.mean_latency_s / evidence.n_active_slots
    pairs = [
        (slot, block, other)
        for slot in evidence.space.slots
        for block, other in permutations(evidence.space.choices(slot), 2)
        if SKIP not in (block, other)
    ]
    p_values = [_p_slower(evidence, evidence.here(*pair), margin) for pair in pairs]
    rivals: dict[tuple[Slot, str], list[str]] = {}
    for (slot, block, other), p in zip(pairs, holm(p_values), strict=True):
        weights = evidence.here(slot, block, other)
        if p <= FAMILY_ERROR and evidence.net(weights, evidence.rate).lower <= 0.0:
            rivals.setdefault((slot, block), []).append(other)
    return [_in_slot(evidence, slot, block, rivals[slot, block]) for slot, block in sorted(rivals)]


def slow_for_their_work(evidence: Evidence) -> list[Proposal]:
    """R6, where no accuracy is known: blocks that take far longer than one that computes more.

    Drop b if some b' with at least as many MACs in every slot they share is faster everywhere
    by over 20 % of E[L] with confidence. A block that costs time because it computes more may
    be worth it, and latency alone cannot tell; one that costs more time for less work is a bad
    fit to the device whatever its accuracy.
    """
    from hwprof.graph import piece_cost

    limit = COSTLY * evidence.mean_latency_s
    work = evidence.space.block_totals(lambda piece: piece_cost(piece).macs)
    found = []
    for block in evidence.blocks:
        rivals: dict[str, Floats] = {}
        for other, weights in _rivals(evidence, block):
            shared = [s for s in evidence.slots_of(block) if s in evidence.slots_of(other)]
            more = all(0 < work[s, other] >= work[s, block] for s in shared)
            if more and evidence.bounded(evidence.latency, weights).lower > limit:
                rivals[other] = weights
        if rivals:
            best = max(rivals, key=lambda o: evidence.latency.contrast(rivals[o])[0])
            why = f"although {best} computes at least as much"
            found.append(_everywhere(evidence, "R6 slow for its work", block, best, rivals, why))
    return found


def too_slow(evidence: Evidence) -> list[Proposal]:
    """R7, where slower networks are not wanted: blocks that no wanted network can hold.

    Drop b at (u, l) if the fastest network that holds it there is slower than the target with
    one-sided 95 % confidence in what it adds to the fastest network of all.
    """
    if evidence.target_s is None:
        return []
    limit, fastest = evidence.target_s[1], evidence.fastest_s(evidence.whole)
    found = []
    for slot in evidence.space.slots:
        choices = [b for b in evidence.space.choices(slot) if b != SKIP]
        if not choices:
            continue
        quickest = min(choices, key=lambda b: evidence.latency.values[evidence.place(slot, b)])
        for block in choices:
            weights = evidence.here(slot, block, quickest)
            added = evidence.bounded(evidence.latency, weights)
            if block != quickest and fastest + added.lower > limit:
                found.append(_beyond(evidence, slot, block, quickest, fastest))
    return found


def _beyond(
    evidence: Evidence, slot: Slot, block: str, quickest: str, fastest_s: float
) -> Proposal:
    found = evidence.intervals(evidence.here(slot, block, quickest))
    level = format_seconds(fastest_s + found[0].value)
    clause = f"; with it a network takes {level} at least, over the target"
    others = frozenset(evidence.space.choices(slot)) - {block}
    return _slower_here(
        evidence, "R7 over the target", slot, block, quickest, found, clause, instead=others
    )


def _rivals(evidence: Evidence, block: str) -> Iterator[tuple[str, Floats]]:
    """Yield every other block with the contrast of ``block`` against it."""
    for other in evidence.blocks:
        weights = evidence.everywhere(block, other) if other != block else None
        if weights is not None:
            yield other, weights


def _unit_vector(evidence: Evidence, place: int) -> Floats:
    weights = np.zeros(len(evidence.design.terms))
    weights[place] = 1.0
    return weights


def _p_slower(evidence: Evidence, weights: Floats, margin: float) -> float:
    """Return the p-value against being slower by more than ``margin``."""
    value, sd = evidence.latency.contrast(weights)
    if sd == 0.0:
        return 0.0 if value > margin else 1.0
    return upper_p((value - margin) / sd, evidence.latency.degrees)


def _mean_saving(evidence: Evidence, proposals: list[Proposal]) -> float:
    """Return by how much a random network gets faster once the proposals are carried out."""
    gone = {(slot, block) for p in proposals for slot, block in p.removes.items()}
    saving = 0.0
    for slot in evidence.space.slots:
        left = [b for b in evidence.space.choices(slot) if (slot, b) not in gone]
        if left:
            values = [evidence.latency.values[evidence.place(slot, b)] for b in left]
            saving -= evidence.reach(slot) * float(np.mean(values))
    return saving


def _everywhere(
    evidence: Evidence,
    rule: str,
    block: str,
    best: str,
    rivals: Mapping[str, Floats],
    clause: str,
) -> Proposal:
    latency, accuracy = evidence.intervals(rivals[best])
    share = 100.0 * latency.value / evidence.mean_latency_s
    why = (
        f"{block} everywhere takes {format_spread(latency)} longer than {best} everywhere, {share:.0f} % of "
        f"the mean {format_seconds(evidence.mean_latency_s)} (over {COSTLY:.0%} asked for)"
        f"{points(accuracy)}, {clause}"
    )
    return Proposal(
        drop=Drop(rule=rule, block=block, latency_s=latency, accuracy_pct=accuracy, why=why),
        saving_s=latency.value,
        removes=dict.fromkeys(evidence.slots_of(block), block),
        instead=frozenset(rivals),
    )


def _earns(evidence: Evidence) -> str:
    return f"less than depth would buy with that time ({evidence.rate * 1e-3:.3g} points a ms)"


def _below_average(evidence: Evidence, rule: str, block: str) -> Proposal:
    weights = _unit_vector(evidence, evidence.design.index[Term(kind="network", block=block)])
    latency, accuracy = evidence.intervals(weights)
    why = (
        f"{block} everywhere changes accuracy by {points(accuracy, sign='')} against a random "
        f"fill, below zero with confidence, and latency by {format_spread(latency)}"
    )
    return Proposal(
        drop=Drop(rule=rule, block=block, latency_s=latency, accuracy_pct=accuracy, why=why),
        saving_s=latency.value,
        removes=dict.fromkeys(evidence.slots_of(block), block),
        instead=frozenset(evidence.blocks) - {block},
    )


def _cap(evidence: Evidence, unit: int, weights: Floats, rate: float) -> Proposal:
    latency, accuracy = evidence.intervals(weights)
    depth = evidence.space.max_depth[unit]
    why = (
        f"reaching {depth} layers in unit {unit} takes {format_spread(latency)}{points(accuracy)}, "
        f"less than the {rate * latency.value:.2g} points that last layers buy on average with that "
        "time"
    )
    return Proposal(
        drop=Drop(
            rule="R3 depth",
            unit=unit,
            depth=depth,
            latency_s=latency,
            accuracy_pct=accuracy,
            why=why,
        ),
        saving_s=latency.value,
        cap=(unit, depth - 1),
    )


def _in_slot(evidence: Evidence, slot: Slot, block: str, rivals: list[str]) -> Proposal:
    accuracy = evidence.accuracy
    if accuracy is None:
        raise ValueError("R5 needs accuracy effects")
    best = max(rivals, key=lambda b: (accuracy.values[evidence.place(slot, b)], b))
    found = evidence.intervals(evidence.here(slot, block, best))
    clause = f"{points(found[1])}: not shown to be worth the time"
    return _slower_here(
        evidence,
        "R5 dominated in its slot",
        slot,
        block,
        best,
        found,
        clause,
        instead=frozenset(rivals),
    )


def _slower_here(
    evidence: Evidence,
    rule: str,
    slot: Slot,
    block: str,
    other: str,
    found: tuple[Interval, Interval | None],
    clause: str,
    *,
    instead: frozenset[str],
) -> Proposal:
    """Propose to drop a block from one slot, for taking longer there than another one."""
    latency, accuracy = found
    place = f"unit {slot.unit} layer {slot.layer}"
    return Proposal(
        drop=Drop(
            rule=rule,
            unit=slot.unit,
            layer=slot.layer,
            block=block,
            latency_s=latency,
            accuracy_pct=accuracy,
            why=f"{block} in {place} takes {format_spread(latency)} longer than {other}{clause}",
        ),
        saving_s=evidence.reach(slot) * latency.value,
        removes={slot: block},
        instead=instead,
    )


def points(interval: Interval | None, sign: str = " for ") -> str:
    """Return an accuracy difference for reading; nothing where it is unknown."""
    if interval is None:
        return ""
    return f"{sign}{format_points_spread(interval)}"
