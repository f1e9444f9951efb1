"""Cut a design space down to what suits a device, with the evidence beside every cut.

Rules propose (:mod:`hwprof.search.reducing.reduction_rules`), the budget decides: proposals are taken in
order of saving per loss, and the first that would bring the loss of all cuts together over the
budget ends it. The loss is the most accuracy given up at any latency, best of the full space
against best of the reduced one (:mod:`hwprof.search.reducing.additive_front`), over possible truths of
the noisy accuracy effects (:mod:`hwprof.search.reducing.posterior`): 95 % of them must keep the budget.
That bound is as good as its model; in simulated small spaces with a fixed trend over blocks the
budget was kept in 88 to 97 % of repeats.
The order does not depend on the budget, so a larger budget never keeps less of what a smaller
one dropped: cuts only grow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from hwprof.errors import PlanError, SpaceError
from hwprof.estimate.responses import Friendliness
from hwprof.search.reducing import reduction_rules as rules
from hwprof.search.reducing.additive_front import Alternatives, PriceSweep, Support
from hwprof.search.reducing.evidence import Evidence
from hwprof.search.reducing.posterior import draw_effects
from hwprof.search.reducing.reduction_rules import Proposal
from hwprof.space import DesignSpace, Slot
from hwprof.space.reduction import Drop, Reduction
from hwprof.units import format_seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Goal = Literal["front", "accuracy"]

N_TRUTHS = 128
"""Draws of the accuracy effects: the 95 % bound is then the 6th to 7th largest loss."""
SEED = 0
"""The draws are part of the rule: equal effects give equal cuts."""
MIN_CHOICES = 2
"""Candidates that every slot keeps, so that a search still has something to decide there."""
NO_LOSS_PP = 0.01
"""Expected loss in points below which a cut counts as free: finer than accuracy is known."""


@dataclass(frozen=True, kw_only=True)
class _Loss:
    expected_pp: float
    upper_pp: float


def reduce_space(
    space: DesignSpace,
    friendliness: Friendliness,
    *,
    max_accuracy_drop_pp: float | None = None,
    goal: Goal = "front",
    target_s: tuple[float, float] | None = None,
) -> Reduction:
    """Drop the blocks and depths that a device makes a bad bargain.

    Args:
        space: the space that the effects were estimated in.
        friendliness: effects on latency and, where known, accuracy.
        max_accuracy_drop_pp: percentage points that all cuts together may cost at any latency
            (95 % bound). None sets no limit and leaves out R5, which lives on the budget.
        goal: ``front`` for the trade of accuracy against latency (R1, R2, R3, R5; R6 where no
            accuracy is known), ``accuracy`` for the most accurate networks (R4).
        target_s: latencies of the networks that are wanted, seconds. What is lost elsewhere
            does not count, blocks that no wanted network can hold go (R7), and no cut may
            leave the range without a network.

    Raises:
        SpaceError: the effects are of another space.
        PlanError: a negative budget, or accuracy is asked for where none is known.
    """
    _require_same_space(space, friendliness.space)
    _require_plan(friendliness, max_accuracy_drop_pp, goal)
    evidence = Evidence(space=space, friendliness=friendliness, target_s=target_s)
    _require_target(evidence)
    bargains = _bargains(evidence, max_accuracy_drop_pp, goal)
    proposals = [*bargains, *rules.too_slow(evidence)]
    losses = _Losses(evidence) if friendliness.accuracy is not None else None
    left, drops, loss, refused = _accept(
        evidence, _ordered(evidence, proposals, losses), losses, max_accuracy_drop_pp
    )
    return Reduction(
        space=space.name,
        resolution_px=space.resolution_px,
        device=friendliness.device,
        fingerprint=friendliness.fingerprint,
        alive=left.within_depths(),
        max_depth=left.max_depth,
        accuracy_budget_points=max_accuracy_drop_pp,
        drops=tuple(drops),
        notes=_notes(evidence, left, loss, refused, max_accuracy_drop_pp),
    )


def _bargains(evidence: Evidence, budget: float | None, goal: Goal) -> list[Proposal]:
    if evidence.accuracy is None:
        return rules.slow_for_their_work(evidence)
    if goal == "accuracy":
        return rules.inaccurate(evidence)
    costly = rules.costly(evidence)
    found = [*costly, *rules.flat_device(evidence), *rules.depth_caps(evidence, costly)]
    if budget is not None:
        found += rules.dominated_in_slot(evidence)
    return found


def _ordered(
    evidence: Evidence, proposals: list[Proposal], losses: _Losses | None
) -> list[Proposal]:
    """Return the proposals by saving per loss, each judged alone; free ones come first."""

    def key(proposal: Proposal) -> tuple[bool, float, str, str]:
        after = _apply(evidence.whole, proposal)
        lost = losses.of(after).expected_pp if losses is not None and after is not None else 0.0
        drop = proposal.drop
        worth = proposal.saving_s / max(lost, NO_LOSS_PP)
        place = f"{drop.rule} {drop.unit} {drop.layer} {drop.depth}"
        return lost > NO_LOSS_PP, -worth, place, str(drop.block)

    return sorted(proposals, key=key)


def _accept(
    evidence: Evidence,
    proposals: list[Proposal],
    losses: _Losses | None,
    budget: float | None,
) -> tuple[Alternatives, list[Drop], _Loss | None, int]:
    """Carry proposals out until one would break the budget.

    Returns what is left, the drops, their loss, and how many proposals the budget refused.
    """
    left, drops = evidence.whole, list[Drop]()
    loss = _Loss(expected_pp=0.0, upper_pp=0.0) if losses is not None else None
    for position, proposal in enumerate(proposals):
        after = _apply(left, proposal)
        if after is None or not _reaches_target(evidence, after):
            continue
        if losses is not None:
            cost = losses.of(after)
            if budget is not None and cost.upper_pp > budget:
                return left, drops, loss, len(proposals) - position
            loss = cost
        left = after
        drops.append(_as_carried_out(proposal, left))
    return left, drops, loss, 0


def _apply(left: Alternatives, proposal: Proposal) -> Alternatives | None:
    """Return what is left after a cut; None where it would change nothing that it may change."""
    if proposal.cap is not None:
        unit, depth = proposal.cap
        if left.max_depth[unit] <= depth:
            return None
        depths = (*left.max_depth[:unit], depth, *left.max_depth[unit + 1 :])
        return Alternatives(alive=left.alive, max_depth=depths)
    alive = dict(left.alive)
    for slot, block in proposal.removes.items():
        rest = tuple(b for b in alive[slot] if b != block)
        if len(rest) < len(alive[slot]) and len(rest) >= MIN_CHOICES and {*rest} & proposal.instead:
            alive[slot] = rest
    changed = alive != left.alive
    return Alternatives(alive=alive, max_depth=left.max_depth) if changed else None


def _as_carried_out(proposal: Proposal, left: Alternatives) -> Drop:
    """Return the drop, saying so where some slots had to keep the block."""
    kept = [slot for slot, block in proposal.removes.items() if block in left.alive[slot]]
    if not kept:
        return proposal.drop
    places = ", ".join(str(slot) for slot in kept)
    return replace(proposal.drop, why=f"{proposal.drop.why}; kept at {places} for want of others")


class _Losses:
    """The loss of any reduction over the possible truths."""

    def __init__(self, evidence: Evidence) -> None:
        accuracy = evidence.accuracy
        assert accuracy is not None
        draws = draw_effects(evidence.design, accuracy, N_TRUTHS, np.random.default_rng(SEED))
        self._sweep = PriceSweep(evidence.design, evidence.latency.values, draws)
        self._full: Support = self._sweep.support(evidence.whole)
        self._within_s = None
        if evidence.target_s is not None:
            low, high = evidence.target_s
            self._within_s = (low - evidence.offset_s, high - evidence.offset_s)

    def of(self, left: Alternatives) -> _Loss:
        """Return the expected loss and its 95 % bound."""
        losses = self._sweep.loss(self._full, self._sweep.support(left), self._within_s)
        expected = float(losses.mean())
        # A loss that is rare but large can lift the mean over the 95 % bound.
        return _Loss(expected_pp=expected, upper_pp=max(expected, float(np.quantile(losses, 0.95))))


def _notes(
    evidence: Evidence,
    left: Alternatives,
    loss: _Loss | None,
    refused: int,
    budget: float | None,
) -> tuple[str, ...]:
    notes = list(evidence.friendliness.notes)
    if loss is None:
        notes.append(
            "accuracy is unknown, so only blocks that take longer than one that computes more "
            "were dropped; give --accuracy for more"
        )
    else:
        limit = "no budget was set" if budget is None else f"budget {budget:g}"
        notes.append(
            f"all cuts together cost {loss.expected_pp:.2f} points at the worst latency "
            f"(95 % bound {loss.upper_pp:.2f}; {limit})"
        )
    if refused:
        notes.append(
            f"the budget left {refused} more proposals aside; raise --max-accuracy-drop-pp for them"
        )
    if evidence.friendliness.mean_latency is None:
        notes.append(
            f"the mean latency is unknown; {format_seconds(evidence.mean_latency_s)} was assumed, "
            "twice its distance from the fastest network"
        )
    if evidence.target_s is not None:
        low, high = evidence.target_s
        notes.append(
            f"focused on networks of {format_seconds(low)} to {format_seconds(high)}: what other "
            "networks lose was not counted"
        )
    slower = evidence.fastest_s(left) - evidence.fastest_s(evidence.whole)
    if slower > 0.0:
        notes.append(f"the fastest network became {format_seconds(slower)} slower")
    return tuple(notes)


def _reaches_target(evidence: Evidence, left: Alternatives) -> bool:
    """Say whether a network that is left may still be one that is wanted."""
    if evidence.target_s is None:
        return True
    low, high = evidence.target_s
    return evidence.fastest_s(left) <= high and evidence.slowest_s(left) >= low


def _require_target(evidence: Evidence) -> None:
    if evidence.target_s is None:
        return
    low, high = evidence.target_s
    if not 0.0 <= low < high:
        raise PlanError(
            f"the target is {1e3 * low:g} to {1e3 * high:g} ms; expected a range such as 15-20"
        )
    if evidence.friendliness.mean_latency is None:
        raise PlanError(
            "a target needs latencies, and these effects are differences only; reduce from a run "
            "folder, or leave out --target-ms"
        )
    fastest = evidence.fastest_s(evidence.whole)
    if fastest > high:
        raise PlanError(
            f"no network reaches the target of {format_seconds(high)}: the fastest is expected at "
            f"{format_seconds(fastest)}; raise --target-ms"
        )
    slowest = evidence.slowest_s(evidence.whole)
    if slowest < low:
        raise PlanError(
            f"no network is as slow as {format_seconds(low)}: the slowest is expected at "
            f"{format_seconds(slowest)}; lower --target-ms"
        )


def _require_same_space(space: DesignSpace, other: DesignSpace) -> None:
    def facts(s: DesignSpace) -> dict[Slot, tuple[str, ...]]:
        return {slot: s.choices(slot) for slot in s.slots}

    same = (space.name, space.resolution_px) == (other.name, other.resolution_px)
    if not same or facts(space) != facts(other):
        raise SpaceError(
            f"the effects are of {other.name} at {other.resolution_px} px, the space to reduce "
            f"is {space.name} at {space.resolution_px} px; estimate them in the same space"
        )


def _require_plan(friendliness: Friendliness, budget: float | None, goal: Goal) -> None:
    if budget is not None and not budget >= 0.0:
        raise PlanError(f"the accuracy budget is {budget} points; expected a number from 0 up")
    if goal == "accuracy" and friendliness.accuracy is None:
        raise PlanError("reducing for accuracy needs accuracies; give an accuracy source")
